"""Giving up privilege, and proving that it is gone.

Source: setgroups(2), setresuid(2), prctl(2), capset(2); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable, Sequence

from qsend.core.errors import Fatal
from qsend.core.model import Account

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID = 2, 6, 7
_libc = ctypes.CDLL(None, use_errno=True)


def drop(account: Account, groups: Sequence[int] | None = None) -> None:
    """Become `account` for good, with `groups` (default: its gid alone).

    When the process already has exactly that uid and is not root (single-user
    mode), nothing is changed.
    Raises: Fatal when a step fails or the proof does.
    """
    if os.getuid() != 0:
        if (os.getuid(), os.geteuid()) != (account.uid, account.uid):
            raise Fatal(f"cannot become uid {account.uid}: not root")
        return
    wanted = sorted({account.gid} if groups is None else set(groups))
    try:
        os.setgroups(wanted)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as exc:
        raise Fatal(f"cannot become uid {account.uid}: {exc.strerror}") from exc
    _prove(account, wanted)


def _prove(account: Account, groups: Sequence[int]) -> None:
    uids, gids = os.getresuid(), os.getresgid()
    if set(uids) != {account.uid} or set(gids) != {account.gid}:
        raise Fatal(f"ids are {uids} {gids} after the drop to uid {account.uid}")
    if sorted(os.getgroups()) != sorted(groups):
        raise Fatal(f"groups are {os.getgroups()} after the drop")
    if account.uid == 0:
        return
    try:
        os.setresuid(-1, 0, -1)
    except PermissionError:
        return
    raise Fatal("root could be regained after the drop")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise Fatal(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def harden() -> None:
    """No new privileges by exec, no core, no tracing by siblings.

    Raises: Fatal.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    hide()


def keep(capabilities: Iterable[int]) -> None:
    """Of root's power keep these capabilities alone, for good; nothing for others.

    Raises: Fatal.
    """
    if os.getuid() != 0:
        return
    kept = sum(1 << each for each in capabilities)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    head = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc.capset(head, data) != 0:
        raise Fatal(f"capset: {os.strerror(ctypes.get_errno())}")


def hide() -> None:
    """No core, no tracing by siblings; programs that it runs may be setuid.

    For processes that run users' programs; all others `harden`.
    Raises: Fatal.
    """
    _prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
