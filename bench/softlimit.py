"""The smallest `softlimit -m` under which each program does its work.

python -m bench.softlimit: every program serves a whole session under Debian's
softlimit, with limits between those that fail and those that do, to 1/4 MiB. Needs
root, and Debian's daemontools and ucspi-tcp.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pwd import getpwnam

from qsend.sysio import clock
from tests.tree.harness import Tree, install

STEP = 1 << 18
LARGEST = 1 << 31
MESSAGE = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
SMTP = (
    b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<box@here.example>\r\n"
    b"DATA\r\n" + MESSAGE * 100_000 + b".\r\nQUIT\r\n"
)
LOGIN = "qsendbench"
PASSWORD = "secret"


def main() -> int:
    """Print the table."""
    top = Path(tempfile.mkdtemp(prefix="qsend-bench-", dir="/tmp"))
    top.chmod(0o755)
    try:
        with Tree(install(top / "venv"), top / "home") as tree:
            measure(tree)
    finally:
        subprocess.run(["userdel", LOGIN], check=False, capture_output=True)
        shutil.rmtree(top)
    return 0


def measure(tree: Tree) -> None:
    """All programs, one after the other."""
    tree.control("rcpthosts", "here.example\n")
    tree.maildir()
    tree.alias("box", "./Maildir/\n")
    account(tree.home.parent / "user")
    tree.start()
    bin_ = tree.home / "bin"
    sessions: Mapping[str, Callable[[int], bool]] = {
        "qmail-smtpd": lambda limit: serves(
            limit, [str(bin_ / "qmail-smtpd")], SMTP, b"\n250 ", 4
        ),
        "qmail-popup, checkpassword, qmail-pop3d": lambda limit: serves(
            limit, popup(bin_), POP, b"+OK", 6, user=None
        ),
        "qmail-queue": lambda limit: queues(tree, limit),
    }
    for name, works in sessions.items():
        report(name, least(works))
    tree.stop()
    report("qmail-start", least(lambda limit: runs(tree, limit)))


POP = b"USER qsendbench\r\nPASS secret\r\nSTAT\r\nRETR 1\r\nQUIT\r\n"


def account(home: Path) -> None:
    """Somebody with a mailbox."""
    subprocess.run(["useradd", "-M", "-U", "-d", str(home), LOGIN], check=True)
    # Debian's own hash, yescrypt, takes 16 MiB by itself.
    told = f"{LOGIN}:{PASSWORD}\n".encode()
    subprocess.run(["chpasswd"], input=told, check=True)
    entry = getpwnam(LOGIN)
    for path in (home, *(home / "Maildir" / name for name in (".", "tmp", "cur"))):
        path.mkdir(mode=0o700, exist_ok=True)
    (home / "Maildir/new").mkdir()
    (home / "Maildir/new/1.1.here").write_bytes(MESSAGE * 100_000)
    for path in (home, *home.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid)


def popup(bin_: Path) -> list[str]:
    """The classic chain."""
    names = ("qmail-popup", "checkpassword", "qmail-pop3d")
    first, second, third = (str(bin_ / name) for name in names)
    return [first, "pop.example", second, third, "Maildir"]


def serves(
    limit: int,
    command: list[str],
    said: bytes,
    wanted: bytes,
    count: int,
    user: str | None = "qmaild",
) -> bool:
    """Whether a program that serves on 0 and 1 says `wanted` often enough."""
    done = subprocess.run(
        ["softlimit", "-m", str(limit), *command],
        input=said,
        capture_output=True,
        check=False,
        user=user,
        extra_groups=None if user is None else [],
        env={"PATH": os.environ["PATH"], "TCPREMOTEIP": "127.0.0.1"},
    )
    return done.stdout.count(wanted) >= count


def queues(tree: Tree, limit: int) -> bool:
    """Whether qmail-queue takes a large message."""
    program = str(tree.home / "bin/qmail-queue")
    command = [
        "sh",
        "-c",
        'exec softlimit -m "$0" "$1" 2>/dev/null',
        str(limit),
        program,
    ]
    try:
        tree.queue([b"box@here.example"], MESSAGE * 100_000, command=command)
    except AssertionError:
        return False
    return True


def runs(tree: Tree, limit: int) -> bool:
    """Whether a whole tree delivers here, and to a dead host."""
    tree.control("smtproutes", ":127.0.0.1:1\n")
    command = ["softlimit", "-m", str(limit), str(tree.home / "bin/qmail-start")]
    tree.log = b""
    try:
        tree.launch(command, b"")
        tree.find(rb"status: local 0/", wait_s=10)
        tree.queue([b"box@here.example", b"far@away.example"], MESSAGE * 1000)
        tree.find(rb"delivery \d+: success: ", wait_s=10)
        tree.find(rb"delivery \d+: deferral: ", wait_s=10)
        return b"lost qmail" not in tree.log
    except AssertionError:
        return False
    finally:
        end(tree)


def end(tree: Tree) -> None:
    """TERM, and force after a while; nothing stays behind."""
    assert tree.process is not None
    if tree.process.poll() is None:
        tree.signal(signal.SIGTERM)
        deadline_mono = clock.mono() + 10
        while tree.process.poll() is None and clock.mono() < deadline_mono:
            tree.watch(0.1)
            select.select([], [], [], 0.05)
    tree.kill()


def least(works: Callable[[int], bool]) -> int:
    """The smallest limit that works, in bytes."""
    low, high = 0, LARGEST
    if not works(high):
        raise SystemExit("it does not work with any limit")
    while high - low > STEP:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle
    return high


def report(name: str, limit: int) -> None:
    """One line."""
    print(f"{name}: {limit / (1 << 20):.2f} MiB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
