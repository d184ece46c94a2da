"""A remote process that is somebody else's: put before `qsend start` as a patch.

There are two remotes. One that starts when run/hostile exists boots as remote
does, tries what it must not be able to, writes a line `probe: WHAT: ERRNO` for
each to the log, and goes on as an honest remote.
"""

import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from qsend.procs import remote
from qsend.sysio import seccomp
from qsend.sysio.boot import Boot

Probe = Callable[[], object]
_libc = ctypes.CDLL(None, use_errno=True)
_machine = os.uname().machine
_column = seccomp._ARCHS.get(_machine, (0, 0))[0]
_queue_paths: dict[Path, bool] = {}
"""To whether it is a directory."""
_first_main = remote.main
_PTRACE_ATTACH = 16


def _call(name: str, *args: int) -> None:
    calls = seccomp._TAMPER | seccomp._SYSTEM | seccomp._KERNEL
    number = calls[name][_column]
    if _libc.syscall(number, *(ctypes.c_long(each) for each in args)) < 0:
        raise OSError(ctypes.get_errno(), name)


def _open(path: Path | str, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def _connect(path: Path) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(str(path))


def _connect_pair(path: Path) -> None:
    sock, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect(str(path))


def _signal_fd(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), 0)


def _take_fd(pid: int) -> None:
    _call("pidfd_getfd", os.pidfd_open(pid), 1, 0)


def _fork_and_exec() -> None:
    subprocess.run(["/bin/true"], check=True)


def _others() -> dict[str, int]:
    """Pids of start, of a sibling with our uid, and of the other children."""
    start = os.getppid()
    found = {"start": start}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (os.getpid(), start):
            continue
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            title = Path(f"/proc/{name}/cmdline").read_text().split(":")[0]
        except OSError:
            continue
        if int(fields[1]) == start:
            found[title] = int(name)
    return found


def _path_probes(boot: Boot) -> dict[str, Probe]:
    home = Path(boot.home)
    probes: dict[str, Probe] = {}
    for path, is_dir in _queue_paths.items():
        shown = path.relative_to(home)
        probes[f"read {shown}"] = partial(_open, path, os.O_RDONLY | os.O_NONBLOCK)
        if not is_dir:
            probes[f"write {shown}"] = partial(_open, path, os.O_WRONLY | os.O_NONBLOCK)
    for name in ("me", "locals", "sqlserver"):
        path = home / "control" / name
        probes[f"read control/{name}"] = partial(_open, path, os.O_RDONLY)
    elsewhere = map(Path, ("/", "/tmp", "/dev/shm", "/var/tmp"))
    for where in (home, home / "run", home / "queue/todo", *elsewhere):
        new = where / f"qsend-hostile-{os.getpid()}"
        probes[f"create in {where}"] = partial(_open, new, os.O_WRONLY | os.O_CREAT)
        probes[f"mkdir in {where}"] = partial(os.mkdir, new)
        unnamed = os.O_WRONLY | os.O_TMPFILE
        probes[f"unnamed in {where}"] = partial(_open, where, unnamed)
    for name in ("control.sock", "enqueue.sock", "lookup.sock"):
        path = home / "run" / name
        probes[f"connect to {name}"] = partial(_connect, path)
        probes[f"pair to {name}"] = partial(_connect_pair, path)
        probes[f"unlink {name}"] = path.unlink
    probes["read /etc/passwd"] = partial(_open, "/etc/passwd", os.O_RDONLY)
    return probes


def _process_probes(others: dict[str, int]) -> dict[str, Probe]:
    probes: dict[str, Probe] = {}
    for title, pid in others.items():
        for name in ("mem", "environ", "maps", "fd/0"):
            path = f"/proc/{pid}/{name}"
            probes[f"open {name} of {title}"] = partial(_open, path, os.O_RDONLY)
        # Signal 0: should it be allowed after all, the machine survives.
        probes[f"kill {title}"] = partial(os.kill, pid, 0)
        attach = ("ptrace", _PTRACE_ATTACH, pid, 0, 0)
        probes[f"ptrace {title}"] = partial(_call, *attach)
        reading = ("process_vm_readv", pid, 0, 0, 0, 0, 0)
        probes[f"readv {title}"] = partial(_call, *reading)
        probes[f"signal fd of {title}"] = partial(_signal_fd, pid)
        probes[f"take fd of {title}"] = partial(_take_fd, pid)
    return probes


def _system_probes() -> dict[str, Probe]:
    return {
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "fork and exec": _fork_and_exec,
        "kill all": lambda: os.kill(-1, 0),
        "setuid": lambda: os.setuid(0),
        "setgroups": lambda: os.setgroups([0]),
        "setgid": lambda: os.setgid(0),
        "chroot": lambda: os.chroot("/"),
        "load a module": lambda: _call("init_module", 0, 0, 0),
        "load a module file": lambda: _call("finit_module", 0, 0, 0),
        "unshare": lambda: _call("unshare", 0x10000000),
        "mount": lambda: _call("mount", 0, 0, 0, 0, 0),
        "bpf": lambda: _call("bpf", 0, 0, 0),
        "io_uring": lambda: _call("io_uring_setup", 1, 0),
        "io_uring of the loop": lambda: _call("io_uring_enter", 4, 0, 0, 0, 0),
        "mknod": lambda: os.mknod("/tmp/qsend-hostile-node"),
    }


def _tried(probe: Probe) -> str:
    try:
        probe()
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc))
    return "done"


class _Hostile(remote.Remote):
    """Tries everything before it serves; the drop and the sandbox are behind it."""

    boot: Boot
    others: dict[str, int]

    def __init__(self, boot, *args) -> None:  # type: ignore[no-untyped-def] # as Remote
        probes = {
            **_path_probes(boot),
            **_process_probes(self.others),
            **_system_probes(),
        }
        answers = [f"probe: {what}: {_tried(probe)}" for what, probe in probes.items()]
        caller = ctypes.CDLL(None).getenv(b"HOSTALIASES")
        answers.append(f"probe: getenv: {'done' if caller else 'ENOENT'}")
        answers.append(f"probes: {len(probes) + 1}")
        for line in answers:
            os.write(2, f"{line}\n".encode())
        super().__init__(boot, *args)


def _main(boot: Boot) -> int:
    # Still root: the most that a break-in could know of names and numbers.
    home = Path(boot.home)
    if (home / "run/hostile").exists():
        for path in (home / "queue", *(home / "queue").rglob("*")):
            _queue_paths[path] = path.is_dir()
        _Hostile.others = _others()
        setattr(remote, "Remote", _Hostile)  # noqa: B010 - a class is no variable
    return _first_main(boot)


remote.main = _main
os.sched_getaffinity = lambda _pid: {0, 1}
