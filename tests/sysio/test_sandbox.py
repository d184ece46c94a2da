"""The sandbox, proven by children that try what it forbids."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.model import Account
from qsend.sysio import privilege, sandbox, seccomp
from qsend.sysio.fork import fork_child

UID = 64123
FEATURES = sandbox.features()
CONFINED = ("remote", "lookup", "clean", "enqueue", "send", "parser")

needs_seccomp = pytest.mark.skipif("seccomp" not in FEATURES, reason="no seccomp")
needs_landlock = pytest.mark.skipif("landlock" not in FEATURES, reason="no landlock")


def confined(
    role: str,
    probe: Callable[[], object],
    home: Path | None = None,
    uid: int = UID,
    reads: tuple[str, ...] = (),
) -> str:
    """What `probe` returned, or the name of its errno, run as `role` in a child."""
    read, write = os.pipe()

    def run() -> int:
        if uid:
            privilege.drop(Account(uid=uid, gid=uid))
        assert sandbox.apply(role, None if home is None else str(home), reads)
        try:
            answer = str(probe())
        except OSError as exc:
            answer = errno.errorcode[exc.errno or 0]
        os.write(write, answer.encode())
        return 0

    pid = fork_child(run, (write,))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return answer


def syscall(number: int, *args: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *(ctypes.c_long(arg) for arg in args))
    if result == -1:
        raise OSError(ctypes.get_errno(), "syscall")
    return int(result)


def put(path: Path) -> Callable[[], None]:
    def probe() -> None:
        path.write_bytes(b"x")

    return probe


@pytest.fixture
def sibling() -> object:
    """A process of the same uid as the confined ones."""

    def run() -> int:
        privilege.drop(Account(uid=UID, gid=UID))
        signal.pause()
        return 0

    pid = fork_child(run, ())
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.root
@needs_seccomp
@pytest.mark.parametrize("role", CONFINED)
def test_confined_role_cannot_exec_or_touch_a_sibling(role: str, sibling: int) -> None:
    tries: dict[str, Callable[[], object]] = {
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "kill": lambda: os.kill(sibling, 0),
        "kill group": lambda: os.kill(0, 0),
        "kill all": lambda: os.kill(-1, 0),
        "tgkill": lambda: syscall(seccomp._TGKILL[COLUMN], sibling, sibling, 0),
        "ptrace": lambda: number("ptrace", 16, sibling, 0, 0),
        "process_vm_readv": lambda: number("process_vm_readv", sibling, 0, 0, 0, 0, 0),
        "pidfd_getfd": lambda: number("pidfd_getfd", os.pidfd_open(sibling), 0, 0),
        "prlimit": lambda: resource.prlimit(sibling, resource.RLIMIT_CPU, (1, 1)),
        "unshare": lambda: number("unshare", 0x10000000),
        "keyctl": lambda: number("keyctl", 0, -3, 0),
        "io_uring": lambda: number("io_uring_setup", 1, 0),
        "io_uring of before": lambda: number("io_uring_enter", 0, 0, 0, 0, 0),
        "bpf": lambda: number("bpf", 0, 0, 0),
        "mount": lambda: number("mount", 0, 0, 0, 0, 0),
        "clone into a namespace": lambda: syscall(
            seccomp._CLONE[COLUMN], 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0
        ),
    }
    for what, attempt in tries.items():
        assert confined(role, attempt) == "EPERM", what


COLUMN = seccomp._ARCHS.get(os.uname().machine, (0, 0))[0]


def number(name: str, *args: int) -> int:
    calls = seccomp._TAMPER | seccomp._SYSTEM | seccomp._KERNEL
    found = calls[name][COLUMN]
    assert found is not None
    return syscall(found, *args)


@needs_seccomp
def test_process_may_still_signal_itself_and_start_threads() -> None:
    def probe() -> str:
        seen: list[int] = []
        signal.signal(signal.SIGUSR1, lambda signum, _: seen.append(signum))
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        thread = threading.Thread(target=lambda: seen.append(0))
        thread.start()
        thread.join()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pair = socket.socketpair()
        os.close(os.eventfd(0)) if hasattr(os, "eventfd") else None
        return f"{len(seen)} {len(pair)}"

    assert confined("remote", probe, uid=0) == "3 2"


def test_abort_still_dies_of_its_signal() -> None:
    def run() -> int:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sandbox.apply("remote")
        os.abort()

    pid = fork_child(run, ())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGABRT


@needs_seccomp
@pytest.mark.parametrize("role", CONFINED)
def test_role_makes_sockets_only_of_its_families(role: str) -> None:
    def make(family: int) -> Callable[[], str]:
        def probe() -> str:
            with socket.socket(family, socket.SOCK_DGRAM):
                return "made"

        return probe

    unix = "EPERM" if role == "remote" else "made"
    internet = "made" if role in ("remote", "lookup") else "EPERM"
    assert confined(role, make(socket.AF_UNIX), uid=0) == unix
    for family in (socket.AF_INET, socket.AF_INET6):
        assert confined(role, make(family), uid=0) == internet
    assert confined(role, make(socket.AF_VSOCK), uid=0) == "EPERM"


@pytest.mark.root
@needs_landlock
def test_remote_writes_nowhere_and_reads_only_resolver_files(open_tmp: Path) -> None:
    public = open_tmp / "public"
    public.mkdir()
    public.chmod(0o777)
    (public / "file").write_text("old")
    (public / "file").chmod(0o666)
    tries: dict[str, Callable[[], object]] = {
        "create": put(public / "new"),
        "overwrite": put(public / "file"),
        "read": (public / "file").read_bytes,
        "list": lambda: os.listdir(public),
        "mkdir": lambda: os.mkdir(public / "dir"),
        "unlink": (public / "file").unlink,
        "rename": lambda: (public / "file").rename(public / "other"),
        "truncate": lambda: os.truncate(public / "file", 0),
        "/tmp": put(Path("/tmp/qsend-sandbox-test")),
        "passwd": Path("/etc/passwd").read_bytes,
    }
    for role in ("remote", "parser"):
        for what, attempt in tries.items():
            assert confined(role, attempt) in ("EACCES", "EXDEV"), (role, what)
        for path in ("/etc/hosts", os.__file__):
            assert confined(role, Path(path).read_text) == Path(path).read_text()
    assert (public / "file").read_text() == "old"


@pytest.mark.root
@needs_landlock
def test_lookup_reads_but_writes_nowhere(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    (open_tmp / "cdb").write_text("data")
    assert confined("lookup", (open_tmp / "cdb").read_text) == "data"
    assert confined("lookup", put(open_tmp / "new")) == "EACCES"
    assert confined("lookup", (open_tmp / "cdb").unlink) == "EACCES"


@pytest.mark.root
@needs_landlock
@pytest.mark.parametrize("role", ["clean", "enqueue", "send"])
def test_queue_role_works_in_its_queue_only(role: str, open_tmp: Path) -> None:
    queue = open_tmp / "queue"
    for directory in (queue, queue / "intd", queue / "todo", open_tmp / "run/send"):
        directory.mkdir(parents=True)
        directory.chmod(0o777)
    open_tmp.chmod(0o777)

    def probe() -> str:
        at = os.open(queue, os.O_PATH)
        fd = os.open(queue / "intd", os.O_TMPFILE | os.O_RDWR, 0o644)
        # A directory descriptor makes os.link follow the link in /proc.
        os.link(f"/proc/self/fd/{fd}", "intd/1", src_dir_fd=at, dst_dir_fd=at)  # noqa: TID251
        (queue / "todo/1").hardlink_to(queue / "intd/1")
        (queue / "intd/1").unlink()
        os.truncate(queue / "todo/1", 0)
        (queue / "todo/1").rename(queue / "intd/2")
        return ",".join(sorted(os.listdir(queue / "intd")))

    assert confined(role, probe, open_tmp) == "2"
    assert confined(role, put(open_tmp / "new"), open_tmp) == "EACCES"
    own = "None" if role == "send" else "EACCES"
    assert confined(role, put(open_tmp / "run/send/holds"), open_tmp) == own
    assert confined(role, Path("/etc/passwd").read_text, open_tmp) == "EACCES"


@pytest.mark.parametrize("role", ["start", "lspawn", "local"])
def test_roles_that_run_users_programs_are_not_confined(role: str) -> None:
    pid = fork_child(lambda: len(sandbox.apply(role)), ())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_features_are_those_that_apply_makes_active() -> None:
    read, write = os.pipe()

    def run() -> int:
        os.write(write, " ".join(sandbox.apply("remote")).encode())
        return 0

    pid = fork_child(run, (write,))
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        active = pipe.read().decode().split()
    os.waitpid(pid, 0)
    assert sorted(active) == sorted(FEATURES)


def test_kernel_without_landlock_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_abi", lambda: -1)
    monkeypatch.setattr(seccomp, "install", lambda denials: False)
    pid = fork_child(lambda: sandbox.apply("remote") == [sandbox.NO_NEW_PRIVS], ())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


@pytest.mark.parametrize("machine", sorted(seccomp._ARCHS))
@pytest.mark.parametrize("sockets", [(), (1,), (1, 2, 10, 16)])
def test_program_is_well_formed(machine: str, sockets: tuple[int, ...]) -> None:
    code = seccomp.program(machine, 4711, seccomp.Denials(sockets=sockets))
    assert code is not None
    steps = list(struct.iter_unpack("=HBBI", code))
    assert len(steps) < 4096
    for at, (op, if_true, if_false, _) in enumerate(steps):
        if op != seccomp._RETURN:
            assert at + 1 + max(if_true, if_false) < len(steps)
    assert steps[-1] == (seccomp._RETURN, 0, 0, seccomp._ALLOW)
    calls = seccomp._TAMPER | seccomp._SYSTEM | seccomp._KERNEL | seccomp._EXEC
    column = seccomp._ARCHS[machine][0]
    numbers = [both[column] for both in calls.values() if both[column] is not None]
    assert len(numbers) == len(set(numbers))
    compared = {value for op, _, _, value in steps if op == seccomp._IF_EQUAL}
    assert set(numbers) <= compared


def test_unknown_machine_has_no_program() -> None:
    assert seccomp.program("vax", 1, seccomp.Denials(sockets=())) is None


@pytest.mark.root
@needs_landlock
def test_paths_that_may_be_read_besides_are_read_and_not_written(
    open_tmp: Path,
) -> None:
    control = open_tmp / "control"
    control.mkdir()
    rules = control / "rules"
    rules.write_text("x")
    rules.chmod(0o666)
    other = open_tmp / "other"
    other.write_text("x")
    other.chmod(0o644)
    reads = (str(control),)
    assert confined("remote", rules.read_text, reads=reads) == "x"
    assert confined("remote", put(rules), reads=reads) == "EACCES"
    assert confined("remote", other.read_text, reads=reads) == "EACCES"
    assert confined("remote", rules.read_text) == "EACCES"
