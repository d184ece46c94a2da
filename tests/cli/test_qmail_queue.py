"""qmail-queue as a program: the hooks of queue_layout.md, exit codes, silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.injecthome import (
    DEADLINE_S,
    EMPTY,
    ROOT,
    EnqueueHome,
    one_account,
    queue_files,
)


@pytest.fixture
def home(open_tmp: Path) -> Iterator[EnqueueHome]:
    made = EnqueueHome(open_tmp, one_account())
    made.start()
    yield made
    made.close()


def test_good_message_is_queued_as_the_spec_says(home: EnqueueHome) -> None:
    assert home.queue_program(b"Subject: x\n\nno end of line", b"Fa@b\0Tc@d\0\0") == 0
    (messid,) = home.queued()
    todo = home.queue / f"todo/{messid}"
    mess = home.queue / f"mess/{messid % 23}/{messid}"
    head, _, rest = todo.read_bytes().partition(b"F")
    assert head.startswith(b"u%d\0p" % os.getuid())
    assert rest == b"a@b\0Tc@d\0"
    assert mess.stat().st_ino == messid
    assert {path.stat().st_mode & 0o7777 for path in (mess, todo)} == {0o644}
    assert mess.read_bytes().partition(b"\n")[2] == b"Subject: x\n\nno end of line"


LONGEST = b"x" * 1002


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"F" + LONGEST + b"\0Tc@d\0\0", 0),
        (b"Fa@b\0T" + LONGEST + b"\0\0", 0),
        (b"F" + LONGEST + b"x\0Tc@d\0\0", 11),
        (b"Fa@b\0T" + LONGEST + b"x\0\0", 11),
        (b"Fa@b\0\0", 0),
        (b"F\0T\0\0trailing", 0),
        (b"Ga@b\0Tc@d\0\0", 91),
        (b"Fa@b\0Uc@d\0\0", 91),
        (b"Fa@b\0Tc@d\0", 54),
        (b"Fa@b\0Tc@d", 54),
        (b"F", 54),
        (b"", 54),
    ],
)
def test_envelope_forms(home: EnqueueHome, envelope: bytes, code: int) -> None:
    assert home.queue_program(b"x\n", envelope) == code
    count = len(queue_files(home.queue)["todo"])
    assert count == (code == 0)
    if code:
        assert queue_files(home.queue) == EMPTY


def test_long_message_streams_in_bounded_memory(home: EnqueueHome) -> None:
    peak = (
        "import re, sys; from qsend.cli.qmail_queue import main\n"
        "code = main([])\n"
        "status = open('/proc/self/status').read()\n"
        "peak = int(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])\n"
        "sys.exit(code or (peak > 40 * 1024) * 99)"
    )
    reading, writing = os.pipe()
    os.write(writing, b"Fa\0Tb\0\0")
    os.close(writing)
    process = subprocess.Popen(
        [sys.executable, "-c", peak],
        stdin=subprocess.PIPE,
        stdout=reading,
        env={**os.environ, "QSEND_HOME": str(home.home)},
        cwd=ROOT,
    )
    os.close(reading)
    assert process.stdin is not None
    for _ in range(64):
        process.stdin.write(b"x" * (1 << 20))
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 0
    (messid,) = home.queued()
    mess = home.queue / f"mess/{messid % 23}/{messid}"
    assert mess.stat().st_size > 64 << 20


def start_waiting(home: EnqueueHome) -> tuple[subprocess.Popen[bytes], int]:
    """A qmail-queue that has its message and waits for its envelope."""
    reading, writing = os.pipe()
    code = "import sys; from qsend.cli.qmail_queue import main; sys.exit(main([]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=reading,
        env={**os.environ, "QSEND_HOME": str(home.home)},
        cwd=ROOT,
    )
    os.close(reading)
    assert process.stdin is not None
    # More than the pipe and the program hold: when this returns, it is running.
    process.stdin.write(b"x" * 300_000)
    process.stdin.flush()
    return process, writing


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGALRM, 52), (signal.SIGTERM, -15), (signal.SIGKILL, -9)],
)
def test_signals_that_end_it_leave_nothing(
    home: EnqueueHome, signum: signal.Signals, code: int
) -> None:
    process, writing = start_waiting(home)
    process.send_signal(signum)
    assert process.wait(DEADLINE_S) == code
    assert process.stdin is not None
    process.stdin.close()
    os.close(writing)
    assert home.queue_program(b"x", b"Fa\0\0") == 0
    assert len(queue_files(home.queue)["mess"]) == 1


def test_signals_that_are_ignored(home: EnqueueHome) -> None:
    process, writing = start_waiting(home)
    names = ["PIPE", "VTALRM", "PROF", "QUIT", "INT", "HUP", "XCPU", "XFSZ"]
    for name in names:
        process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.stdin is not None
    process.stdin.close()
    os.write(writing, b"Fa\0\0")
    os.close(writing)
    assert process.wait(DEADLINE_S) == 0


def test_directories_that_are_missing(home: EnqueueHome, tmp_path: Path) -> None:
    home.home = tmp_path / "none"
    assert home.queue_program(b"x", b"Fa\0\0") == 61
    home.home.mkdir()
    assert home.queue_program(b"x", b"Fa\0\0") == 62


def test_unreadable_descriptors_are_54(home: EnqueueHome) -> None:
    code = (
        "import os, sys; from qsend.cli.qmail_queue import main\n"
        "os.close(int(sys.argv[1])); sys.exit(main([]))"
    )
    for fd in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, fd],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "QSEND_HOME": str(home.home)},
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 54


def test_it_imports_little() -> None:
    code = "import sys, qsend.cli.qmail_queue; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True
    )
    loaded = set(done.stdout.decode().split())
    heavy = {"asyncio", "ctypes", "json", "subprocess", "threading", "traceback"}
    assert not loaded & (heavy | {"uvloop", "dns", "psutil", "logging", "datetime"})
