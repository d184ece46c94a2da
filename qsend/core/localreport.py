"""The text of a local delivery's report, made to fit.

Source: spawn.c (truncreport), qmail-lspawn.c report(); spawn.c.
"""

from __future__ import annotations

TEXT_MAX = 3000
"""Longest text that is passed on (qmail-lspawn.c truncreport)."""

_KEPT = 2966
_NOTE = b"\nError report too long, sorry.\n"
"""31 bytes, as qmail's own note, so that both cut at the same place."""


def fit(text: bytes) -> bytes:
    """The text as it goes into a report.

    Text over TEXT_MAX bytes keeps 2966 and gets a line that says so; then a NUL
    byte ends the text, as it would on qmail's wire.
    """
    if len(text) > TEXT_MAX:
        text = text[:_KEPT] + _NOTE
    return text.partition(b"\0")[0]
