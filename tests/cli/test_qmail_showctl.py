"""qmail-showctl as a program, on real directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.programs import run_program

# Python that gives the accounts numbers, whatever this machine has.
NUMBERS = """
from qsend.cli import qmail_showctl
from tests.localtree import made_accounts
qmail_showctl.load_accounts = lambda single_user: made_accounts()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_bytes(b"mx.example\n")
    return tmp_path


def test_heads_then_controls_then_strangers(home: Path) -> None:
    (home / "control/patrn").write_bytes(b"022\n")
    (home / "control/Strange").write_bytes(b"")
    (home / "control/lost").symlink_to("nowhere")
    done = run_program("qmail_showctl", home=home, before=NUMBERS)
    assert (done.returncode, done.stderr) == (0, b"")
    heads, _, rest = done.stdout.partition(b"\n\n")
    assert heads.decode().splitlines() == [
        f"qmail home directory: {home}.",
        "user-ext delimiter: -.",
        "paternalism (in decimal): 18.",
        "silent concurrency limit: 120.",
        "subdirectory split: 23.",
        "user ids: 67002, 67101, 67102, 0, 67103, 67104, 67105, 67106.",
        "group ids: 67003, 67003.",
    ]
    assert rest.startswith(b"badmailfrom: (Default.) Any MAIL FROM is allowed.\n\n")
    assert b"\nme: My name is mx.example.\n" in rest
    assert rest.endswith(b"\nStrange: I have no idea what this file does.\n")
    assert b"lost" not in rest


def test_directory_in_place_of_a_file_is_trouble(home: Path) -> None:
    (home / "control/locals").mkdir()
    done = run_program("qmail_showctl", home=home, before=NUMBERS)
    assert done.returncode == 0
    assert b"\nlocals: Oops! Trouble reading this file.\n" in done.stdout


@pytest.mark.parametrize("what", ["home", "control", "me"])
def test_what_cannot_be_read_at_all_is_111(home: Path, what: str) -> None:
    (home / "control/me").unlink()
    if what == "me":
        (home / "control/me").mkdir()
    else:
        (home / "control").rmdir()
    at = home / "none" if what == "home" else home
    done = run_program("qmail_showctl", home=at, before=NUMBERS)
    assert (done.returncode, done.stderr) == (111, b"")
    assert done.stdout.splitlines()[-1].startswith(b"Oops! ")


def test_own_home_of_an_ordinary_user_needs_no_accounts(open_tmp: Path) -> None:
    (open_tmp / "control").mkdir()
    uid = os.getuid() or 64400
    os.chown(open_tmp, uid, -1)
    become = f"import os; os.getuid() or (os.setgid({uid}), os.setuid({uid}))"
    done = run_program("qmail_showctl", home=open_tmp, before=become)
    assert done.returncode == 0, done.stdout
    ids = b", ".join([b"%d" % uid] * 8)
    assert b"user ids: %b.\n" % ids in done.stdout
