"""qmail-rspawn served by a fake send, with a fake qmail-remote."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsend.cli.qmail_rspawn import slots
from tests.classicpeer import FakeSend

SCRIPT = "import sys; from qsend.cli.qmail_rspawn import main; sys.exit(main([]))"
PATH = b"20/457"
K, Z, D = b"K", b"Z", b"D"

# What it prints depends on the host; the recipient's items are qmail-remote's.
FAKE_REMOTE = r"""#!/bin/sh
case "$1" in
    accepted)  printf 'r\0Kok\n\0' ;;
    deferred)  printf 'r\0Zlater\n\0' ;;
    refused)   printf 'r\0Dno\n\0' ;;
    h-d)       printf 'hbad\n\0Dgiving up\n\0' ;;
    s-d)       printf 'sbusy\n\0Dgiving up\n\0' ;;
    h-z)       printf 'hbad\n\0Zlater\n\0' ;;
    no-recip)  printf 'Zdns\n\0' ;;
    stderr)    printf 'r\0Kheard\n\0' >&2 ;;
    silent)    ;;
    exit111)   printf 'r\0Kok\n\0'; exit 111 ;;
    exit1)     printf 'r\0Kok\n\0'; exit 1 ;;
    killed)    kill -9 $$ ;;
    echo)      printf 'r\0K%s|%s|%s|%s|' "$#" "$1" "$2" "$3"; cat; printf '\0' ;;
    long)      printf 'r\0K'; head -c 20000 /dev/zero | tr '\0' a; printf '\0' ;;
    sigpipe)   # SIGPIPE and SIGXFSZ, which Python ignores, are bits 12 and 24
        grep -q '^SigIgn:.*[02468ace]..[02468ace]...$' /proc/self/status &&
            printf 'Kdefault\0' ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("control", "bin", "queue/mess/20", "queue/lock"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "queue/mess" / PATH.decode()).write_bytes(b"the message\n")
    (tmp_path / "queue/lock/tcpto").write_bytes(b"\xff" * 1024)
    remote = tmp_path / "bin/qmail-remote"
    remote.write_text(FAKE_REMOTE)
    remote.chmod(0o755)
    return tmp_path


@contextmanager
def rspawn(home: Path, extra: Mapping[str, str] | None = None) -> Iterator[FakeSend]:
    env = {
        **os.environ,
        "QSEND_HOME": str(home),
        "PYTHONPATH": os.getcwd(),
        **(extra or {}),
    }
    with FakeSend([sys.executable, "-c", SCRIPT], cwd="/", env=env) as send:
        yield send


ROWS = [
    (b"accepted", K, b"ok\n"),
    (b"deferred", Z, b"later\n"),
    (b"refused", D, b"no\n"),
    (b"h-d", D, b"bad\ngiving up\n"),
    (b"s-d", Z, b"busy\ngiving up\n"),
    (b"h-z", D, b"bad\n"),
    (b"no-recip", Z, b"dns\n"),
    (b"stderr", K, b"heard\n"),
    (b"silent", Z, None),
    (b"exit111", Z, None),
    (b"exit1", D, None),
    (b"killed", Z, None),
    (b"long", K, b"a" * 20000),
    (b"echo", K, b"3|echo|s@h|x@y@echo|the message\n"),
    (b"sigpipe", K, b"default"),
]


def test_report_table(home: Path) -> None:
    with rspawn(home) as send:
        for slot, (host, _letter, _text) in enumerate(ROWS):
            send.command(slot, PATH, b"s@h", b"x@y@" + host)
        reports = {report[0]: report[1:] for report in (send.report() for _ in ROWS)}
        assert send.finish() == 0
    for slot, (host, letter, text) in enumerate(ROWS):
        got_letter, got_text = reports[slot]
        assert got_letter == letter, host
        if text is None:
            assert got_text.endswith(b".0)\n"), host
        else:
            assert got_text == text, host


def test_check_table_rows_start_nothing(home: Path) -> None:
    with rspawn(home) as send:
        for delnum, path, recip, letter, code in (
            (120, PATH, b"r@accepted", Z, b"#4.3.5"),
            (1, b"x", b"r@accepted", D, b"#5.3.5"),
            (1, PATH, b"accepted", D, b"#5.1.3"),
            (1, b"20/458", b"r@accepted", Z, b"#4.3.0"),
            (1, b"20", b"r@accepted", Z, b"#4.3.5"),
        ):
            send.command(delnum, path, b"", recip)
            got = send.report()
            assert got[:2] == (delnum, letter)
            assert code in got[2]


def test_environment_chooses_the_program(home: Path) -> None:
    other = home / "other"
    other.write_text("#!/bin/sh\nprintf 'r\\0Kother\\0'\n")
    other.chmod(0o755)
    with rspawn(home, {"QMAILREMOTE": str(other)}) as send:
        send.command(1, PATH, b"", b"r@h")
        assert send.report() == (1, K, b"other")


@pytest.mark.parametrize("mode", [None, 0o644])
def test_missing_program_is_a_deferral(home: Path, mode: int | None) -> None:
    remote = home / "bin/qmail-remote"
    if mode is None:
        remote.unlink()
    else:
        remote.chmod(mode)
    with rspawn(home) as send:
        for _ in range(2):  # the slot is free again
            send.command(1, PATH, b"", b"r@h")
            delnum, letter, text = send.report()
            assert (delnum, letter) == (1, Z)
            assert b"qmail-remote" in text
            assert b"#4.3.0" in text


def test_table_of_silent_hosts_is_cleared_at_start(home: Path) -> None:
    with rspawn(home) as send:
        assert send.start_byte == 120
        assert (home / "queue/lock/tcpto").read_bytes() == bytes(1024)


def test_missing_queue_is_exit_111(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    env = {**os.environ, "QSEND_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    status = os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-c", SCRIPT], env)
    assert status == 111
    assert "unable to enter the queue" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (None, 120),
        ("20\n", 120),
        ("200\n", 200),
        ("255\n", 255),
        ("2000\n", 255),
        ("many\n", 120),
        ("", 120),
    ],
)
def test_slots_follow_concurrencyremote(
    home: Path, content: str | None, want: int
) -> None:
    if content is not None:
        (home / "control/concurrencyremote").write_text(content)
    assert slots(str(home)) == want
