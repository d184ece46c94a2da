"""Values and choices for programs that live as long as one message.

Loading `dataclasses` takes longer than Python's own start, `enum` and `typing` half
of it. What qmail-queue and sendmail load has these instead; a type checker sees the
originals. TYPE_CHECKING is typing's, and guards imports that only types need.

    >>> @dataclass(frozen=True, slots=True, kw_only=True)
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(x=1)
    Point(x=1, y=0)
    >>> class Color(Enum):
    ...     RED = "r"
    >>> Color("r") is Color.RED
    True

Source: the manual of Python, dataclasses and enum; docs/PERFORMANCE.md, programs.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from dataclasses import dataclass as dataclass
    from enum import Enum as Enum
    from enum import IntEnum as IntEnum
    from typing import Any
else:

    def dataclass(
        *, frozen: bool, slots: bool, kw_only: bool
    ) -> Callable[[type], type]:
        """A decorator as the original with all three options true, and no others.

        Without fields of base classes, default factories and dataclasses.replace.
        """
        if not (frozen and slots and kw_only):
            raise TypeError("only frozen, slotted, keyword-only dataclasses")
        return _made

    class _Choices(type):
        """The type of enumerations, which can be walked and called with a value."""

        def __new__(
            cls, name: str, bases: tuple[type, ...], body: dict[str, Any]
        ) -> _Choices:
            values = {
                key: value
                for key, value in body.items()
                if key[0] != "_" and not hasattr(value, "__get__")
            }
            made = super().__new__(cls, name, bases, body)
            made._by_value = {}
            for key, value in values.items():
                member = made._by_value.get(value)  # a second name of the same
                if member is None:
                    member = made._make(value)
                    member.name, member.value = key, value
                    made._by_value[value] = member
                setattr(made, key, member)
            return made

        def __call__(cls, value: Any) -> Any:
            try:
                return cls._by_value[value]
            except KeyError:
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __iter__(cls) -> Iterator[Any]:
            return iter(cls._by_value.values())

    class Enum(metaclass=_Choices):
        """One of the values that the class lists."""

        @classmethod
        def _make(cls, _value: object) -> Enum:
            return object.__new__(cls)

        def __repr__(self) -> str:
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    class IntEnum(int, metaclass=_Choices):
        """An integer that has a name."""

        @classmethod
        def _make(cls, value: int) -> IntEnum:
            return int.__new__(cls, value)


def _made(cls: type) -> type:
    """The class again, with slots and the methods of a dataclass."""
    names = tuple(cls.__annotations__)
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    put = object.__setattr__

    def init(self: object, **values: object) -> None:
        if len(values) != len(names) or values.keys() != known:
            values = {**defaults, **values}
            if values.keys() != known:
                wrong = ", ".join(sorted(values.keys() ^ known))
                raise TypeError(f"{cls.__name__}: missing or unknown: {wrong}")
        for name in names:
            put(self, name, values[name])

    def content(self: object) -> tuple[object, ...]:
        return tuple([getattr(self, name) for name in names])

    def equal(self: object, other: object) -> object:
        if type(other) is not type(self):
            return NotImplemented
        return content(self) == content(other)

    def show(self: object) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{cls.__qualname__}({', '.join(shown)})"

    def refuse(self: object, name: str, *_value: object) -> None:
        raise AttributeError(f"{cls.__name__}.{name} cannot be changed")

    known = set(names)
    gone = {*names, "__dict__", "__weakref__"}
    body = {name: value for name, value in vars(cls).items() if name not in gone}
    methods = {
        "__init__": init,
        "__eq__": equal,
        "__hash__": lambda self: hash(content(self)),
        "__repr__": show,
        "__setattr__": refuse,
        "__delattr__": refuse,
    }
    return type(cls)(
        cls.__name__, cls.__bases__, {**methods, **body, "__slots__": names}
    )
