"""The units of systemd: what they hold, and that systemd itself finds them sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qsend.formats.listeners import Listener
from qsend.formats.systemdunits import (
    MARK,
    NETWORK,
    SERVICE,
    SOCKET,
    UnitPlaces,
    is_plain,
    render_units,
)

LISTENERS = (
    Listener(address="0.0.0.0", port=25),
    Listener(address="::", port=465, words=frozenset({"tls"})),
)
EXPOSURE_MAX = 40
"""Tenths of what `systemd-analyze security` says; it must become root's and users'."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def units(home: str, **more: object) -> dict[str, str]:
    places = UnitPlaces(home=home, listeners=LISTENERS, **more)  # type: ignore[arg-type]
    return render_units(places)


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/var/qmail", True),
        ("/srv/mail-1.03_a+b@c", True),
        ("/srv/my mail", False),
        ("/srv/100%", False),
        ("/srv/$HOME", False),
        ("/srv/a\nExecStart=/bin/false", False),
        ("relative", False),
        ("", False),
    ],
)
def test_plain_paths(path: str, want: bool) -> None:
    assert is_plain(path) is want


def test_sockets_are_those_of_the_home_and_the_controls() -> None:
    made = units("/var/qmail")
    assert sorted(made) == sorted((SERVICE, SOCKET, NETWORK))
    assert all(text.startswith(MARK) for text in made.values())
    assert "\nListenSequentialPacket=/var/qmail/run/enqueue.sock\n" in made[SOCKET]
    assert "\nSocketMode=0666\n" in made[SOCKET]
    assert re.findall(r"ListenStream=(.*)", made[NETWORK]) == ["0.0.0.0:25", "[::]:465"]
    assert f"\nSockets={SOCKET} {NETWORK}\n" in made[SERVICE]
    without = render_units(UnitPlaces(home="/var/qmail", listeners=()))
    assert sorted(without) == sorted((SERVICE, SOCKET))
    assert NETWORK not in without[SERVICE]


@pytest.mark.parametrize(
    ("delivery", "word"),
    [
        ("./Maildir/", '"./Maildir/"'),
        ("|a\n./Mailbox", '"|a\\n./Mailbox"'),
        ('|x "$HOME" 100% \\', '"|x \\"$$HOME\\" 100%% \\\\"'),
    ],
)
def test_default_delivery_is_one_word(delivery: str, word: str) -> None:
    service = units("/var/qmail", default_delivery=delivery)[SERVICE]
    assert f" --default-delivery {word}\n" in service


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The units, of a home whose program exists."""
    program = tmp_path / "home/bin/qsend"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = tmp_path / "units"
    made.mkdir()
    home = str(tmp_path / "home")
    for name, text in units(home, default_delivery='|a "b"\n./c').items():
        (made / name).write_text(text)
    return made


def analyze(*command: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *command],
        capture_output=True,
        check=False,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
def test_systemd_finds_the_units_sound(directory: Path) -> None:
    paths = [str(directory / name) for name in (SERVICE, SOCKET, NETWORK)]
    said = analyze("verify", "--man=no", *paths)
    # It also looks at the units of the machine that these need.
    assert str(directory) not in said
    assert "qsend" not in said


@needs_systemd
def test_exposure_stays_low(directory: Path) -> None:
    service = str(directory / SERVICE)
    analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", service)
