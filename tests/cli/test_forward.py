from __future__ import annotations

import re

import pytest

from tests.cli.dotline import DTLINE, MESSAGE, DotLine


def test_forward_queues_for_all_addresses(line: DotLine) -> None:
    got = line.run("forward", "a@b", "c d@e", "plain")
    assert got.code == 0
    assert re.fullmatch(rb"forward: qp \d+\n", got.stderr)
    assert got.stdout == b""
    assert got.sender == b"new@t"
    assert got.recips == [b"a@b", b"c d@e", b"plain"]
    assert got.message == DTLINE.encode() + MESSAGE


@pytest.mark.parametrize("name", ["NEWSENDER", "DTLINE"])
def test_forward_needs_the_environment_of_a_delivery(line: DotLine, name: str) -> None:
    got = line.run("forward", "a@b", unset=(name,))
    assert (got.code, got.envelope) == (100, None)
    assert got.stderr == b"forward: fatal: %b not set\n" % name.encode()


@pytest.mark.parametrize(("queue", "code"), [("31", 100), ("53", 111), ("91", 111)])
def test_forward_hands_the_queues_refusal_on(
    line: DotLine, queue: str, code: int
) -> None:
    got = line.run("forward", "a@b", QUEUE_EXIT=queue)
    assert got.code == code
    assert got.stderr.startswith(b"forward: fatal: ")


def test_forward_takes_the_words_of_the_queue(line: DotLine) -> None:
    got = line.run(
        "forward", "a@b", QUEUE_EXIT="82", QUEUE_SAYS="Dno such luck (#5.7.1)"
    )
    assert (got.code, got.stderr) == (100, b"forward: fatal: no such luck (#5.7.1)\n")


def test_help_is_asked_for_alone(line: DotLine) -> None:
    got = line.run("forward", "--help")
    assert (got.code, got.envelope) == (0, None)
    assert got.stdout.startswith(b"usage: forward address ...\n")
    assert line.run("forward", "--help", "a@b").recips == [b"--help", b"a@b"]
