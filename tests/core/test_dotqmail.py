from __future__ import annotations

import pytest

from qsend.core.dotqmail import (
    Effect,
    Forward,
    Instruction,
    Maildir,
    Mbox,
    Owner,
    Program,
    Refusal,
    base_name,
    candidates,
    effect,
    new_sender,
    parse,
)

CANDIDATES: list[tuple[bytes, bytes, list[tuple[bytes, bytes | None]]]] = [
    (b"", b"", [(b".qmail", None), (b".qmaildefault", b"")]),
    (
        b"-",
        b"a-b-c",
        [
            (b".qmail-a-b-c", None),
            (b".qmail-a-b-default", b"c"),
            (b".qmail-a-default", b"b-c"),
            (b".qmail-default", b"a-b-c"),
        ],
    ),
    (
        b"-",
        b"a-",
        [
            (b".qmail-a-", None),
            (b".qmail-a-default", b""),
            (b".qmail-default", b"a-"),
        ],
    ),
    (
        b"-",
        b"A.B-C",
        [
            (b".qmail-a:b-c", None),
            (b".qmail-a:b-default", b"C"),
            (b".qmail-default", b"A.B-C"),
        ],
    ),
    (
        b"-",
        b"List-Default",
        [
            (b".qmail-list-default", b"Default"),
            (b".qmail-list-default", b"Default"),
            (b".qmail-default", b"List-Default"),
        ],
    ),
    (
        b"-",
        b"mydefault",
        [(b".qmail-mydefault", b"default"), (b".qmail-default", b"mydefault")],
    ),
    (b"-", b"../x", [(b".qmail-:::x", None), (b".qmail-default", b"../x")]),
    (b"-", b"a/b", [(b".qmail-a:b", None), (b".qmail-default", b"a/b")]),
    (b"-/", b"x/y", [(b".qmail-/x/y", None), (b".qmail-/default", b"x/y")]),
    (b"-/", b"../../z", [(b".qmail-/::/::/z", None), (b".qmail-/default", b"../../z")]),
    (b"-", b"\xc4", [(b".qmail-\xc4", None), (b".qmail-default", b"\xc4")]),
]  # fmt: skip


@pytest.mark.parametrize(("dash", "ext", "want"), CANDIDATES)
def test_candidates_are_tried_longest_first(
    dash: bytes, ext: bytes, want: list[tuple[bytes, bytes | None]]
) -> None:
    assert [(c.name, c.default) for c in candidates(dash, ext)] == want
    assert base_name(dash, ext) == want[0][0]


@pytest.mark.parametrize("dash", [b"", b"-", b"-/", b"-list/"])
@pytest.mark.parametrize("ext", [b"..", b"../..", b"a/../b", b"/etc/passwd", b"."])
def test_candidates_never_leave_the_home(dash: bytes, ext: bytes) -> None:
    for candidate in candidates(dash, ext):
        assert candidate.name.startswith(b".qmail")
        assert b".." not in candidate.name


NO_FILE = Refusal("Uh-oh: .qmail has file delivery but has x bit set. (#4.7.0)")
NO_PROGRAM = Refusal("Uh-oh: .qmail has prog delivery but has x bit set. (#4.7.0)")
BLANK = Refusal("Uh-oh: first line of .qmail file is blank. (#4.2.1)")
NUL = Refusal("The .qmail file has a line with a NUL byte. (#4.2.1)")

PARSED: list[tuple[bytes, bool, list[Instruction]]] = [
    (b"./Maildir/\n", False, [Maildir(b"./Maildir/")]),
    (b"./Mailbox", False, [Mbox(b"./Mailbox")]),
    (b"/var/mail/x\n", False, [Mbox(b"/var/mail/x")]),
    (b"/\n", False, [Maildir(b"/")]),
    (b"#c\n|cat \t\n", False, [Program(b"cat")]),
    (b"| cat\n", False, [Program(b" cat")]),
    (b"&a@b\n", False, [Forward(b"a@b")]),
    (b"a@b \n", False, [Forward(b"a@b")]),
    (b"& a@b\n", False, [Forward(b" a@b")]),
    (b"&\n", False, [Forward(b"")]),
    (b"\n", False, [BLANK]),
    (b"", False, [BLANK]),
    (b" \t\n./M\n", False, [BLANK]),
    (b"#\n\n\n./M\n", False, [Mbox(b"./M")]),
    (b"+list\na@b\n./M\nc@d\n", False, [Forward(b"a@b"), NO_FILE]),
    (b"./M\n+list\na@b\n", False, [Mbox(b"./M"), Forward(b"a@b")]),
    (b"+list \n|x\n", False, [NO_PROGRAM]),
    (b"+lists\n+\n+List\n|x\n", False, [Program(b"x")]),
    (b"a@b\n./M\n", True, [Forward(b"a@b"), NO_FILE]),
    (b"|x\n", True, [NO_PROGRAM]),
    (b"./M/\n", True, [NO_FILE]),
    (b"a@b\n|echo \0x\n", False, [Forward(b"a@b"), NUL]),
    (b"#a\0b\nx@y\n", False, [Forward(b"x@y")]),
    (b"a@b\r\n", False, [Forward(b"a@b\r")]),
]


@pytest.mark.parametrize(("content", "forward_only", "want"), PARSED)
def test_parse_each_kind_of_line(
    content: bytes, forward_only: bool, want: list[Instruction]
) -> None:
    assert list(parse(content, forward_only=forward_only)) == want


SENDERS = [
    (b"s@t", Owner.NONE, b"s@t"),
    (b"s@t", Owner.PLAIN, b"list-owner@h"),
    (b"s@t", Owner.VERP, b"list-owner-@h-@[]"),
    (b"", Owner.VERP, b""),
    (b"#@[]", Owner.PLAIN, b"#@[]"),
]


@pytest.mark.parametrize(("sender", "owner", "want"), SENDERS)
def test_new_sender_follows_the_owner_files(
    sender: bytes, owner: Owner, want: bytes
) -> None:
    assert new_sender(sender, b"list", b"h", owner) == want


def test_effect_of_every_exit_code() -> None:
    failures = {64, 65, 70, 76, 77, 78, 100, 112}
    for code in range(256):
        want = Effect.DEFERRAL
        if code == 0:
            want = Effect.NEXT
        elif code == 99:
            want = Effect.STOP
        elif code in failures:
            want = Effect.FAILURE
        assert effect(code) is want, code
