from __future__ import annotations

import pytest

from qsend.core.model import Channel
from qsend.core.rewrite import Rules, rewrite, strip_prepend

L, R = Channel.LOCAL, Channel.REMOTE
RULES = Rules(
    envnoathost=b"here.example",
    locals=frozenset({b"here.example", b"both.example"}),
    percenthack=frozenset({b"hack.example", b"b"}),
    virtualdomains={
        b"boss@v.dom": b"alias-x",
        b"v.dom": b"joe-v",
        b".dom": b"",
        b"both.example": b"never",
        b".sub.tail": b"deep",
        b".tail": b"flat",
        b"": b"alias-rest",
    },
)


@pytest.mark.parametrize(
    ("recip", "want"),
    [
        (b"boss@v.dom", (L, b"alias-x-boss@v.dom")),
        (b"BOSS@V.dom", (L, b"alias-x-BOSS@V.dom")),
        (b"a@v.dom", (L, b"joe-v-a@v.dom")),
        (b"a@w.dom", (R, b"a@w.dom")),
        (b"a@z.org", (L, b"alias-rest-a@z.org")),
        (b"a@both.example", (L, b"a@both.example")),
        (b"a@HERE.example", (L, b"a@HERE.example")),
        (b"bare", (L, b"bare@here.example")),
        (b"", (L, b"@here.example")),
        (b"a%here.example@hack.example", (L, b"a@here.example")),
        (b"a%w.dom%b@hack.example", (R, b"a@w.dom")),
        (b"a%b@elsewhere.dom", (R, b"a%b@elsewhere.dom")),
        (b"a@hack.example", (L, b"alias-rest-a@hack.example")),
        (b"x@y.sub.tail", (L, b"deep-x@y.sub.tail")),
        (b"x@sub.tail", (L, b"flat-x@sub.tail")),
        (b"a@b@here.example", (L, b"a@b@here.example")),
    ],
)
def test_recipient_goes_where_the_controls_say(
    recip: bytes, want: tuple[Channel, bytes]
) -> None:
    assert rewrite(recip, RULES) == want


def test_without_controls_everything_is_remote() -> None:
    assert rewrite(b"a@b", Rules(envnoathost=b"h")) == (R, b"a@b")


@pytest.mark.parametrize(
    ("recip", "want"),
    [
        (b"joe-v-a@v.dom", b"a@v.dom"),
        (b"alias-x-boss@v.dom", b"alias-x-boss@v.dom"),
        (b"a@w.dom", b"a@w.dom"),
        (b"alias-rest-a@z.org", b"a@z.org"),
        (b"other-a@z.org", b"other-a@z.org"),
    ],
)
def test_bounce_shows_the_address_without_the_domains_prefix(
    recip: bytes, want: bytes
) -> None:
    assert strip_prepend(recip, RULES.virtualdomains) == want
