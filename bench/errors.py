"""What a benchmark cannot go on from."""

from __future__ import annotations


class BenchError(Exception):
    """A run that gave no figure; the text says why."""


class Late(BenchError):
    """Not all arrived in time."""
