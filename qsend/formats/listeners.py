"""Lines of control files that name addresses to listen at.

`address:port WORD ...`, as `0.0.0.0:25`, `[::]:465 tls submission`.
Source: qmail-control(5).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigFault
from qsend.core.mx import canonical
from qsend.formats.controllines import lines

CERTIFICATE = "servercert.pem"
"""Certificate, chain and private key of this machine, for all its listeners."""
LISTENERS_MAX = 64
TLS = "tls"
"""The word for TLS from the first byte on."""
_LINE = re.compile(r"\s*(?:\[([^]\s]+)\]|([^:\s]+)):([0-9]{1,5})((?:\s+\S+)*)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An address to listen at, and the words behind it."""

    address: str
    port: int
    words: frozenset[str] = frozenset()

    @property
    def is_tls(self) -> bool:
        """Whether TLS begins with the first byte."""
        return TLS in self.words

    def __str__(self) -> str:
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return f"{shown}:{self.port}"


def parse_listeners(
    name: str, content: bytes, words: Collection[str], faults: list[ConfigFault]
) -> tuple[Listener, ...]:
    """The listeners of control file `name`, in order; what is wrong goes to `faults`.

    Args:
        words: those that may follow an address.
    """
    found: dict[str, Listener] = {}
    for number, line in lines(content):
        listener = _listener(line.decode("latin-1"), words)
        if listener is None:
            several = "".join(f" [{word}]" for word in words)
            problem = f"expected address:port{several}"
        elif str(listener) in found:
            problem = "is there twice"
        else:
            found[str(listener)] = listener
            continue
        faults.append(_fault(name, number, problem))
    if len(found) > LISTENERS_MAX:
        faults.append(_fault(name, 0, f"more than {LISTENERS_MAX} lines"))
    return tuple(found.values())


def check_certificate(
    files: Mapping[str, bytes],
    name: str,
    listeners: Iterable[Listener],
    faults: list[ConfigFault],
) -> None:
    """Add to `faults` what can be seen to be wrong with the certificate.

    Whether it can be used is found out by who loads it.

    Args:
        files: the snapshot of the control files.
        name: the file that `listeners` stand in.
    """
    content = files.get(CERTIFICATE)
    if content is None:
        if any(each.is_tls for each in listeners):
            faults.append(_fault(name, 0, f"says tls, but there is no {CERTIFICATE}"))
        return
    faults += [
        _fault(CERTIFICATE, 0, f"has no {part.decode()}")
        for part in (b"CERTIFICATE", b"PRIVATE KEY")
        if not re.search(b"(?m)^-----BEGIN ([A-Z]+ )*%b-----" % part, content)
    ]


def _listener(line: str, words: Collection[str]) -> Listener | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    bracketed, plain, port, rest = match.groups()
    said = rest.split()
    if not 0 < int(port) < 65536 or not set(said) <= set(words):
        return None
    try:
        address = canonical(bracketed or plain)
    except ValueError:
        return None
    return Listener(address=address, port=int(port), words=frozenset(said))


def _fault(name: str, line: int, problem: str) -> ConfigFault:
    return ConfigFault(file=f"control/{name}", line=line, problem=problem)
