"""Controls are judged by a child that cannot harm whoever asks."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account
from qsend.sysio import validate
from qsend.sysio.controldir import Snapshot, take_snapshot

ME = Account(uid=os.getuid(), gid=os.getgid())
PARSER = Account(uid=64200, gid=64200) if os.getuid() == 0 else ME


def told(files: dict[str, bytes]) -> list[str]:
    return [str(fault) for fault in validate.find_faults(Snapshot(files=files), PARSER)]


def test_good_files_have_no_faults() -> None:
    assert told({"me": b"mx.example\n", "timeoutterm": b"5\n"}) == []


def test_every_fault_is_told_with_file_and_line() -> None:
    files = {"me": b"mx.example\n", "rbl": b"\nbl.example\n", "timeoutrbl": b"x"}
    assert told(files) == [
        "control/rbl:2: expected ACTION ZONE[=ANSWERS] [open|closed] [TEXT]",
        "control/timeoutrbl:1: expected a number from 1 to 60, found 'x'",
    ]
    files = {"me": b"mx.example\n", "smtproutes": b"a:b\nbad\n", "patrn": b"9\n"}
    assert told(files) == [
        "control/patrn:1: expected an octal number from 0 to 511, found '9'",
        "control/smtproutes:2: expected key:value, found no colon",
    ]


def test_secret_files_are_parsed_without_being_read_here(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("mx.example\n")
    (control / "sqlserver").write_text("server localhost\nport hunter2\n")
    (control / "smtpauth").write_text("relay.example:user:password\nhunter2\n")
    snapshot = take_snapshot(str(tmp_path))
    try:
        assert set(snapshot.files) == {"me"}
        faults = validate.find_faults(snapshot, PARSER)
    finally:
        snapshot.close()
    assert [str(fault) for fault in faults] == [
        "control/sqlserver:2: expected a port from 1 to 65535",
        "control/sqlserver: no login line",
        "control/sqlserver: no password line",
        "control/sqlserver: no db line",
        "control/smtpauth:2: expected a colon after the destination",
    ]


def replace_parser(
    monkeypatch: pytest.MonkeyPatch, parse: object, timeout_s: float = 20
) -> None:
    monkeypatch.setattr(validate, "parse_controls", parse)
    monkeypatch.setattr(validate, "TIMEOUT_S", timeout_s)


def test_parser_that_crashes_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def parse(_files: dict[str, bytes]) -> None:
        raise ZeroDivisionError("ouch")

    replace_parser(monkeypatch, parse)
    assert told({}) == ["control: the parser crashed"]
    assert "alert: controls: ZeroDivisionError: ouch" in capfd.readouterr().err


def test_parser_that_hangs_is_killed_and_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def parse(_files: dict[str, bytes]) -> None:
        os.read(os.pipe()[0], 1)

    replace_parser(monkeypatch, parse, 0.05)
    before = psutil.Process().children()
    assert told({}) == ["control: the parser took too long"]
    assert psutil.Process().children() == before


@pytest.mark.root
def test_parser_has_no_privilege(
    monkeypatch: pytest.MonkeyPatch, open_tmp: Path
) -> None:
    secret = open_tmp / "secret"
    secret.write_text("x")
    secret.chmod(0o600)

    def parse(_files: dict[str, bytes]) -> None:
        tries = {"uid": str(os.getuid()), "groups": str(os.getgroups())}
        try:
            secret.read_text()
        except PermissionError:
            tries["secret"] = "refused"
        fault = ConfigFault(file="x", line=0, problem=repr(tries))
        raise ConfigError([fault])

    replace_parser(monkeypatch, parse)
    [answer] = told({})
    assert answer == ("x: {'uid': '64200', 'groups': '[64200]', 'secret': 'refused'}")
