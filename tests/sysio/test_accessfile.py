"""Rules in a file that changes under us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.core.access import ALLOWED, Client
from qsend.core.errors import TempFail
from qsend.formats.tcprules import records, rules_name
from qsend.sysio.accessfile import AccessFile
from qsend.sysio.cdbmaker import make_cdb

CLIENT = Client(address="192.0.2.1")


def write(path: Path, source: bytes) -> None:
    make_cdb(str(path), f"{path}.tmp", records(source.splitlines(), "rules"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    return tmp_path / "control" / rules_name("smtp")


def rules_of(path: Path) -> AccessFile:
    return AccessFile.of_service(str(path.parents[1]), "smtp")


def test_change_is_seen_by_the_next_client(path: Path) -> None:
    rules = rules_of(path)
    assert rules.judge(CLIENT) == ALLOWED
    write(path, b":deny")
    assert not rules.judge(CLIENT).is_allowed
    assert rules.has_rules
    write(path, b'192.0.2.0/24:allow,RELAYCLIENT=""\n:deny')
    access = rules.judge(CLIENT)
    assert (access.rule, access.variables) == (b"192.0.2.0/24", {b"RELAYCLIENT": b""})
    write(path, b":deny")
    assert not rules.judge(CLIENT).is_allowed
    rules.close()


def test_removed_rules_let_nobody_in_until_hup(path: Path) -> None:
    write(path, b":allow")
    rules = rules_of(path)
    assert rules.judge(CLIENT).is_allowed
    path.unlink()
    for _ in range(2):
        with pytest.raises(TempFail, match=r"control/tcp\.smtp\.cdb was removed"):
            rules.judge(CLIENT)
    rules.forget()
    assert rules.judge(CLIENT) == ALLOWED
    rules.close()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "expected 2048 bytes or more"),
        (b"\xff" * 3000, "not a constant database"),
    ],
)
def test_damaged_rules_let_nobody_in_until_mended(
    path: Path, content: bytes, problem: str
) -> None:
    path.write_bytes(content)
    rules = rules_of(path)
    for _ in range(2):
        with pytest.raises(TempFail, match=problem) as caught:
            rules.judge(CLIENT)
        assert "control/tcp.smtp.cdb" in str(caught.value)
    write(path, b":allow")
    assert rules.judge(CLIENT).rule == b""
    rules.close()


def test_damaged_lengths_are_told(path: Path) -> None:
    make_cdb(str(path), f"{path}.tmp", [(b"", b""), (b"/4", b"77\0")])
    rules = rules_of(path)
    with pytest.raises(TempFail, match="record /4 lists no prefix lengths"):
        rules.judge(CLIENT)
    rules.close()


def test_unreadable_rules_are_told(path: Path) -> None:
    path.mkdir()
    rules = rules_of(path)
    with pytest.raises(TempFail):
        rules.judge(CLIENT)
    rules.close()


def test_link_to_nowhere_lets_nobody_in(path: Path) -> None:
    path.symlink_to("nowhere.cdb")
    rules = rules_of(path)
    with pytest.raises(TempFail, match="link to nowhere"):
        rules.judge(CLIENT)
    write(path.parent / "nowhere.cdb", b":deny")
    assert not rules.judge(CLIENT).is_allowed
    rules.close()


def test_directories_for_the_sandbox_follow_links(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "etc"
    elsewhere.mkdir()
    write(elsewhere / "rules.cdb", b":deny")
    os.symlink(elsewhere / "rules.cdb", path)
    rules = rules_of(path)
    assert not rules.judge(CLIENT).is_allowed
    assert rules.directories == (str(path.parent), str(elsewhere))
    rules.close()
