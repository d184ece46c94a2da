"""control/morercpthosts.cdb, as qmail-newmrh makes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsend.core.users import Trouble
from qsend.sysio.morehosts import MoreHosts
from tests.programs import run_program


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / "control/morercpthosts").write_text(text)
    assert run_program("qmail_newmrh", home=home).returncode == 0


def test_hosts_and_suffixes_and_changes(home: Path) -> None:
    more = MoreHosts(str(home))
    assert not more.is_there()
    assert more.lists(b"a.example") is False
    write(home, "A.example\n.b.example\n")
    assert more.is_there()
    for host, want in [
        (b"a.EXAMPLE", True),
        (b"x.b.example", True),
        (b"b.example", False),
        (b"x.a.example", False),
        (b"", False),
    ]:
        assert more.lists(host) is want
    write(home, "c.example\n")
    assert more.lists(b"c.example") is True
    assert more.lists(b"a.example") is False
    (home / "control/morercpthosts.cdb").unlink()
    assert more.lists(b"c.example") is False
    more.close()


@pytest.mark.parametrize("content", [b"", b"\xff" * 3000])
def test_damage_is_trouble(home: Path, content: bytes) -> None:
    (home / "control/morercpthosts.cdb").write_bytes(content)
    more = MoreHosts(str(home))
    answer = more.lists(b"a.example")
    assert isinstance(answer, Trouble)
    assert b"morercpthosts.cdb: not a constant database" in answer.text
    assert more.is_there()
    more.close()


def test_unreadable_is_trouble(home: Path) -> None:
    (home / "control/morercpthosts.cdb").symlink_to("morercpthosts.cdb")
    more = MoreHosts(str(home))
    answer = more.lists(b"a.example")
    assert isinstance(answer, Trouble)
    assert b"unable to read control/morercpthosts.cdb" in answer.text
    more.close()
