"""qmail-popup: what the client hears, and what the subprogram gets."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, Done, run_program

REFUSED = b"-ERR [AUTH] authorization failed\r\n"
TEMPORARY = b"-ERR [SYS/TEMP] unable to check logins now; try again later\r\n"


def popup(stdin: bytes, *program: str, hostname: str = "pop.example") -> Done:
    environ = {"PATH": "/usr/bin:/bin"}
    return run_program("qmail_popup", hostname, *program, stdin=stdin, env=environ)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_program_reads_name_password_and_challenge_on_descriptor_3(
    tmp_path: Path,
) -> None:
    told = tmp_path / "told"
    done = popup(b"USER a@b\r\nPASS x  y\r\n", *sh(f"cat <&3 >{told}"))
    greeting, user = done.stdout.split(b"\r\n")[:2]
    assert re.fullmatch(rb"\+OK <\d+\.\d{10}@pop\.example>", greeting)
    assert user == b"+OK "
    assert done.stdout.count(b"\r\n") == 2
    assert told.read_bytes() == b"a@b\0x  y\0%b\0" % greeting.removeprefix(b"+OK ")
    assert (done.returncode, done.stderr) == (1, b"")


def test_program_of_apop_reads_the_digest(tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = popup(b"apop ann 0123abc\r\n", *sh(f"cat <&3 >{told}; echo +OK hello"))
    greeting = done.stdout.split(b"\r\n")[0].removeprefix(b"+OK ")
    assert told.read_bytes() == b"ann\x000123abc\0%b\0" % greeting
    assert done.stdout.endswith(b">\r\n+OK hello\n")


@pytest.mark.parametrize(
    ("program", "want"),
    [
        (sh("exit 0"), b""),
        (sh("exit 1"), REFUSED),
        (sh("exit 2"), REFUSED),
        (sh("exit 111"), TEMPORARY),
        (sh("kill -9 $$"), b"-ERR aack, child crashed\r\n"),
        (["/nonexistent/program"], TEMPORARY),
    ],
)
def test_end_of_the_program_is_told(program: list[str], want: bytes) -> None:
    done = popup(b"USER ann\r\nPASS x\r\n", *program)
    assert done.stdout.split(b"\r\n+OK \r\n", 1)[1] == want
    assert done.returncode == 1


def test_what_is_sent_ahead_is_left_to_the_program() -> None:
    stdin = b"USER ann\r\nPASS x\r\nSTAT\r\nQUIT\r\n"
    done = popup(stdin, *sh("cat"))
    assert done.stdout.endswith(b"+OK \r\nSTAT\r\nQUIT\r\n")


@pytest.mark.parametrize(
    ("stdin", "want"),
    [
        (b"QUIT\r\n", b"+OK \r\n"),
        (
            b"NOOP\nPASS x\nUSER\nSTAT\nQUIT\n",
            b"+OK \r\n-ERR USER first\r\n-ERR syntax error\r\n"
            b"-ERR authorization first\r\n+OK \r\n",
        ),
        (b"", b""),
        (b"USER ann", b""),
        (b"x" * 3000, b"-ERR line too long\r\n"),
        (b"STLS\r\n", b"-ERR authorization first\r\n"),
    ],
)
def test_nothing_runs_without_a_login(stdin: bytes, want: bytes) -> None:
    done = popup(stdin, *sh("echo ran"))
    assert done.stdout.split(b"\r\n", 1)[1] == want
    assert done.returncode == 1


@pytest.mark.parametrize("args", [[], ["pop.example"]])
def test_usage(args: list[str]) -> None:
    done = run_program("qmail_popup", *args)
    assert done.stdout == b"-ERR usage: popup hostname subprogram\r\n"
    assert done.returncode == 1


def test_silent_client_is_left() -> None:
    code = (
        "import sys; from qsend.cli import qmail_popup\n"
        "qmail_popup.TIMEOUT_S = 0.2\n"
        "sys.exit(qmail_popup.main(['pop.example', 'true']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.wait(30) == 1
        assert process.stdout is not None
        assert process.stdout.read().count(b"\r\n") == 1


def test_killed_subprogram_of_a_signal_that_python_ignores(tmp_path: Path) -> None:
    done = popup(b"USER a\nPASS b\n", *sh(f"kill -{signal.SIGPIPE.value} $$; exit 0"))
    assert done.stdout.endswith(b"-ERR aack, child crashed\r\n")
