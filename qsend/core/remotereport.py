"""What the output of a classic qmail-remote means for its one recipient.

Source: qmail-rspawn.c report(); spawn.c.
"""

from __future__ import annotations

from qsend.core.model import Letter

_RANKS = {b"K": 1, b"Z": 0, b"D": -1}
_LETTERS = {1: Letter.SUCCESS, 0: Letter.DEFERRAL, -1: Letter.FAILURE}
_RECIP_RANKS = {b"s": 0, b"h": -1}

_CRASHED = b"qmail-remote crashed. (#4.3.0)\n"
_TROUBLE = b"qmail-remote could not do its work for now. (#4.3.0)\n"
_UNUSABLE = b"qmail-remote could not be run. (#5.3.0)\n"
_SILENT = b"qmail-remote ended without a word. (#4.3.0)\n"


def judge(status: int, output: bytes) -> tuple[Letter, bytes]:
    r"""The report of one delivery.

    The output is a list of items, each ended by NUL: one for the recipient (`r`,
    `h` or `s`) and one for the message (`K`, `Z` or `D`); either may be missing.
    `s<text>\0D<text>\0` for example is a deferral with both texts.

    Args:
        status: the exit code, or minus the signal that ended the program.
        output: everything it wrote.
    """
    if status < 0:
        return Letter.DEFERRAL, _CRASHED
    if status == 111:
        return Letter.DEFERRAL, _TROUBLE
    if status != 0:
        return Letter.FAILURE, _UNUSABLE
    if not output:
        return Letter.DEFERRAL, _SILENT
    items = output.split(b"\0")[:-1]  # what no NUL ends is no item
    result = next((_RANKS[item[:1]] for item in items if item[:1] in _RANKS), -1)
    rank = _RECIP_RANKS.get(output[:1], result)
    text = items[0][1:] if items else b""
    if result <= rank and len(items) > 1 and items[1][:1] in _RANKS:
        text += items[1][1:]
    return _LETTERS[rank], text
