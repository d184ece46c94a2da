"""The messages of the benchmarks: numbered, and of a given size."""

from __future__ import annotations

from dataclasses import dataclass

SENDER = b"bench@sender.example"
NUMBER = b"X-Bench: "
_LINE = b"x" * 62 + b"\n"
_DATE = b"Thu, 01 Jan 2026 00:00:00 +0000"


@dataclass(frozen=True, slots=True)
class Letter:
    """One message: its number in this run, who shall get it, its size in bytes."""

    number: int
    recips: tuple[bytes, ...]
    size: int = 2048

    def content(self) -> bytes:
        """Headers, with all that a system might otherwise add, and lines; LF only."""
        head = (
            b"From: <%b>\nTo: recipients:;\nSubject: bench\nDate: %b\n"
            b"Message-ID: <%d@sender.example>\n%b%d\n\n"
            % (SENDER, _DATE, self.number, NUMBER, self.number)
        )
        room = max(self.size - len(head), 0)
        return (
            head
            + _LINE * (room // len(_LINE))
            + _LINE[len(_LINE) - room % len(_LINE) :]
        )


def number_of(content: bytes) -> int:
    """The number in the header of a delivered message; -1 without."""
    at = content.find(b"\n" + NUMBER)
    if at < 0:
        return -1
    begin = at + 1 + len(NUMBER)
    return int(content[begin : content.index(b"\n", begin)])


def one_each(
    count: int, form: bytes, *, domains: int = 1, size: int = 2048
) -> list[Letter]:
    """`count` messages with one recipient each.

    Args:
        form: an address with `%d` for the message's number, and another `%d` for the
            number of its domain when there are several `domains`.
    """
    if domains == 1:
        return [Letter(n, (form % n,), size) for n in range(count)]
    return [Letter(n, (form % (n, n % domains),), size) for n in range(count)]
