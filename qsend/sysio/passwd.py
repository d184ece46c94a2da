"""Accounts of the machine, with "no such account" told from "cannot know now".

Python's pwd module takes every failure for "no such account", so that mail would
bounce while a directory server is down. The C functions behind it do tell.
Source: getpwnam_r(3), getpwuid_r(3), getspnam_r(3), shadow(5).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

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


class _Spwd(ctypes.Structure):
    _fields_ = [
        ("sp_namp", ctypes.c_char_p),
        ("sp_pwdp", ctypes.c_char_p),
        ("sp_lstchg", ctypes.c_long),
        ("sp_min", ctypes.c_long),
        ("sp_max", ctypes.c_long),
        ("sp_warn", ctypes.c_long),
        ("sp_inact", ctypes.c_long),
        ("sp_expire", ctypes.c_long),
        ("sp_flag", ctypes.c_ulong),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswdEntry:
    """What delivery and logins need of an account; `home` as written, maybe empty.

    `password` is the hash, or what stands for it: `x` where /etc/shadow has it.
    """

    name: bytes
    account: Account
    home: bytes
    shell: bytes = b""
    password: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowEntry:
    """The hash of an account, and the day (since 1970) on which it expires, or -1."""

    password: bytes = field(repr=False)
    expires: int


_Struct = TypeVar("_Struct", _Passwd, _Spwd)
_Entry = TypeVar("_Entry", PasswdEntry, ShadowEntry)


def by_name(name: bytes) -> PasswdEntry | None:
    """The account called `name` (without NUL), or None when there is none.

    Raises: OSError when the system could not find out.
    """
    return _find(
        _Passwd,
        lambda entry, text, size, found: int(
            _libc.getpwnam_r(ctypes.c_char_p(name), entry, text, size, found)
        ),
        _copy,
    )


def by_uid(uid: int) -> PasswdEntry | None:
    """The account with that uid, or None. Raises: OSError as by_name."""
    return _find(
        _Passwd,
        lambda entry, text, size, found: int(
            _libc.getpwuid_r(ctypes.c_uint32(uid), entry, text, size, found)
        ),
        _copy,
    )


def shadow_by_name(name: bytes) -> ShadowEntry | None:
    """The shadow entry of the account `name` (without NUL), or None.

    Raises: OSError when the system could not find out; EACCES for all but root.
    """
    try:
        return _find(
            _Spwd,
            lambda entry, text, size, found: int(
                _libc.getspnam_r(ctypes.c_char_p(name), entry, text, size, found)
            ),
            _copy_shadow,
        )
    except FileNotFoundError:
        return None  # a machine without /etc/shadow


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


def _find(
    kind: type[_Struct],
    call: Callable[[object, object, object, object], int],
    copy: Callable[[_Struct], _Entry],
) -> _Entry | None:
    size = _BUFFER_BYTES
    while True:
        entry = kind()
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
            return None if found.value is None else copy(entry)


def _copy(entry: _Passwd) -> PasswdEntry:
    # The strings live in the caller's buffer; attribute access copies them.
    return PasswdEntry(
        name=entry.pw_name or b"",
        account=Account(uid=entry.pw_uid, gid=entry.pw_gid),
        home=entry.pw_dir or b"",
        shell=entry.pw_shell or b"",
        password=entry.pw_passwd or b"",
    )


def _copy_shadow(entry: _Spwd) -> ShadowEntry:
    return ShadowEntry(password=entry.sp_pwdp or b"", expires=entry.sp_expire)
