from __future__ import annotations

import os
from pathlib import Path

import pytest

from qsend.cli import qbiff
from tests.cli.dotline import DotLine
from tests.formats.test_utmp import record


class Terminals:
    """A directory of files that stand for terminals, and a utmp file."""

    def __init__(self, tmp: Path) -> None:
        self.devices = tmp / "dev"
        (self.devices / "pts").mkdir(parents=True)
        self.utmp = tmp / "utmp"
        self.utmp.touch()

    def login(self, user: bytes, name: str, mode: int = 0o722) -> Path:
        with self.utmp.open("ab") as file:
            file.write(record(7, user, name.encode()))
        path = self.devices / name
        if path.parent.exists():
            path.touch()
            path.chmod(mode)
        return path

    def tell(self, message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("USER", "joe")
        monkeypatch.setenv("LOCAL", "joe-x\x01")
        monkeypatch.setenv("SENDER", "s\tp@t")
        saved = os.dup(0)
        fd = os.open(message, os.O_RDONLY)
        try:
            os.dup2(fd, 0)
            assert qbiff.tell(str(self.utmp), str(self.devices)) == 0
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            os.close(fd)


@pytest.fixture
def terminals(tmp_path: Path) -> Terminals:
    return Terminals(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"To: x\nSubject:  Hi\x1b\n\nyou\nthere", b"    Hi//" + b"/you/there/"),
        (b"Subject: " + b"s" * 100 + b"\n\nbody", b"    " + b"s" * 74),
        (b"Subject: a\n b\n", b"    a/ b/"),
        (b"body only\n", b"    /body only/"),
        (b"", b"    /"),
    ],
)
def test_who_said_biff_y_is_told(
    terminals: Terminals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    text: bytes,
) -> None:
    message = tmp_path / "message"
    message.write_bytes(content)
    told = [terminals.login(b"joe", "pts/1"), terminals.login(b"joe", "tty2")]
    silent = [
        terminals.login(b"joe", "pts/3", 0o622),
        terminals.login(b"ann", "pts/4"),
        terminals.login(b"joe", "pts/a.b"),
        terminals.login(b"joe", str(tmp_path / "abs")),
    ]
    terminals.login(b"joe", "gone/5")
    terminals.login(b"joe", "")
    terminals.tell(message, monkeypatch)
    want = b"\r\n\a*** TO <joe-x_> FROM <s_p@t>\r\n" + text + b"\r\n"
    assert [path.read_bytes() for path in told] == [want, want]
    assert [path.read_bytes() for path in silent] == [b""] * 4


@pytest.mark.root
def test_terminals_of_others_are_left_alone(
    terminals: Terminals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = tmp_path / "message"
    message.write_bytes(b"x")
    path = terminals.login(b"joe", "pts/1")
    os.chown(path, 64900, -1)
    terminals.tell(message, monkeypatch)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("name", ["USER", "LOCAL", "SENDER"])
def test_qbiff_always_exits_0(line: DotLine, name: str) -> None:
    got = line.run("qbiff", unset=(name,))
    assert (got.code, got.stdout, got.stderr) == (0, b"", b"")
    got = line.run("qbiff", content=b"Subject: x\n\n", USER="nobody-here")
    assert (got.code, got.stdout, got.stderr) == (0, b"", b"")
