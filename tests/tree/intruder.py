"""Code of somebody else in every process: put before `qsend start` as a patch.

Where a process begins to serve, with all that it was going to give up given up, a
fork of it waits for the word; then it tries everything in ATTEMPTS, and says on the
log how each attempt ended. The test writes PLACE, a directory, in front of this.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import setproctitle

from qsend.procs import local
from qsend.sysio import fork, parent, popchild, seccomp, systemlogin, validate

PLACE = globals().get("PLACE", "")
_GO, _TARGETS = 1000, 1001
_libc = ctypes.CDLL(None, use_errno=True)
_COLUMN = seccomp._ARCHS.get(os.uname().machine, (0, 0))[0]
_CALLS = seccomp._TAMPER | seccomp._SYSTEM | seccomp._KERNEL
_PTRACE_SEIZE = 0x4206
_PTRACE_DETACH = 17
_NEW_USER = 0x10000000
_CAPSET = (126, 91)[_COLUMN]

Facts = Mapping[str, Any]
Attempt = Callable[[Facts], object]


def _call(number: int, *args: int) -> int:
    result = _libc.syscall(number, *(ctypes.c_long(arg) for arg in args))
    if result == -1:
        raise OSError(ctypes.get_errno(), "system call")
    return int(result)


def _named(name: str, *args: int) -> Attempt:
    number = _CALLS[name][_COLUMN]
    assert number is not None
    return lambda _facts: _call(number, *args)


def _read(name: str) -> Attempt:
    def attempt(facts: Facts) -> None:
        os.close(os.open(facts["paths"][name], os.O_RDONLY | os.O_NONBLOCK))

    return attempt


def _write(name: str) -> Attempt:
    def attempt(facts: Facts) -> None:
        os.close(os.open(facts["paths"][name], os.O_WRONLY | os.O_NONBLOCK))

    return attempt


def _create(name: str) -> Attempt:
    """Make a file in a directory, and remove it."""

    def attempt(facts: Facts) -> None:
        path = os.path.join(facts["home"], name, f"intruder{os.getpid()}")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)  # noqa: TID251

    return attempt


def _each(pids: Callable[[Facts], Iterable[int]], act: Callable[[int], object]) -> Any:
    """Fails as all of them do; the first that succeeds counts as success."""

    def attempt(facts: Facts) -> None:
        failure = ProcessLookupError(errno.ESRCH, "nobody there")
        for pid in pids(facts):
            try:
                act(pid)
            except OSError as exc:
                failure = exc  # type: ignore[assignment]
            else:
                return
        raise failure

    return attempt


def _others(facts: Facts) -> Iterable[int]:
    """Processes of the tree with another uid."""
    return [pid for pid, uid in facts["family"] if uid != os.getuid()]


def _family(facts: Facts) -> Iterable[int]:
    return [pid for pid, _uid in facts["family"]]


def _same(facts: Facts) -> Iterable[int]:
    """A process that has nothing to do with the tree, with this uid."""
    return [facts["same"][str(os.getuid())]]


def _trace(pid: int) -> None:
    _call(_CALLS["ptrace"][_COLUMN] or 0, _PTRACE_SEIZE, pid, 0, 0)
    _libc.ptrace(_PTRACE_DETACH, pid, 0, 0)


def _look(pid: int) -> None:
    for name in ("environ", "mem", "fd/0"):
        os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK))


def _take(pid: int) -> None:
    os.close(_call(_CALLS["pidfd_getfd"][_COLUMN] or 0, os.pidfd_open(pid), 0, 0))


def _peek(pid: int) -> None:
    buffer = ctypes.create_string_buffer(1)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 1)
    if _libc.process_vm_readv(pid, vector, 1, vector, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def _limit(pid: int) -> None:
    import resource  # noqa: PLC0415

    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))


def _socket(family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> Attempt:
    return lambda _facts: socket.socket(family, kind, protocol).close()


def _connect(facts: Facts) -> None:
    with socket.socket(socket.AF_INET) as sock:
        sock.connect(("127.0.0.1", facts["port"]))


def _exec(_facts: Facts) -> None:
    os.execv("/bin/sh", ["sh", "-c", "echo 0 >&9"])


def _capabilities(_facts: Facts) -> None:
    head = struct.pack("Ii", 0x20080522, 0)
    data = struct.pack("6I", 0xFFFFFFFF, 0xFFFFFFFF, 0, 0x1FF, 0x1FF, 0)
    held = [ctypes.create_string_buffer(each, len(each)) for each in (head, data)]
    _call(_CAPSET, *(ctypes.addressof(each) for each in held))


ATTEMPTS: dict[str, Attempt] = {
    "read another's mailbox": _read("mailbox"),
    "read a message": _read("mess"),
    "list envelopes": lambda facts: os.listdir(f"{facts['home']}/queue/todo"),
    "read recipients": _read("remote"),
    "read a password": _read("smtpauth"),
    "read the private key": _read("key"),
    "read /etc/shadow": lambda _: os.close(os.open("/etc/shadow", os.O_RDONLY)),
    "read /etc/passwd": lambda _: os.close(os.open("/etc/passwd", os.O_RDONLY)),
    "change a message": _write("mess"),
    "change recipients": _write("remote"),
    "change a control": _write("me"),
    "create in queue/pid": _create("queue/pid"),
    "create in queue/mess": _create("queue/mess/0"),
    "create in queue/intd": _create("queue/intd"),
    "create in queue/todo": _create("queue/todo"),
    "create in queue/info": _create("queue/info/0"),
    "create in queue/local": _create("queue/local/0"),
    "create in queue/remote": _create("queue/remote/0"),
    "create in queue/bounce": _create("queue/bounce"),
    "create in queue/aside": _create("queue/aside"),
    "create in queue/lock": _create("queue/lock"),
    "create in run": _create("run"),
    "create in run/send": _create("run/send"),
    "create in run/milter": _create("run/milter"),
    "create in control": _create("control"),
    "create in users": _create("users"),
    "create in bin": _create("bin"),
    "create in alias": _create("alias"),
    "create in /tmp": _create("/tmp"),
    "signal others of the tree": _each(_others, lambda pid: os.kill(pid, 0)),
    "trace the tree": _each(_family, _trace),
    "look into the tree": _each(_family, _look),
    "take a descriptor of the tree": _each(_family, _take),
    "read memory of the tree": _each(_family, _peek),
    "signal one's uid": _each(_same, lambda pid: os.kill(pid, 0)),
    "trace one's uid": _each(_same, _trace),
    "read memory of one's uid": _each(_same, _peek),
    "take a descriptor of one's uid": _each(_same, _take),
    "limit one's uid": _each(_same, _limit),
    "signal everybody": lambda _: os.kill(-1, 0),
    "inet socket": _socket(socket.AF_INET),
    "inet6 socket": _socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "connect to a service": _connect,
    "unix socket": _socket(socket.AF_UNIX),
    "netlink socket": _socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packet socket": _socket(socket.AF_PACKET, socket.SOCK_RAW),
    "raw socket": _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "exec": _exec,
    "user namespace": _named("unshare", _NEW_USER),
    "mount": _named("mount", 0, 0, 0, 0, 0),
    "chroot": lambda _: os.chroot("/"),
    "make a device": lambda facts: os.mknod(f"{facts['home']}/dev", 0o60600, 0),
    "bpf": _named("bpf", 0, 0, 0),
    "io_uring": _named("io_uring_setup", 1, 0),
    "keyring": _named("keyctl", 0, -3, 0),
    "open by handle": _named("open_by_handle_at", -1, 0, 0),
    "set uid 0": lambda _: os.setresuid(0, 0, 0),
    "set gid 0": lambda _: os.setresgid(0, 0, 0),
    "set groups": lambda _: os.setgroups([0, 1]),
    "set capabilities": _capabilities,
}


def tried(attempt: Attempt, facts: Facts) -> str:
    """The name of the error, or "done"; in a child, for it may change the process."""
    # High, because at a fork libuv closes the numbers that its loop once had.
    read, write = (os.dup2(fd, fd + 1010) for fd in os.pipe())
    pid = os.fork()  # noqa: TID251
    if pid == 0:
        number = 0
        os.dup2(write, 9)
        try:
            attempt(facts)
        except OSError as exc:
            number = exc.errno or 0
        os.write(write, b"%d" % number)
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    number = int(os.read(read, 10))
    os.close(read)
    return errno.errorcode[number] if number else "done"


def _intrude(kind: str) -> None:
    """Leave an orphan behind that is this process in all but its number."""
    child = os.fork()  # noqa: TID251
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:  # noqa: TID251
            signal.alarm(60)
            # The others must hear of the end of the process that this is one of.
            fork._default_signals()
            fork.close_all_but(())
            while os.read(_GO, 1):
                pass
            facts = json.loads(os.pread(_TARGETS, 1 << 20, 0))
            for what, attempt in ATTEMPTS.items():
                told = f"intruder {kind} {what}: {tried(attempt, facts)}\n"
                os.write(2, told.encode())
            os.write(2, f"intruder {kind} is done\n".encode())
    finally:
        os._exit(0)


def _before(owner: Any, name: str, kind: str) -> None:
    """Intrude whenever the process is about to call it."""
    first = getattr(owner, name)

    def second(*args: Any, **more: Any) -> Any:
        own = setproctitle.getproctitle().split(":")[0].removeprefix("qmail-")
        if (kind or own) not in ("start", "lspawn"):
            _intrude(kind or own)
        return first(*args, **more)

    setattr(owner, name, second)


def _keep_ours() -> None:
    first = fork.close_all_but
    fork.close_all_but = lambda kept: first([*kept, _GO, _TARGETS])
    for number, name in ((_GO, "go"), (_TARGETS, "targets")):
        fd = os.open(f"{PLACE}/{name}", os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(fd, True)
        os.dup2(fd, number, inheritable=False)
        os.close(fd)


if PLACE:
    _keep_ours()
    _before(parent.Parent, "ready", "")
    _before(local.Local, "run", "local")
    _before(popchild, "serve", "popsession")
    _before(systemlogin, "verify", "passwordcheck")
    _before(validate, "faults_in", "parser")
