"""Messages that are lost, doubled or foreign are found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.errors import BenchError
from bench.exactly import Tally, require, tally
from bench.letters import Letter, number_of, one_each

SENT = [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("arrived", "lost", "doubled", "foreign"),
    [
        ([b"c", b"a", b"b"], [], [], []),
        ([b"a", b"b"], [b"c"], [], []),
        ([b"a", b"b", b"c", b"b"], [], [b"b"], []),
        ([b"a", b"b", b"c", b"d"], [], [], [b"d"]),
        ([b"a", b"a", b"d"], [b"b", b"c"], [b"a"], [b"d"]),
    ],
)
def test_tally(
    arrived: Sequence[bytes],
    lost: Sequence[bytes],
    doubled: Sequence[bytes],
    foreign: Sequence[bytes],
) -> None:
    want = Tally(lost=tuple(lost), doubled=tuple(doubled), foreign=tuple(foreign))
    assert tally(SENT, arrived) == want
    assert want.is_clean == (not (lost or doubled or foreign))


def test_what_was_sent_twice_must_arrive_twice() -> None:
    assert tally([b"a", b"a"], [b"a", b"a"]).is_clean
    assert tally([b"a", b"a"], [b"a"]).lost == (b"a",)


def test_a_complaint_names_some() -> None:
    sent = [b"m%d" % n for n in range(9)]
    with pytest.raises(
        BenchError, match=r"8 lost \(m1 m2 m3 m4 m5 \.\.\.\), 1 foreign"
    ):
        require(sent, [b"m0", b"x"])
    require(sent, reversed(sent))


@pytest.mark.parametrize("size", [300, *range(2048, 2112), 100_000])
def test_a_letter_has_its_size_and_number(size: int) -> None:
    content = Letter(17, (b"a@b",), size).content()
    assert len(content) == size
    assert number_of(content) == 17
    assert content.endswith(b"\n")
    assert max(map(len, content.split(b"\n"))) < 100


def test_letters_take_turns_with_domains() -> None:
    found = one_each(3, b"m%d@d%d.example", domains=2)
    assert [each.recips for each in found] == [
        (b"m0@d0.example",),
        (b"m1@d1.example",),
        (b"m2@d0.example",),
    ]


def test_a_message_without_number() -> None:
    assert number_of(b"Subject: x\n\nbody\n") == -1


def test_what_may_lack_some_may_not_have_others_or_twice() -> None:
    require(SENT, [b"a"], may_lack=True)
    for arrived in ([b"a", b"a"], [b"a", b"d"]):
        with pytest.raises(BenchError, match="not exactly once"):
            require(SENT, arrived, may_lack=True)
