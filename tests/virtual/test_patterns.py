"""control/sqlpatterns: LIKE patterns in virtual_username."""

from __future__ import annotations

import pytest

from qsend.core.sqllocality import Unlisted
from tests.sqlworld import World


@pytest.fixture
def patterned(world: World) -> World:
    world.control(patterns=True)
    return world


def stored(world: World, address: str) -> object:
    place = world.route(address)
    return place[1] if isinstance(place, tuple) else place


def test_patterns_are_off_unless_configured(world: World) -> None:
    world.insert("virtual", ("one", "", "sales-%", "v.example"))
    assert stored(world, "sales-x@v.example") == Unlisted()
    assert stored(world, "sales-%@v.example") == b"one@v.example"


def test_order_is_exact_pattern_blank(patterned: World) -> None:
    patterned.insert(
        "virtual",
        ("blank", "", "", "v.example"),
        ("pattern", "", "sales-%", "v.example"),
        ("exact", "", "sales-west", "v.example"),
    )
    assert stored(patterned, "sales-west@v.example") == b"exact@v.example"
    assert stored(patterned, "sales-east@v.example") == b"pattern@v.example"
    assert stored(patterned, "other@v.example") == b"blank@v.example"


def test_pattern_with_most_plain_characters_wins(patterned: World) -> None:
    patterned.insert(
        "virtual",
        ("all", "", "%", "v.example"),
        ("short", "", "s%", "v.example"),
        ("long", "", "sales-_", "v.example"),
    )
    assert stored(patterned, "sales-x@v.example") == b"long@v.example"
    assert stored(patterned, "support@v.example") == b"short@v.example"
    assert stored(patterned, "joe@v.example") == b"all@v.example"


def test_patterns_of_other_hosts_do_not_match(patterned: World) -> None:
    patterned.insert("virtual", ("all", "", "%", "v.example"))
    patterned.insert("virtual", ("one", "", "x", "w.example"))
    assert stored(patterned, "joe@w.example") == Unlisted()


def test_ext_at_sign_appends_what_the_pattern_matched(patterned: World) -> None:
    patterned.insert("virtual", ("one", "@", "%", "v.example"))
    assert stored(patterned, "any@v.example") == b"one-any@v.example"


@pytest.mark.parametrize("local", ["50%", "a_b", "back\\slash", "\xff"])
def test_wildcards_in_an_address_mean_themselves(patterned: World, local: str) -> None:
    patterned.insert("virtual", ("one", "", "axb", "v.example"))
    assert stored(patterned, f"{local}@v.example") == Unlisted()
