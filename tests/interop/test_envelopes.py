"""Envelopes, right and wrong, through notqmail's qmail-queue and through ours."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from qsend.core.model import MessId
from tests.interop import notqmail
from tests.interop.pair import GENERATED, Pair
from tests.tree.classicqueue import ClassicQueue, Entry, place
from tests.tree.harness import Tree

pytestmark = notqmail.marks

CASES = 300
RECEIVED = rb"Received: \(qmail \d+ invoked by uid 0\); \d+ \w+ \d{4} [\d:]+ -0000\n"

texts = st.one_of(
    st.sampled_from([b"", b"a@b", b"#@[]", b"l-@h-@[]", b"x y", b"\xff", b"\n", b"a"]),
    st.sampled_from([1000, 1001, 1002, 1003, 1004, 5000]).map(lambda size: b"x" * size),
)
records = st.builds(bytes.__add__, st.sampled_from([b"F"] + [b"T"] * 6 + [b"x"]), texts)
envelopes = st.one_of(
    st.builds(
        lambda sender, recips, end: (
            b"".join(each + b"\0" for each in (b"F" + sender, *recips)) + end
        ),
        texts,
        st.lists(st.one_of(records, texts.map(b"T".__add__)), max_size=4),
        st.sampled_from([b"\0"] * 5 + [b"", b"T", b"Ta@b", b"\0\0", b"\0Ta@b\0\0"]),
    ),
    st.lists(records, max_size=3).map(b"\0".join),
    st.binary(max_size=5),
)
messages = st.sampled_from(
    [b"", b"\n", b"To: x\n\nbody\n", b"no end", b"\0\xff\r\n" * 9]
)


def injected(
    pair: Pair, queue: ClassicQueue, is_ours: bool, message: bytes, envelope: bytes
) -> tuple[int, list[tuple[str, str, int, bytes]]]:
    """The exit code and, where it is 0, what is queued; nothing of it stays."""
    run, name = (pair.ours, "qmail_queue") if is_ours else (pair.theirs, "qmail-queue")
    ran = run(name, [], stdin=message, envelope=envelope, uid=0)
    assert (ran.out, ran.err) == (envelope, b"")
    found = queue.entries()
    for name in found:
        (queue.path / name).unlink()
    # What a refused message leaves behind differs on purpose.
    if ran.code:
        return ran.code, []
    [messid] = (entry.inode for name, entry in found.items() if name[:4] == "mess")
    names = {
        place("mess", MessId(messid)): "mess",
        f"intd/{messid}": "intd",
        f"todo/{messid}": "todo",
    }
    return 0, sorted((names[name], *described(entry)) for name, entry in found.items())


def described(entry: Entry) -> tuple[str, int, bytes]:
    """Owner, mode and content, without the number of the process and the time.

    The group is the caller's by notqmail, as its qmail-queue is setuid alone.
    """
    content = re.sub(rb"\A" + RECEIVED, b"RECEIVED\n", entry.content)
    content = re.sub(rb"\Au0\0p\d+\0", b"u0\0pPID\0", content)
    return entry.owner, entry.mode, content


@settings(GENERATED, max_examples=CASES)
@given(message=messages, envelope=envelopes)
def test_exit_codes_and_queue_files_are_the_same(
    pair: Pair, idle: Tree, message: bytes, envelope: bytes
) -> None:
    queue = ClassicQueue(idle)
    theirs, ours = (
        injected(pair, queue, side, message, envelope) for side in (False, True)
    )
    assert ours == theirs
