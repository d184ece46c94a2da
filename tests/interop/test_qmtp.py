"""QMTP and QMQP through notqmail's servers and through ours."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsend.formats.netstring import render
from tests.interop import notqmail
from tests.interop.pair import GENERATED, Pair
from tests.tree.harness import Tree

pytestmark = notqmail.marks

CASES = 250
QUEUE_PROGRAM = """#!/bin/sh
cat >"$QUEUED/$$.message"
cat <&1 >"$QUEUED/$$.envelope"
exit ${QUEUE_CODE:-0}
"""
BOX = b"box@here.example"

senders = st.sampled_from(
    [b"a@b.example", b"", b"x y", b"\xff", b"a\0b", b"s" * 999, b"s" * 1000, b"#@[]"]
)
recips = st.sampled_from(
    [BOX, b"X@HERE.example", b"r@no.example", b"r@a.b.sub.example", b"r@sub.example",
     b"nohost", b"", b"@here.example", b"a@no@here.example", b"a\0@here.example",
     b"r" * 986 + b"@here.example", b"r" * 987 + b"@here.example", b"r" * 2000]
)  # fmt: skip
bodies = st.one_of(
    st.sampled_from(
        [b"", b"S: x\n\ny\n", b"x\r\ny\r\n", b"\r\r\n", b"\n\r", b"\0\xff"]
    ),
    st.text("\r\nx", max_size=12).map(str.encode),
)
messages = st.builds(
    bytes.__add__, st.sampled_from([b"\n", b"\r", b"\n", b"\r", b"x"]), bodies
)
packages = st.builds(
    lambda message, sender, several: (
        render(message) + render(sender) + render(b"".join(map(render, several)))
    ),
    messages,
    senders,
    st.lists(recips, max_size=5),
)
requests = st.builds(
    lambda message, sender, several: render(
        b"".join(map(render, (message, sender, *several)))
    ),
    bodies,
    senders,
    st.lists(recips, max_size=3),
)
ends = st.sampled_from([b""] * 6 + [b"x", b"1:", b"2:\nx,", b"0:,", b"3:x", b":"])
cuts = st.one_of(st.just(None), st.integers(-60, -1))
variables = st.fixed_dictionaries(
    {},
    optional={
        "RELAYCLIENT": st.sampled_from([b"", b"@relay.example"]),
        "DATABYTES": st.sampled_from([b"0", b"3", b"5", b"no"]),
        "QUEUE_CODE": st.sampled_from(
            [b"0", b"11", b"31", b"40", b"53", b"54", b"71", b"91", b"115", b"120"]
        ),
        "TCPREMOTEIP": st.just(b"192.0.2.1"),
        "TCPREMOTEHOST": st.sampled_from([b"h.example", b"h_o (x)"]),
        "TCPREMOTEINFO": st.sampled_from([b"joe", b"<joe>"]),
        "TCPLOCALHOST": st.just(b"me.example"),
        "TCPLOCALIP": st.just(b"192.0.2.2"),
    },
)


@pytest.fixture(scope="module")
def listed(idle: Tree, shared: Path) -> None:
    program = shared / "queue"
    program.write_text(QUEUE_PROGRAM)
    program.chmod(0o755)
    idle.control("rcpthosts", "here.example\n.sub.example\n")


def served(
    pair: Pair,
    shared: Path,
    is_ours: bool,
    name: str,
    wire: bytes,
    env: dict[str, bytes],
) -> tuple[int, bytes, list[bytes]]:
    """Exit code, answers, and what was queued: messages, each with its envelope."""
    program = shared / "queue"
    # A program of an earlier run may still be at work in its own.
    queued = Path(tempfile.mkdtemp(dir=shared))
    queued.chmod(0o777)
    more = {**env, "QMAILQUEUE": bytes(program), "QUEUED": bytes(queued)}
    if is_ours:
        ran = pair.ours(name.replace("-", "_"), [], stdin=wire, env=more)
    else:
        ran = pair.theirs(name, [], stdin=wire, env=more)
    answers = re.sub(rb"\d+:Kok \d+ qp \d+,", b"K,", ran.out)
    if ran.code:
        # They forget the answers to what came before in the same read.
        return ran.code, b"", []
    return ran.code, answers, sorted(complete(queued))


def complete(queued: Path) -> Iterator[bytes]:
    """Messages with their envelopes; of what was given up there is a part at most."""
    for path in queued.glob("*.envelope"):
        if (envelope := path.read_bytes()).endswith(b"\0\0"):
            message = path.with_suffix(".message").read_bytes()
            yield re.sub(rb"; \d+ \w+ \d{4} [\d:]+ -", b"; -", message) + envelope


@settings(GENERATED, max_examples=CASES)
@given(some=st.lists(packages, max_size=3), end=ends, cut=cuts, env=variables)
def test_qmtp_is_answered_alike(
    pair: Pair,
    shared: Path,
    listed: None,
    some: list[bytes],
    end: bytes,
    cut: int | None,
    env: dict[str, bytes],
) -> None:
    wire = (b"".join(some) + end)[:cut]
    theirs, ours = (
        served(pair, shared, is_ours, "qmail-qmtpd", wire, env)
        for is_ours in (False, True)
    )
    assert ours == theirs


@settings(GENERATED, max_examples=CASES)
@given(wire=requests, end=ends, cut=cuts, env=variables)
def test_qmqp_is_answered_alike(
    pair: Pair,
    shared: Path,
    listed: None,
    wire: bytes,
    end: bytes,
    cut: int | None,
    env: dict[str, bytes],
) -> None:
    wire = (wire + end)[:cut]
    theirs, ours = (
        served(pair, shared, is_ours, "qmail-qmqpd", wire, env)
        for is_ours in (False, True)
    )
    assert ours == theirs
