"""Accounts of the machine, with "no such account" told from "cannot know now".

Python's pwd module takes every failure for "no such account", so that mail would
bounce while a directory server is down. The C functions behind it do tell.
Source: getpwnam_r(3), getpwuid_r(3).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from qsend.core.model import Account

_BUFFER_BYTES = 4096
_BUFFER_MAX = 1 << 20
"""Give up on an entry of more than a mebibyte."""

_NO_HOME = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""A home that is not there or not visible to us makes no user (qmail-getpw(8));
any other failure is about the machine, not about the account."""


class _Passwd(ctypes.Structure):
    _fields_ = [
        ("pw_name", ctypes.c_char_p),
        ("pw_passwd", ctypes.c_char_p),
        ("pw_uid", ctypes.c_uint32),
        ("pw_gid", ctypes.c_uint32),
        ("pw_gecos", ctypes.c_char_p),
        ("pw_dir", ctypes.c_char_p),
        ("pw_shell", ctypes.c_char_p),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswdEntry:
    """What delivery needs of an account; `home` as written, maybe empty."""

    name: bytes
    account: Account
    home: bytes


def by_name(name: bytes) -> PasswdEntry | None:
    """The account called `name` (without NUL), or None when there is none.

    Raises: OSError when the system could not find out.
    """
    return _find(
        lambda entry, text, size, found: int(
            _libc.getpwnam_r(ctypes.c_char_p(name), entry, text, size, found)
        )
    )


def by_uid(uid: int) -> PasswdEntry | None:
    """The account with that uid, or None. Raises: OSError as by_name."""
    return _find(
        lambda entry, text, size, found: int(
            _libc.getpwuid_r(ctypes.c_uint32(uid), entry, text, size, found)
        )
    )


def is_user(entry: PasswdEntry) -> bool:
    """Whether an account counts as a user: not root, and it owns its home.

    Raises: OSError when the home cannot be looked at for a passing reason.
    """
    if entry.account.uid == 0 or entry.home[:1] != b"/":
        return False
    try:
        return os.stat(entry.home).st_uid == entry.account.uid
    except OSError as exc:
        if exc.errno in _NO_HOME:
            return False
        raise


def _find(call: Callable[[object, object, object, object], int]) -> PasswdEntry | None:
    size = _BUFFER_BYTES
    while True:
        entry = _Passwd()
        found = ctypes.c_void_p()
        text = ctypes.create_string_buffer(size)
        code = call(
            ctypes.byref(entry), text, ctypes.c_size_t(size), ctypes.byref(found)
        )
        if code == errno.ERANGE and size < _BUFFER_MAX:
            size *= 4
        elif code != 0:
            # The C library of today answers 0 for "not found"; any number means
            # that some source of accounts did not answer. (When a later source
            # says "not found" after one that did not answer, it keeps that to
            # itself: put the one that may fail last in nsswitch.conf.)
            raise OSError(code, os.strerror(code))
        else:
            return None if found.value is None else _copy(entry)


def _copy(entry: _Passwd) -> PasswdEntry:
    # The strings live in the caller's buffer; attribute access copies them.
    return PasswdEntry(
        name=entry.pw_name or b"",
        account=Account(uid=entry.pw_uid, gid=entry.pw_gid),
        home=entry.pw_dir or b"",
    )
