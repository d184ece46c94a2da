"""A wall clock that a file sets: put before `qsend start`, with PLACE in front."""

import os
import time
from typing import Any

from qsend.sysio import clock, fork

PLACE = globals().get("PLACE", "")
_OFFSET = 1000
_first_close_all_but = fork.close_all_but


def _offset_s() -> int:
    return int(os.pread(_OFFSET, 20, 0).strip() or b"0")


def _close_all_but(kept: Any) -> None:
    _first_close_all_but([*kept, _OFFSET])


if PLACE:
    os.dup2(
        opened := os.open(f"{PLACE}/offset", os.O_RDONLY), _OFFSET, inheritable=False
    )
    os.close(opened)
    fork.close_all_but = _close_all_but
    clock.now = lambda: time.time_ns() // 10**9 + _offset_s()
    clock.now_ns = lambda: time.time_ns() + _offset_s() * 10**9
