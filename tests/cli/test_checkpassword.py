"""checkpassword on accounts of the machine; the database is tried in tests/pop."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

import pytest

from tests.programs import ROOT, Done, run_program

pytestmark = pytest.mark.root

PASSWORD = b"pass word\xc3\xa9"
RECORDING = """
import json, os, syslog
def record(*words):
    with open(os.environ['SYSLOG'], 'a') as file:
        file.write(json.dumps(words) + chr(10))
syslog.openlog = lambda *words: None
syslog.syslog = record
import qsend.cli.checkpassword
qsend.cli.checkpassword.REFUSED_AFTER_S = 0.0
"""
SHOW = ["sh", "-c", 'id -u; id -g; id -G; pwd; echo "$USER $HOME $SHELL"; echo in; cat']


@pytest.fixture
def account(open_tmp: Path) -> Iterator[str]:
    name = f"qc{secrets.token_hex(4)}"
    home = open_tmp / name
    run = [
        "useradd",
        "-M",
        "-U",
        "-G",
        "mail",
        "-s",
        "/bin/bash",
        "-d",
        str(home),
        name,
    ]
    subprocess.run(run, check=True, capture_output=True)
    try:
        told = b"%b:%b\n" % (name.encode(), PASSWORD)
        subprocess.run(["chpasswd"], input=told, check=True, capture_output=True)
        home.mkdir(mode=0o700)
        os.chown(home, getpwnam(name).pw_uid, getpwnam(name).pw_gid)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


class Caller:
    """Runs checkpassword as qmail-popup does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.syslog = home / "syslog"
        self.syslog.touch()
        self.syslog.chmod(0o666)  # what is said after the drop, too
        (home / "control").mkdir()

    def __call__(
        self, told: bytes, *program: str, stdin: bytes = b"rest of the input"
    ) -> Done:
        before = f"{RECORDING}\nr, w = os.pipe()\nos.dup2(r, 3)\n"
        before += f"os.write(w, {told!r})\nos.close(w)\n"
        environ = {
            "SYSLOG": str(self.syslog), "PATH": os.environ["PATH"],
            "TCPREMOTEIP": "192.0.2.7", "LANG": "C",
        }  # fmt: skip
        return run_program(
            "checkpassword", *program, home=self.home, stdin=stdin, env=environ,
            before=before,
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        rows = self.syslog.read_text().splitlines()
        return [str(json.loads(row)[1]) for row in rows]


@pytest.fixture
def call(open_tmp: Path) -> Caller:
    home = open_tmp / "qsend"
    home.mkdir()
    return Caller(home)


def told(name: str, secret: bytes = PASSWORD) -> bytes:
    return b"%b\0%b\0<1.2@here>\0" % (name.encode(), secret)


def test_right_password_runs_the_program_as_the_user(
    call: Caller, account: str
) -> None:
    done = call(told(account), *SHOW)
    entry = getpwnam(account)
    lines = done.stdout.decode().splitlines()
    assert lines[:2] == [str(entry.pw_uid), str(entry.pw_gid)]
    assert set(lines[2].split()) == {str(entry.pw_gid), str(getgrnam("mail").gr_gid)}
    home = entry.pw_dir
    assert lines[3:] == [home, f"{account} {home} /bin/bash", "in", "rest of the input"]
    assert done.returncode == 0
    assert call.lines == [f"login: {account} from 192.0.2.7: accepted (account)"]


def test_exit_code_is_that_of_the_program(call: Caller, account: str) -> None:
    assert call(told(account), "sh", "-c", "exit 7").returncode == 7


def test_descriptor_3_is_closed_for_the_program(call: Caller, account: str) -> None:
    done = call(told(account), "sh", "-c", "ls /proc/self/fd")
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"]  # 3 is the directory


@pytest.mark.parametrize("secret", [b"", b"wrong", PASSWORD[:-1], PASSWORD + b"x"])
def test_wrong_password_is_1(call: Caller, account: str, secret: bytes) -> None:
    done = call(told(account, secret), "echo", "ran")
    assert (done.returncode, done.stdout) == (1, b"")
    assert call.lines == [f"login: {account} from 192.0.2.7: refused: wrong password"]


def test_unknown_user_is_1(call: Caller) -> None:
    done = call(told("no-such-user"), "echo", "ran")
    assert (done.returncode, done.stdout) == (1, b"")
    want = "login: no-such-user from 192.0.2.7: refused: unknown user (no such account)"
    assert call.lines == [want]


def test_root_is_1(call: Caller) -> None:
    assert call(told("root"), "echo", "ran").returncode == 1


@pytest.mark.parametrize("data", [b"", b"ann", b"ann\0", b"ann\0x", b"a\0b\0c"])
def test_misuse_is_2(call: Caller, data: bytes) -> None:
    assert call(data, "echo", "ran").returncode == 2
    assert call.lines == []


def test_without_a_program_it_is_2(call: Caller, account: str) -> None:
    assert call(told(account)).returncode == 2


def test_too_much_is_1(call: Caller) -> None:
    done = call(b"ann\0" + b"x" * 510 + b"\0\0", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, b"")


def test_without_descriptor_3_it_is_111(call: Caller) -> None:
    done = run_program(
        "checkpassword", "echo", "ran", home=call.home,
        env={"SYSLOG": str(call.syslog)}, before=RECORDING,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (111, b"")


def test_database_that_cannot_be_asked_is_111_whatever_passwd_says(
    call: Caller, account: str
) -> None:
    (call.home / "control/sqlserver").touch(mode=0o600)
    done = call(told(account), "echo", "ran")
    assert (done.returncode, done.stdout) == (111, b"")
    [line] = call.lines
    assert line.startswith(f"login: {account} from 192.0.2.7: deferred: system error (")
    assert "lookup" in line


def test_lookup_that_hangs_up_is_111(call: Caller, account: str) -> None:
    (call.home / "control/sqlserver").touch(mode=0o600)
    (call.home / "run").mkdir()
    path = str(call.home / "run/lookup.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen(1)
        code = (
            "import socket\n"
            f"s = socket.socket(fileno={listening.fileno()})\n"
            "s.accept()[0].recv(4096)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[listening.fileno()], cwd=ROOT
        ):
            done = call(told(account), "echo", "ran")
    assert (done.returncode, done.stdout) == (111, b"")


def test_home_that_cannot_be_entered_is_111(
    call: Caller, account: str, open_tmp: Path
) -> None:
    (open_tmp / account).rmdir()
    done = call(told(account), "echo", "ran")
    assert (done.returncode, done.stdout) == (111, b"")
    assert call.lines[1].startswith("warning: ")


def test_program_that_cannot_be_run_is_111(call: Caller, account: str) -> None:
    assert call(told(account), "/nonexistent/program").returncode == 111


def test_shadow_that_cannot_be_read_is_111(call: Caller, account: str) -> None:
    code = f"""
import os, sys
import qsend.cli.checkpassword
r, w = os.pipe()
os.dup2(r, 3)
os.write(w, {told(account)!r})
os.close(w)
os.setgroups([]); os.setgid(64123); os.setuid(64123)
sys.exit(qsend.cli.checkpassword.main(['echo', 'ran']))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=60,
        env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(call.home)}, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (111, b"")


def test_log_can_be_switched_off(call: Caller, account: str) -> None:
    (call.home / "control/loglogins").write_text("0\n")
    assert call(told(account, b"wrong"), "true").returncode == 1
    assert call(told(account), "true").returncode == 0
    assert call.lines == []


def test_password_is_in_no_log(call: Caller, account: str) -> None:
    call(told(account), "true")
    call(told("nobody-there"), "true")
    assert PASSWORD not in call.syslog.read_bytes()
    assert len(call.lines) == 2
