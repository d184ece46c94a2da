"""control/magicforwarding: what is sent on, and why it cannot loop."""

from __future__ import annotations

import pytest

from qsend.core.model import Account, Channel
from tests.sqlworld import World, trouble_of, user_of

ROW = ("forward", "ann@far.example", "user", "v.example")
LOCAL = "forward-ann@far.example"


@pytest.fixture
def magic(world: World) -> World:
    world.control(magicforwarding=True)
    return world


def forwards(world: World, local: str = LOCAL) -> bytes | None:
    return user_of(world.user(local)).instructions


def test_off_unless_configured(world: World) -> None:
    world.insert("virtual", ROW)
    assert forwards(world) is None
    assert user_of(world.user(LOCAL)).name == b"alias"


def test_delivery_is_local_so_that_delivered_to_is_written(magic: World) -> None:
    magic.insert("virtual", ROW)
    stored = b"forward-ann@far.example@v.example"
    assert magic.route("user@v.example") == (Channel.LOCAL, stored)
    assert forwards(magic) == b"&ann@far.example\n"


def test_only_what_a_row_names_is_sent_on(magic: World) -> None:
    magic.insert("virtual", ROW)
    for other in ("forward-bob@far.example", "forward-ann@far.example ", "forward-x"):
        assert forwards(magic, other) is None
    assert forwards(magic, "forward-ANN@far.example") is None


def test_several_rows_send_to_one_target(magic: World) -> None:
    magic.insert("virtual", ROW, ("forward", ROW[1], "other", "v.example"))
    assert forwards(magic) == b"&ann@far.example\n"


def test_row_that_forwards_to_itself_defers(magic: World) -> None:
    magic.insert("virtual", ("forward", "User@v.example", "user", "v.example"))
    text = trouble_of(magic.locality("user@v.example"))
    assert text.startswith("MySQL misconfiguration: ")
    assert text.endswith("forwards to itself")


def test_catchall_that_would_take_its_own_target_defers(magic: World) -> None:
    magic.insert("virtual", ("forward", "ann@v.example", "", "v.example"))
    stored = b"forward-ann@v.example@v.example"
    assert magic.route("user@v.example") == (Channel.LOCAL, stored)
    text = trouble_of(magic.user("forward-ann@v.example"))
    assert text == (
        "MySQL misconfiguration: forward to 'ann@v.example', which is forwarded again"
    )


def test_explicit_row_for_the_target_ends_the_way(magic: World) -> None:
    magic.insert(
        "virtual",
        ("forward", "ann@v.example", "", "v.example"),
        ("ann", "", "ann", "v.example"),
    )
    assert forwards(magic, "forward-ann@v.example") == b"&ann@v.example\n"


def test_two_rows_that_forward_to_each_other_defer(magic: World) -> None:
    magic.insert(
        "virtual",
        ("forward", "b@two.example", "a", "one.example"),
        ("forward", "a@one.example", "b", "two.example"),
    )
    assert "forwarded again" in trouble_of(magic.user("forward-b@two.example"))
    assert "forwarded again" in trouble_of(magic.user("forward-a@one.example"))


def test_way_back_over_envnoathost_defers(magic: World) -> None:
    magic.control(locals=frozenset({b"here.example"}), envnoathost=b"v.example")
    magic.insert("virtual", ("forward", "ann@here.example", "", "v.example"))
    local = "forward-ann@here.example"
    assert "forwarded again" in trouble_of(magic.user(local))
    magic.passwd[b"ann"] = Account(uid=1001, gid=1001)
    assert forwards(magic, local) == b"&ann@here.example\n"
    magic.passwd.clear()
    magic.mailbox("ann")
    assert forwards(magic, local) == b"&ann@here.example\n"


def test_way_back_by_a_pattern_defers(magic: World) -> None:
    magic.control(patterns=True)
    magic.insert("virtual", ("forward", "ann@v.example", "%n%", "v.example"))
    assert "forwarded again" in trouble_of(magic.user("forward-ann@v.example"))


@pytest.mark.parametrize("ext", ["", "@", "nobody", "ann@", "@far.example"])
def test_forward_row_without_an_address_defers(magic: World, ext: str) -> None:
    magic.insert("virtual", ("forward", ext, "user", "v.example"))
    text = trouble_of(magic.locality("user@v.example"))
    assert text.startswith("MySQL misconfiguration: virtual row forward: ext ")
