"""The command `qsend`: dispatch, help, exit codes, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsend.cli import start as start_command
from qsend.cli.main import COMMANDS, main
from qsend.core import family
from qsend.core.startoptions import StartOptions
from qsend.procs import start


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_teaches(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: qsend {command} ")
    assert "--home DIR" in out
    # A sentence on what it does, and more than the options below.
    assert len(out.split("options:")[1].splitlines()) > 4


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["flush", "--hurry"], "unrecognized arguments: --hurry"),
        (["hold"], "the following arguments are required: WHAT"),
        (["remove", "x"], "invalid int value: 'x'"),
        (["queue", "--js"], "unrecognized arguments: --js"),
    ],
)
def test_wrong_usage_is_exit_100(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 100
    err = capsys.readouterr().err
    assert says in err
    assert "--help" in err


def test_commands_other_than_start_import_no_process() -> None:
    code = (
        "import sys\n"
        "from qsend.cli.main import main\n"
        "main(['status', '--home', '/nonexistent'])\n"
        "print([name for name in sys.modules if name.startswith('qsend.procs')])\n"
        "print('asyncio' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\nFalse\n"


@pytest.mark.parametrize(
    ("why", "says"),
    [(MemoryError(), "out of memory"), (ImportError("no libm.so.6"), "no libm.so.6")],
)
def test_command_that_cannot_be_loaded_says_so_in_a_line(
    why: Exception,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_name: str) -> None:
        raise why

    monkeypatch.setattr("qsend.cli.main.importlib.import_module", fail)
    assert main(["status"]) == 111
    assert capsys.readouterr().err == f"qsend status: cannot be loaded: {says}\n"


def test_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m qsend --help | true",
        shell=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


def test_start_passes_its_options_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[StartOptions] = []
    monkeypatch.setattr(start, "main", lambda options, _mains: seen.append(options))
    monkeypatch.chdir(tmp_path)
    argv = ["--home", "h", "--default-delivery", "./Maildir/", "--lspawn", "bin/l"]
    main(["start", *argv, "--clean", "/c"])
    assert seen == [
        StartOptions(
            home=str(tmp_path / "h"),
            single_user=os.getuid() != 0,
            default_delivery=b"./Maildir/",
            lspawn=str(tmp_path / "bin/l"),
            clean="/c",
        )
    ]
    assert seen[0].classic == {"lspawn": str(tmp_path / "bin/l"), "clean": "/c"}


def test_start_has_a_main_for_every_kind() -> None:
    kinds = {kind for kind in family.NAMES if not family.is_classic(kind)}
    assert all(callable(start_command.main_of(kind)) for kind in kinds)
    assert kinds >= {family.kind(role) for role in family.plan(1).roles}


def test_start_that_breaks_down_is_temporary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_options: object, _mains: object) -> int:
        raise ZeroDivisionError("ouch")

    monkeypatch.setattr(start, "main", broken)
    assert main(["start", "--home", "/nonexistent"]) == 111
    assert capsys.readouterr().out == (
        "alert: start broke down: ZeroDivisionError('ouch')\n"
    )


@pytest.mark.root
def test_root_does_not_start_in_single_user_mode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["start", "--single-user", "--home", "/nonexistent"]) == 100
    assert "not for root" in capsys.readouterr().err
