"""The light dataclass and enumerations do what the originals do."""

from __future__ import annotations

import dataclasses
import enum

import pytest

from qsend.core import light


@light.dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    x: int
    y: tuple[int, ...] = ()

    def both(self) -> tuple[int, ...]:
        return (self.x, *self.y)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    x: int
    y: tuple[int, ...] = ()

    def both(self) -> tuple[int, ...]:
        return (self.x, *self.y)


@pytest.mark.parametrize("kind", [Light, Original])
def test_value_has_fields_and_cannot_change(
    kind: type[Light] | type[Original],
) -> None:
    value = kind(x=1, y=(2,))
    assert (value.x, value.y, value.both()) == (1, (2,), (1, 2))
    assert kind(x=1).y == ()
    assert value == kind(y=(2,), x=1)
    assert value != kind(x=1)
    other: object = (1, (2,))
    assert value != other
    assert len({value, kind(x=1, y=(2,)), kind(x=2)}) == 2
    assert repr(value) == f"{kind.__name__}(x=1, y=(2,))"
    assert not hasattr(value, "__dict__")
    with pytest.raises(AttributeError):
        value.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del value.x
    with pytest.raises(TypeError):
        kind()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        kind(x=1, z=2)  # type: ignore[call-arg]


class LightKind(light.Enum):
    A = "a"
    B = "b"


class OriginalKind(enum.Enum):
    A = "a"
    B = "b"


@pytest.mark.parametrize("kind", [LightKind, OriginalKind])
def test_enumeration_lists_its_members(
    kind: type[LightKind] | type[OriginalKind],
) -> None:
    assert kind("a") is kind.A
    assert [each.name for each in kind] == ["A", "B"]
    assert (kind.B.value, kind.A == kind.B) == ("b", False)
    assert repr(kind.A) == f"<{kind.__name__}.A: 'a'>"
    assert {kind.A: 1}[kind.A] == 1
    with pytest.raises(ValueError, match="'c' is not a valid"):
        kind("c")


class LightNumber(light.IntEnum):
    ONE = 1
    TWO = 2


class OriginalNumber(enum.IntEnum):
    ONE = 1
    TWO = 2


@pytest.mark.parametrize("kind", [LightNumber, OriginalNumber])
def test_numbers_are_integers(
    kind: type[LightNumber] | type[OriginalNumber],
) -> None:
    assert kind(2) is kind.TWO
    assert (kind.ONE + 1, kind.TWO == 2, f"{kind.TWO}") == (2, True, "2")
    assert sorted(kind) == [1, 2]
    assert {2: "x"}[kind.TWO] == "x"
    with pytest.raises(ValueError, match="3 is not a valid"):
        kind(3)


def test_other_options_are_refused() -> None:
    with pytest.raises(TypeError):
        light.dataclass(frozen=False, slots=True, kw_only=True)
