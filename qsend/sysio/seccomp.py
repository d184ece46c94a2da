"""A seccomp filter: system calls that a process of ours never needs get EPERM.

A list of what is denied, not of what is allowed: a new libc may use a call that
nobody thought of, and mail must not stop for that.
Source: seccomp(2), the kernel's syscall tables for x86_64 and aarch64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_Calls = dict[str, tuple[int | None, int | None]]

_TAMPER: _Calls = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
"""Reaching into another process."""

_SYSTEM: _Calls = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "open_by_handle_at": (304, 265),
    "swapon": (167, 224),
    "acct": (163, 89),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
}
"""Changing the machine or one's view of it."""

_KERNEL: _Calls = {
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "userfaultfd": (323, 282),
    # A ring makes system calls that this filter would not see; one that was
    # made before it (libuv makes one for each loop) must be of no use either.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""Kernel interfaces with a history of holes, of no use to mail."""

_EXEC: _Calls = {"execve": (59, 221), "execveat": (322, 281)}

_KILL = (62, 129)
_TGKILL = (234, 131)
_PRLIMIT = (302, 261)
_SOCKET = (41, 198)
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_SECCOMP = (317, 277)

_ARCHS = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine to (column of the tables, AUDIT_ARCH word)."""

_X32_BIT = 0x40000000
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID and -NET."""
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16
"""Offsets in struct seccomp_data; both machines are little-endian, so _ARG0 is
the low half of the first argument, all that an int has."""
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_DENY = _ERRNO | errno.EPERM

_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1
_INSTRUCTION = struct.Struct("=HBBI")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denials:
    """What a role may not do, besides reaching into other processes.

    `sockets`: the address families, as numbers, that its sockets may have.
    """

    sockets: Sequence[int]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)


def _answer(number: int, answer: int) -> list[bytes]:
    return [_op(_IF_EQUAL, number, 0, 1), _op(_RETURN, answer)]


def _only_if_arg0(number: int, allowed: Sequence[int]) -> list[bytes]:
    """The call is allowed when its first argument is one of `allowed`."""
    body = [_op(_LOAD, _ARG0)]
    for value in allowed:
        body += [_op(_IF_EQUAL, value, 0, 1), _op(_RETURN, _ALLOW)]
    body.append(_op(_RETURN, _DENY))
    return [_op(_IF_EQUAL, number, 0, len(body)), *body]


def _not_if_arg0_has(number: int, bits: int) -> list[bytes]:
    body = [
        _op(_LOAD, _ARG0),
        _op(_IF_SET, bits, 0, 1),
        _op(_RETURN, _DENY),
        _op(_RETURN, _ALLOW),
    ]
    return [_op(_IF_EQUAL, number, 0, len(body)), *body]


def program(machine: str, pid: int, denials: Denials) -> bytes | None:
    """The filter for one process as the kernel takes it; None on other machines.

    `pid` is the only process that kill and tgkill may aim at: abort() and
    faulthandler signal themselves.
    """
    if machine not in _ARCHS or struct.calcsize("P") != 8:
        return None
    column, arch = _ARCHS[machine]
    code = [
        _op(_LOAD, _ARCH),
        _op(_IF_EQUAL, arch, 1, 0),
        _op(_RETURN, _DENY),
        _op(_LOAD, _NR),
        _op(_IF_AT_LEAST, _X32_BIT, 0, 1),
        _op(_RETURN, _DENY),
    ]
    for calls in (_TAMPER, _SYSTEM, _KERNEL, _EXEC):
        for numbers in calls.values():
            number = numbers[column]
            if number is not None:
                code += _answer(number, _DENY)
    code += _only_if_arg0(_KILL[column], (pid,))
    code += _only_if_arg0(_TGKILL[column], (pid,))
    code += _only_if_arg0(_PRLIMIT[column], (0, pid))
    # clone3 hides its flags behind a pointer; libc falls back to clone.
    code += _answer(_CLONE3[column], _ERRNO | errno.ENOSYS)
    code += _not_if_arg0_has(_CLONE[column], _NEW_NAMESPACES)
    code += _only_if_arg0(_SOCKET[column], denials.sockets)
    code.append(_op(_RETURN, _ALLOW))
    return b"".join(code)


def install(denials: Denials) -> bool:
    """Filter this process and all its threads from now on; False if it cannot be.

    The process must have no_new_privs.
    """
    machine = os.uname().machine
    code = program(machine, os.getpid(), denials)
    if code is None:
        return False
    column, _ = _ARCHS[machine]
    buffer = ctypes.create_string_buffer(code, len(code))
    count = len(code) // _INSTRUCTION.size
    head = struct.pack("=HxxxxxxQ", count, ctypes.addressof(buffer))
    done = _libc.syscall(_SECCOMP[column], _SET_MODE_FILTER, _FLAG_TSYNC, head)
    return bool(done == 0)
