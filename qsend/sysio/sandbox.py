"""What a process gives up after its privilege: system calls and paths.

Call `apply` after the drop and before any thread starts (Landlock binds only
the calling thread and what it starts later). A kernel without seccomp or
Landlock gives less; that is told, and is no error.
Source: landlock(7), seccomp(2).
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qsend.sysio import seccomp

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_DIRS = 0b1_1111_1111 << 4
"""remove_dir, remove_file, make_char, _dir, _reg, _sock, _fifo, _block, _sym."""
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_SCOPE_ABI = 6
_SCOPES = 0b11
"""No abstract unix sockets and no signals of processes outside (ABI 6)."""
_WRITING_ABI = 2
"""Before it, files could not be linked from one directory to another at all."""

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)

_RESOLVING = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")


_UNIX: tuple[int, ...] = (socket.AF_UNIX,)
_INTERNET: tuple[int, ...] = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
"""AF_NETLINK tells the C library which addresses this machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    """What one role needs: sockets; reading anywhere; directories below the home
    to write in; to see whose child another process is; no limit to its files."""

    sockets: tuple[int, ...] = _UNIX
    processes: bool = False
    reads_all: bool = False
    writes: tuple[str, ...] = ()
    any_files: bool = False


_POLICIES = {
    # No unix socket: a local service, or the injection socket, is not its peer.
    "remote": _Policy(sockets=_INTERNET),
    # A database and the system's name services may be behind unix sockets.
    "lookup": _Policy(sockets=(*_UNIX, *_INTERNET), reads_all=True),
    "clean": _Policy(writes=("queue",)),
    "enqueue": _Policy(writes=("queue",), processes=True),
    "send": _Policy(writes=("queue", "run/send")),
    # Block lists are in the DNS.
    "smtpd": _Policy(sockets=_INTERNET),
    "qmtpd": _Policy(sockets=()),
    "pop3d": _Policy(sockets=()),
    # Its children become users, whose mail may be anywhere. Directory services.
    "login": _Policy(sockets=(*_UNIX, *_INTERNET), any_files=True),
    # `home` is the user's.
    "popsession": _Policy(sockets=(), writes=("Maildir",)),
    # One password, by shadow or a directory service.
    "passwordcheck": _Policy(sockets=(*_UNIX, *_INTERNET), reads_all=True),
    # Sees only the control files it was forked with; says what is wrong in them.
    "parser": _Policy(),
}
"""Roles that are confined. start, lspawn and local are not: what they give up,
the users' own programs would lose too, for a filter is inherited through exec."""

CONFINED: Sequence[str] = tuple(role for role in _POLICIES if role != "parser")
"""The kinds of children that are confined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a process needs besides, as its controls say: unix sockets, and directories
    below the home to write in."""

    unix: bool = False
    writes: tuple[str, ...] = ()


NO_EXTRAS = Extras()
NO_NEW_PRIVS = "no_new_privs"
"""What every kernel that Python runs on has."""


def apply(
    role: str,
    home: str | None = None,
    reads: Iterable[str] = (),
    extras: Extras = NO_EXTRAS,
) -> list[str]:
    """Confine this process to what `role` needs, for good.

    Nothing is executed, no other process signalled or traced. remote and parser
    read only resolver files and code, and write nowhere; lookup writes nowhere;
    clean, enqueue and send, if `home` is given, touch nothing but the queue in it
    (send also run/send), but that enqueue reads /proc (who is a local child). What
    is at or below the paths `reads` may be read besides; they must exist.
    Returns: what became active, of NO_NEW_PRIVS, "landlock" and "seccomp"; empty for
    a role that is not confined.
    """
    policy = _POLICIES.get(role)
    if policy is None:
        return []
    policy = replace(
        policy,
        sockets=tuple({*policy.sockets, *(_UNIX if extras.unix else ())}),
        writes=(*policy.writes, *extras.writes),
    )
    active = []
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        active.append(NO_NEW_PRIVS)
    if _landlock(policy, home, reads):
        active.append("landlock")
    if seccomp.install(seccomp.Denials(sockets=policy.sockets)):
        active.append("seccomp")
    return active


def features() -> list[str]:
    """What `apply` could make active on this machine, as the kernel says."""
    found = [NO_NEW_PRIVS]
    if _abi() > 0:
        found.append("landlock")
    denials = seccomp.Denials(sockets=_UNIX)
    if seccomp.program(os.uname().machine, os.getpid(), denials):
        try:
            with open("/proc/sys/kernel/seccomp/actions_avail") as file:
                if "errno" in file.read(4096).split():
                    found.append("seccomp")
        except OSError:
            pass  # a kernel without the file has no filters
    return found


def _abi() -> int:
    """The kernel's Landlock version; 0 or less without it."""
    return int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def _handled(abi: int) -> int:
    rights = _EXECUTE | _WRITE_FILE | _READ | _CHANGE_DIRS
    if abi >= 2:
        rights |= _REFER
    if abi >= 3:
        rights |= _TRUNCATE
    return rights


def _landlock(policy: _Policy, home: str | None, reads: Iterable[str]) -> bool:
    abi = _abi()
    if abi < (_WRITING_ABI if policy.writes else 1):
        return False
    if policy.any_files or (policy.writes and home is None):
        return False
    handled = _handled(abi)
    if policy.reads_all:
        handled &= ~_READ
    ruleset = _libc.syscall(_CREATE_RULESET, *_attributes(abi, handled), 0)
    if ruleset < 0:
        return False
    try:
        if handled & _READ_FILE:
            _allow(ruleset, _RESOLVING, _READ & handled)
            _allow(ruleset, _code_directories(), _READ & handled)
            _allow(ruleset, reads, _READ & handled)
            if policy.processes:
                _allow(ruleset, ["/proc"], _READ & handled)
        own = [f"{home}/{name}" for name in policy.writes]
        _allow(ruleset, own, handled & ~_EXECUTE)
        return bool(_libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _attributes(abi: int, handled: int) -> tuple[bytes, int]:
    """struct landlock_ruleset_attr as far as this kernel knows it, and its size."""
    scoped = _SCOPES if abi >= _SCOPE_ABI else 0
    size = 24 if abi >= _SCOPE_ABI else 8
    return struct.pack("=QQQ", handled, 0, scoped)[:size], size


def _code_directories() -> list[str]:
    """Where Python and libc load modules from; nothing secret is there."""
    paths = sysconfig.get_paths()
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    wanted = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*wanted, own, "/lib", "/lib64", "/usr/lib"]


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    """Allow `rights` at and below each path that exists."""
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # nothing to allow
        try:
            is_dir = stat.S_ISDIR(os.fstat(fd).st_mode)
            allowed = rights if is_dir else rights & _ON_FILES
            rule = struct.pack("=Qi", allowed, fd)
            _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(fd)
