"""control/resolvers: addresses of name servers, with a port or without."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.control import parse_controls


def test_resolvers_are_addresses_with_ports() -> None:
    content = b"# ours\n192.0.2.1\n192.0.2.2:5353\n::1\n[2001:DB8::1]:53\n"
    controls = parse_controls({"me": b"m", "resolvers": content})
    assert [(entry.host, entry.port) for entry in controls.resolvers] == [
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("::1", 53),
        ("2001:db8::1", 53),
    ]


@pytest.mark.parametrize(
    "line", [b"ns.example", b"ns.example:53", b":53", b"1.2.3", b"\xff", b"[::1"]
)
def test_resolvers_refuse_names(line: bytes) -> None:
    with pytest.raises(ConfigError, match="control/resolvers:2: expected"):
        parse_controls({"me": b"m", "resolvers": b"127.0.0.1\n" + line + b"\n"})
