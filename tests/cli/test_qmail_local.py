from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.cli import qmail_local

ROOT = Path(__file__).parents[2]
MESSAGE = b"Subject: x\n\n>From y\nz"


@dataclass
class Place:
    """A home, and the program run as a classic qmail-lspawn would."""

    tmp: Path

    def __post_init__(self) -> None:
        self.home = self.tmp / "home"
        self.home.mkdir(mode=0o700)
        for name in ("tmp", "new", "cur"):
            (self.home / "Maildir" / name).mkdir(parents=True)

    def write(self, text: str, name: str = ".qmail", mode: int = 0o600) -> None:
        (self.home / name).write_text(text)
        (self.home / name).chmod(mode)

    def queue_program(self) -> None:
        """Stands for qmail-queue: keeps message and envelope."""
        path = self.tmp / "queue-program"
        path.write_text(f"#!/bin/sh\ncat >{self.tmp}/taken; cat <&1 >{self.tmp}/env\n")
        path.chmod(0o755)

    def run(
        self,
        *options: str,
        message: bytes = MESSAGE,
        local: str = "joe",
        dash: str = "",
        ext: str = "",
        sender: str = "s@t",
        default: str = "./Mailbox",
    ) -> tuple[int, bytes, bytes]:
        """(exit code, descriptor 1, descriptor 2)."""
        operands = ["joe", str(self.home), local, dash, ext, "h.org", sender, default]
        return self.run_raw([*options, "--", *operands], message)

    def run_raw(self, argv: list[str], message: bytes) -> tuple[int, bytes, bytes]:
        path = self.tmp / "message"
        path.write_bytes(message)
        environ = {
            "PATH": "/usr/bin:/bin",
            "QSEND_HOME": str(self.tmp),
            "DEFAULT": "inherited",
            "KEPT": "inherited",
        }
        if (self.tmp / "queue-program").exists():
            environ["QMAILQUEUE"] = str(self.tmp / "queue-program")
        with path.open("rb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "qsend.cli.qmail_local", *argv],
                stdin=file,
                capture_output=True,
                env=environ,
                cwd=ROOT,
                timeout=60,
                check=False,
            )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_qmail_local_without_dot_qmail_uses_the_default(place: Place) -> None:
    assert place.run() == (0, b"did 1+0+0\n", b"")
    entry = (place.home / "Mailbox").read_bytes().split(b"\n", 1)[1]
    assert entry == (
        b"Return-Path: <s@t>\nDelivered-To: joe@h.org\nSubject: x\n\n>>From y\nz\n\n"
    )


def test_qmail_local_delivers_into_a_maildir(place: Place) -> None:
    assert place.run(default="./Maildir/") == (0, b"did 1+0+0\n", b"")
    (path,) = (place.home / "Maildir/new").iterdir()
    assert path.read_bytes() == (
        b"Return-Path: <s@t>\nDelivered-To: joe@h.org\n" + MESSAGE
    )


def test_qmail_local_loop_is_exit_100(place: Place) -> None:
    line = b"Delivered-To: joe@h.org\n"
    code, out, err = place.run(message=line + MESSAGE)
    assert (code, out) == (100, b"")
    assert b"#5.4.6" in err
    assert place.run(message=line.replace(b"joe", b"Joe") + MESSAGE)[0] == 0


def test_qmail_local_exit_99_skips_what_follows(place: Place) -> None:
    place.queue_program()
    place.write("./Mailbox\n|exit 99\n&x@y\n")
    assert place.run() == (0, b"did 1+0+1\n", b"")
    assert not (place.tmp / "taken").exists()


def test_qmail_local_exit_99_still_forwards_what_came_before(place: Place) -> None:
    place.queue_program()
    place.write("&x@y\n|exit 99\n./Mailbox\n")
    code, out, err = place.run()
    assert (code, err) == (0, b"")
    assert out.startswith(b"did 0+1+1\nqp ")
    assert (place.tmp / "taken").read_bytes() == b"Delivered-To: joe@h.org\n" + MESSAGE
    assert (place.tmp / "env").read_bytes() == b"Fs@t\0Tx@y\0\0"
    assert (place.tmp / "env").stat().st_mode & 0o777 == 0o600
    assert not (place.home / "Mailbox").exists()


REFUSED = [
    ("./Mailbox\n", 0o700, b"#4.7.0"),
    ("|true\n", 0o700, b"#4.7.0"),
    ("\n./Mailbox\n", 0o600, b"#4.2.1"),
    ("./Mailbox\n", 0o602, b"#4.7.0"),
]


@pytest.mark.parametrize(("text", "mode", "code"), REFUSED)
def test_qmail_local_bad_dot_qmail_is_exit_111(
    place: Place, text: str, mode: int, code: bytes
) -> None:
    place.write(text, mode=mode)
    exit_code, out, err = place.run()
    assert (exit_code, out) == (111, b"")
    assert code in err
    assert not (place.home / "Mailbox").exists()


def test_qmail_local_empty_dot_qmail_uses_the_default(place: Place) -> None:
    place.write("", mode=0o700)
    assert place.run() == (0, b"did 1+0+0\n", b"")


def test_qmail_local_mixed_case_extension(place: Place) -> None:
    place.write("|echo $EXT ${DEFAULT-unset} $KEPT\n", ".qmail-a:b-c")
    place.write("|echo $DEFAULT\n", ".qmail-a:b-default")
    got = place.run(dash="-", ext="A.B-C", local="joe-A.B-C")
    assert got == (0, b"A.B-C unset inherited\ndid 0+0+1\n", b"")
    got = place.run(dash="-", ext="A.B-XyZ", local="joe-A.B-XyZ")
    assert got == (0, b"XyZ\ndid 0+0+1\n", b"")


def test_qmail_local_no_such_mailbox_is_exit_100(place: Place) -> None:
    code, out, err = place.run(dash="-", ext="none")
    assert (code, out) == (100, b"")
    assert b"#5.1.1" in err


@pytest.mark.parametrize(("code", "want"), [(100, 100), (64, 100), (1, 111)])
def test_qmail_local_passes_on_a_programs_fate(
    place: Place, code: int, want: int
) -> None:
    place.write(f"|cat; echo >&2 sorry; exit {code}\n")
    assert place.run() == (want, MESSAGE, b"sorry\n")


def test_qmail_local_n_lists_and_does_nothing(place: Place) -> None:
    place.write("#c\n./Maildir/\n./Mailbox\n|rm -rf x  \n&a@b\nc@d\n")
    place.home.chmod(0o1700)
    code, out, err = place.run("-n", message=b"Delivered-To: joe@h.org\n\n")
    assert code == 0
    assert out == (
        b"maildir ./Maildir/\nmbox ./Mailbox\nprogram rm -rf x\n"
        b"forward a@b\nforward c@d\ndid 2+2+1\n"
    )
    assert err == b"Warning: home directory is sticky.\n"
    assert not (place.home / "Mailbox").exists()
    assert place.run("-n", "-N")[0] == 111  # the last one counts: sticky refused


def test_qmail_local_n_stops_where_a_delivery_would(place: Place) -> None:
    place.write("a@b\n./Mailbox\n", mode=0o700)
    code, out, err = place.run("-n")
    assert (code, out) == (111, b"forward a@b\n")
    assert b"#4.7.0" in err
    assert place.run("-n", dash="-", ext="none")[0] == 100


def test_qmail_local_home_trouble_is_exit_111(place: Place) -> None:
    place.home.chmod(0o702)
    assert place.run()[0] == 111
    place.home.chmod(0o1700)
    code, _, err = place.run()
    assert code == 111
    assert b"#4.2.1" in err


def test_qmail_local_heeds_the_controls(place: Place) -> None:
    control = place.tmp / "control"
    control.mkdir()
    (control / "patrn").write_text("022\n")
    place.home.chmod(0o720)
    code, _, err = place.run()
    assert code == 111
    assert b"#4.7.0" in err
    (control / "patrn").write_text("many\n")
    code, _, err = place.run()
    assert code == 111
    assert b"control/patrn:1" in err


USAGE = [
    [],
    ["joe", "/home", "joe", "", "", "h", "s@t"],
    ["joe", "/home", "joe", "", "", "h", "s@t", "./M", "more"],
    ["joe", "home", "joe", "", "", "h", "s@t", "./M"],
    ["-x", "joe", "/home", "joe", "", "", "h", "s@t", "./M"],
]


@pytest.mark.parametrize("argv", USAGE)
def test_qmail_local_usage_is_exit_100(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert qmail_local.main(argv) == 100
    out, err = capfd.readouterr()
    assert out == ""
    assert "usage" in err


def test_qmail_local_unforeseen_trouble_is_exit_111(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(qmail_local, "find_home", broken)
    argv = ["joe", os.fspath(tmp_path), "joe", "", "", "h", "s@t", "./M"]
    assert qmail_local.main(argv) == 111
    assert "RuntimeError" in capfd.readouterr().err
