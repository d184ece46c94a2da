"""CommandLine against getopt(3)'s rules."""

from __future__ import annotations

import pytest

from qsend.cli.options import CommandLine, UsageError


@pytest.mark.parametrize(
    ("argv", "options", "arguments"),
    [
        ([], [], []),
        (["x", "-a"], [], ["x", "-a"]),
        (["-ab", "x"], [("a", ""), ("b", "")], ["x"]),
        (["-vx", "y"], [("v", "x")], ["y"]),
        (["-v", "-x", "y"], [("v", "-x")], ["y"]),
        (["-av", "x"], [("a", ""), ("v", "x")], []),
        (["-v", "", "x"], [("v", "")], ["x"]),
        (["--", "-a"], [], ["-a"]),
        (["-a", "--", "--"], [("a", "")], ["--"]),
        (["-", "-a"], [], ["-", "-a"]),
        (["", "-a"], [], ["", "-a"]),
        (["-Sxa", "-a"], [("S", "xa"), ("a", "")], []),
        (["-S", "x"], [("S", "")], ["x"]),
    ],
)
def test_options_then_arguments(
    argv: list[str], options: list[tuple[str, str]], arguments: list[str]
) -> None:
    line = CommandLine(argv, "ab", "v", "S")
    assert list(line.options()) == options
    assert line.arguments == arguments


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-z"], "illegal option -- z"),
        (["-az"], "illegal option -- z"),
        (["--long"], "illegal option -- -"),
        (["-v"], "option requires an argument -- v"),
    ],
)
def test_what_is_not_understood_is_a_usage_error(argv: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        list(CommandLine(argv, "ab", "v").options())
