"""Disks that fail: put before `qsend start` as a patch, with PLACE in front.

While the file PLACE/fault says `{"kind": "send", "call": "link", "errno": 28}`, that
call fails that way in all processes of that kind, but on what is no regular file or
directory. Each failure is a byte in PLACE/hits.
"""

import json
import os
import stat
from collections.abc import Callable
from typing import Any

import setproctitle

from qsend.core import manager
from qsend.sysio import durable, executor, fork, syncer

PLACE = globals().get("PLACE", "")
_FAULT, _HITS = 1000, 1001
_first_close_all_but = fork.close_all_but
_first_fstat, _first_write = os.fstat, os.write


def _is_meant(first: object) -> bool:
    """Whether a call on that path or descriptor is one on the disk."""
    if not isinstance(first, int):
        return not str(first).startswith("/proc/")
    mode = _first_fstat(first).st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _failing(name: str, first_call: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        fault = json.loads(os.pread(_FAULT, 200, 0).strip() or b"{}")
        if fault.get("call") == name:
            title = setproctitle.getproctitle()
            if title.startswith(f"qmail-{fault['kind']}:") and _is_meant(args[0]):
                _first_write(_HITS, b"x")
                if name == "close":
                    first_call(*args)
                raise OSError(fault["errno"], os.strerror(fault["errno"]))
        return first_call(*args, **more)

    return call


def _close_all_but(kept: Any) -> None:
    _first_close_all_but([*kept, _FAULT, _HITS])


if PLACE:
    for number, flags in ((_FAULT, os.O_RDONLY), (_HITS, os.O_WRONLY | os.O_APPEND)):
        path = f"{PLACE}/{'fault' if number == _FAULT else 'hits'}"
        os.dup2(opened := os.open(path, flags), number, inheritable=False)
        os.close(opened)
    fork.close_all_but = _close_all_but
    # What is tried again later is tried again in the test's time.
    executor.RETRY_S = executor.RETRY_BOUNCE_S = 0.5
    manager.SYSFAIL_S = 1
    syncer.syncfs = _failing("fsync", syncer.syncfs)
    vars(durable)["syncfs"] = syncer.syncfs
    for each in (
        "open", "close", "write", "fsync", "link", "rename", "unlink", "mkdir",
        "ftruncate", "utime", "scandir", "fchmod", "fstat", "stat", "read",
    ):  # fmt: skip
        setattr(os, each, _failing(each, getattr(os, each)))
    os.pwrite = _failing("write", os.pwrite)
