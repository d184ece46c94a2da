"""Files that come with qsend and are no Python: where this copy has them."""

from __future__ import annotations

import os

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PLACES = ("docs", "../../../share/qsend")
"""Beside the package: in a checkout, and as pip installs them."""


def find_shipped(name: str) -> str | None:
    """The path of `man` or `schema.sql`; None where it was left out."""
    for place in _PLACES:
        path = os.path.join(os.path.dirname(_PACKAGE), place, name)
        if os.path.exists(path):
            return path
    return None
