"""qmail-clean as a program: one answer byte per command, on a real queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsend.core.model import MessId
from tests.fakes import present
from tests.queues import inject, make_queue

ROOT = Path(__file__).parents[2]
CODE = "import sys; from qsend.cli.qmail_clean import main; sys.exit(main([]))"


def start(home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE],
        env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def clean(home: Path, commands: bytes) -> tuple[int, bytes, bytes]:
    """(exit code, answers, standard error)."""
    with start(home) as process:
        answers, errors = process.communicate(commands, timeout=30)
        return process.returncode, answers, errors


def found(queue: Path, messid: MessId) -> frozenset[str]:
    return present({str(path.relative_to(queue)) for path in queue.rglob("*")}, messid)


def test_foop_and_todo_remove_what_their_names_say(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    one, two, three = (inject(queue) for _ in range(3))
    commands = b"foop/%d\0todo/%d\0todo/%d\0foop/%d\0" % (one, two, two, one)
    assert clean(tmp_path, commands) == (0, b"++++", b"")
    assert found(queue, one) == {"todo"}
    assert found(queue, two) == {"mess"}
    assert found(queue, three) == {"mess", "intd", "todo"}


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"foop/x\0", b"x"),
        (b"foop/12x4\0", b"x"),
        (b"foop/\0", b"x"),
        (b"\0", b"x"),
        (b"boop/12\0", b"x"),
        (b"foop/" + b"1" * 300 + b"\0", b"x"),
        (b"foop/../todo/1\0", b"x"),
        (b"foop/999999999\0", b"+"),
        (b"foop/", b""),
        (b"", b""),
    ],
)
def test_malformed_commands_get_one_x_and_keep_step(
    tmp_path: Path, command: bytes, answer: bytes
) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    good = b"todo/%d\0" % messid
    assert clean(tmp_path, good + command) == (0, b"+" + answer, b"")
    assert found(queue, messid) == {"mess"}


def test_each_command_is_answered_before_the_next_is_sent(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messids = [inject(queue) for _ in range(40)]
    with start(tmp_path) as process:
        assert process.stdin
        assert process.stdout
        for messid in messids:
            for command in (b"todo/%d\0", b"foop/%d\0"):
                process.stdin.write(command % messid)
                process.stdin.flush()
                assert os.read(process.stdout.fileno(), 10) == b"+"
            assert found(queue, messid) == set()
        process.stdin.close()
        assert process.wait(30) == 0


def test_failed_removal_is_answered_with_an_exclamation_mark(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    (queue / f"intd/{messid}").unlink()
    (queue / f"intd/{messid}").mkdir()
    assert clean(tmp_path, b"foop/%d\0" % messid) == (0, b"!", b"")
    assert found(queue, messid) == {"mess", "intd", "todo"}


def test_nobody_taking_the_answers_is_exit_100(tmp_path: Path) -> None:
    make_queue(tmp_path)
    with start(tmp_path) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.close()
        process.stdin.write(b"foop/12\0")
        process.stdin.flush()
        assert process.wait(30) == 100
        process.stdin.close()


@pytest.mark.parametrize("durability", [None, b"rubbish\n"])
def test_start_that_fails_is_111_with_a_line(
    tmp_path: Path, durability: bytes | None
) -> None:
    if durability is not None:
        make_queue(tmp_path)
        (tmp_path / "control").mkdir()
        (tmp_path / "control/durability").write_bytes(durability)
    code, answers, errors = clean(tmp_path, b"foop/12\0")
    assert (code, answers) == (111, b"")
    assert errors.startswith(b"qmail-clean: fatal: unable to start: ")


@pytest.mark.parametrize("level", ["full", "none"])
def test_level_comes_from_the_control_file(tmp_path: Path, level: str) -> None:
    queue = make_queue(tmp_path)
    (tmp_path / "control").mkdir()
    (tmp_path / "control/durability").write_text(level)
    messid = inject(queue)
    trace = tmp_path / "trace"
    tracer = ["strace", "-o", str(trace), "-e", "trace=fsync,unlinkat"]
    subprocess.run(
        [*tracer, sys.executable, "-c", CODE],
        env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(tmp_path), **path()},
        input=b"foop/%d\0" % messid,
        check=True,
        timeout=30,
        capture_output=True,
    )
    calls = [line.split("(")[0] for line in trace.read_text().splitlines()[:-1]]
    sync = ["fsync"] if level == "full" else []
    assert calls == ["unlinkat", *sync, "unlinkat"]


def path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}
