"""users/assign: the lines that users/cdb is made of.

    =local:user:uid:gid:home:dash:ext:     this local part alone
    +prefix:user:uid:gid:home:dash:ext:    every local part that starts so
    .                                      the end

Source: qmail-users(5); qmail-newu.c. As there, any first byte but `+` and `.` means
the same as `=`, and what follows the sixth colon is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.usersdb import WILDCARDS_KEY

FILE = "users/assign"
LINE_MAX = 65536
"""Longest line taken; home, names and extension have file system limits."""
_COLONS = 6


def parse_assign(lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each record of users/cdb, in the order to write them.

    `lines` keep their line ends; those after the final `.` are not asked for. The
    last record has the empty key and lists the bytes that wildcards end in.
    Raises: ConfigError with the line that is wrong, also when the end is missing.
    """
    wildcards = b""
    number = 0
    for number, line in enumerate(lines, start=1):
        if line[:1] == b".":
            yield WILDCARDS_KEY, wildcards
            return
        address, value = _split(number, line)
        yield _key(address), value
        end = address[-1:]
        if address[:1] == b"+" and len(address) > 1 and end not in wildcards:
            wildcards += end
    raise _fault(number + 1, "expected a last line that starts with a dot")


def _split(number: int, line: bytes) -> tuple[bytes, bytes]:
    if len(line) > LINE_MAX:
        raise _fault(number, f"longer than {LINE_MAX} bytes")
    if line[-1:] != b"\n":
        raise _fault(number, "expected a line end, and a last line that is a dot")
    if b"\0" in line:
        raise _fault(number, "expected text, found a NUL byte")
    address, *fields = line.split(b":", _COLONS + 1)
    if not address or len(fields) <= _COLONS:
        raise _fault(number, "expected =local:user:uid:gid:home:dash:ext:")
    return address, b"\0".join(fields[:_COLONS])


def _key(address: bytes) -> bytes:
    local = b"!" + address[1:].lower()
    return local if address[:1] == b"+" else local + b"\0"


def _fault(number: int, problem: str) -> ConfigError:
    return ConfigError([ConfigFault(file=FILE, line=number, problem=problem)])
