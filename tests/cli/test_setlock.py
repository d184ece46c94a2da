"""setlock: who waits, who gives up, who holds the lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable, "-W", "error", "-c",
    "import sys; from qsend.cli.setlock import main; sys.exit(main(sys.argv[1:]))",
]  # fmt: skip


def run(*args: str | Path) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [*COMMAND, *args],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("args", [(), ("file",), ("-q", "f", "p"), ("-n", "f")])
def test_wrong_usage(args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert (code, out) == (100, b"")
    usage = b"setlock: usage: setlock [ -nNxX ] file program [ arg ... ]\n"
    assert err.endswith(usage)


def test_program_runs_with_its_arguments_and_its_exit_code(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert run(lock, "sh", "-c", 'echo "$@"; exit 7', "sh", "a b", "-n") == (
        7,
        b"a b -n\n",
        b"",
    )
    assert lock.stat().st_mode & 0o777 == 0o600


def test_file_keeps_its_content(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("kept\n")
    assert run(lock, "cat", str(lock)) == (0, b"kept\n", b"")


def test_lock_is_held_by_the_program(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    inner = [*COMMAND, "-n", str(lock), "echo", "wrong"]
    code, out, err = run(lock, *inner)
    assert (code, out) == (111, b"")
    assert err.startswith(b"setlock: fatal: unable to lock %b: " % bytes(lock))


@pytest.mark.parametrize(
    ("options", "code", "is_told"),
    [("-n", 111, True), ("-nx", 0, False), ("-nxX", 111, True)],
)
def test_busy_file_with_n(
    tmp_path: Path, options: str, code: int, is_told: bool
) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        done = run(options, lock, "echo", "wrong")
    assert done[:2] == (code, b"")
    assert bool(done[2]) is is_told


@pytest.mark.parametrize("options", ["", "-nN"])
def test_without_n_it_waits(tmp_path: Path, options: str) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        words = [*filter(None, [options]), str(lock), "echo", "done"]
        with subprocess.Popen(
            [*COMMAND, *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        ) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            fcntl.flock(theirs, fcntl.LOCK_UN)
            assert process.communicate(timeout=30)[0] == b"done\n"


@pytest.mark.parametrize(("options", "code"), [(["-x"], 0), (["-X"], 111), ([], 111)])
def test_file_that_cannot_be_made(
    tmp_path: Path, options: list[str], code: int
) -> None:
    done = run(*options, tmp_path / "no/lock", "echo", "wrong")
    assert done[:2] == (code, b"")
    assert (b"unable to open" in done[2]) is (code == 111)


def test_program_that_cannot_be_run(tmp_path: Path) -> None:
    code, _, err = run("-x", tmp_path / "lock", "/nonexistent")
    assert code == 111
    assert err.startswith(b"setlock: fatal: unable to run /nonexistent: ")


def test_script_without_first_line_is_run_by_sh(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $1\n")
    script.chmod(0o755)
    assert run(tmp_path / "lock", script, "word") == (0, b"word\n", b"")
