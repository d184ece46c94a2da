from __future__ import annotations

import pytest

from tests.cli.dotline import DTLINE, LINES, MESSAGE, RPLINE, UFLINE, DotLine


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ([], UFLINE + RPLINE + DTLINE),
        (["-f"], RPLINE + DTLINE),
        (["-r"], UFLINE + DTLINE),
        (["-d"], UFLINE + RPLINE),
        (["-fr", "-d"], ""),
        (["-frdF"], UFLINE),
        (["-d", "-rDR", "--"], UFLINE + RPLINE + DTLINE),
    ],
)
def test_preline_puts_the_wanted_lines_first(
    line: DotLine, options: list[str], lines: str
) -> None:
    got = line.run("preline", *options, "cat")
    assert (got.code, got.stderr) == (0, b"")
    assert got.stdout == lines.encode() + MESSAGE


@pytest.mark.parametrize("code", [0, 1, 75, 99, 100, 111, 255])
def test_preline_has_the_programs_exit_code(line: DotLine, code: int) -> None:
    assert line.run("preline", "sh", "-c", f"cat >&2; exit {code}").code == code


@pytest.mark.parametrize("name", ["UFLINE", "RPLINE", "DTLINE"])
def test_preline_outside_a_delivery_is_a_usage_error(line: DotLine, name: str) -> None:
    got = line.run("preline", "cat", unset=(name,))
    assert (got.code, got.stdout) == (100, b"")
    assert got.stderr.startswith(b"preline: usage: preline ")


@pytest.mark.parametrize("args", [[], ["-f"], ["-x", "cat"]])
def test_preline_usage(line: DotLine, args: list[str]) -> None:
    got = line.run("preline", *args)
    assert got.code == 100
    assert got.stderr.splitlines()[-1].startswith(b"preline: usage: preline ")


def test_preline_cannot_run_the_program(line: DotLine) -> None:
    got = line.run("preline", "/nowhere/prog")
    assert got.code == 100
    assert got.stderr == (
        b"preline: fatal: unable to run /nowhere/prog: No such file or directory\n"
    )
    plain = line.write("plain", "no program", 0o644)
    assert line.run("preline", str(plain)).code == 100
    # Being written by somebody: that passes.
    busy = line.write("busy", b"\x7fELF", 0o755)
    with busy.open("ab"):
        assert line.run("preline", str(busy)).code == 111


def test_preline_runs_a_script_without_its_first_line(line: DotLine) -> None:
    line.write("script", 'cat; echo " $1"\n', 0o755)
    got = line.run("preline", "script", "x y", PATH=f"{line.tmp}:/usr/bin:/bin")
    assert (got.code, got.stdout) == (0, LINES + MESSAGE + b" x y\n")


def test_preline_program_that_crashes_is_temporary(line: DotLine) -> None:
    got = line.run("preline", "sh", "-c", "kill -9 $$")
    assert (got.code, got.stderr) == (111, b"preline: fatal: child crashed\n")


def test_preline_program_need_not_read_everything(line: DotLine) -> None:
    big = b"x" * 1_000_000
    got = line.run("preline", "sh", "-c", "head -c 5; exit 3", content=big)
    assert (got.code, got.stdout, got.stderr) == (3, b"From ", b"")


def test_preline_gives_programs_the_default_sigpipe(line: DotLine) -> None:
    got = line.run("preline", "sh", "-c", "grep SigIgn /proc/self/status")
    assert int(got.stdout.split()[1], 16) & 1 << 12 == 0
