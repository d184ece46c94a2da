"""Hosts of a domain, against a real name server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.mx import MX_MAX
from qsend.sysio.dns import Dns, has_route
from tests.dnsresponder import run
from tests.dnsserver import DnsServer

OWN = frozenset({"127.0.0.1", "0.0.0.0", "::"})


def find(
    server: DnsServer, domain: bytes, own: frozenset[str] = OWN, loop: str = "asyncio"
) -> list[tuple[str, int]]:
    async def main() -> list[tuple[str, int]]:
        finder = Dns((server.resolver,), chance=iter(range(10**6)).__next__)
        try:
            hosts = await finder.hosts(domain, own)
        finally:
            await finder.close()
        return [(host.address, host.preference) for host in hosts]

    return run(main(), loop)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("domain", "want"),
    [
        (b"one.example", [("127.0.0.2", 10)]),
        (b"ONE.Example.", [("127.0.0.2", 10)]),
        (b"two.example", [("127.0.0.2", 10), ("127.0.0.3", 20), ("127.0.0.33", 20)]),
        (b"alias2.example", [("127.0.0.2", 10), ("127.0.0.3", 20), ("127.0.0.33", 20)]),
        (b"threeme.example", [("127.0.0.2", 10)]),
        (b"plain.example", [("127.0.0.5", 0)]),
        (b"hostalias.example", [("127.0.0.5", 0)]),
        (b"mxalias.example", [("127.0.0.5", 10)]),
        (b"notnull.example", [("127.0.0.2", 10)]),
        (b"v6.example", [("::1", 10)]),
        (b"v46.example", [("127.0.0.4", 10), ("::1", 10)]),
        (b"mapped.example", [("127.0.0.9", 0)]),
        (b"partial.example", [("127.0.0.2", 20)]),
        (b"softpart.example", [("127.0.0.2", 20)]),
        (b"numeric.example", [("127.0.0.7", 10)]),
        (b"127.0.0.8", [("127.0.0.8", 0)]),
        (b"[127.0.0.8]", [("127.0.0.8", 0)]),
        (b"[IPv6:::1]", [("::1", 0)]),
    ],
)
def test_hosts_of_a_domain(
    dns_server: DnsServer, domain: bytes, want: list[tuple[str, int]], loop: str
) -> None:
    found = find(dns_server, domain, loop=loop)
    assert sorted(found, key=lambda host: host[1]) == found
    assert sorted(found) == sorted(want)


def test_hosts_put_ipv4_before_ipv6(dns_server: DnsServer) -> None:
    assert find(dns_server, b"v46.example") == [("127.0.0.4", 10), ("::1", 10)]


def test_hosts_of_equal_preference_follow_chance(dns_server: DnsServer) -> None:
    async def first(chance: Callable[[], float]) -> str:
        finder = Dns((dns_server.resolver,), chance=chance)
        hosts = await finder.hosts(b"equal.example")
        assert {host.preference for host in hosts} == {10}
        assert len(hosts) == 3
        return hosts[0].name.decode()

    up = run(first(iter((1, 2)).__next__))
    down = run(first(iter((2, 1)).__next__))
    assert {up, down} == {"mx2.example", "mx3.example"}


@pytest.mark.parametrize(
    ("domain", "error", "code"),
    [
        (b"me.example", PermFail, "#5.4.6"),
        (b"127.0.0.1", PermFail, "#5.4.6"),
        (b"[0.0.0.0]", PermFail, "#5.4.6"),
        (b"[IPv6:::ffff:127.0.0.1]", PermFail, "#5.4.6"),
        (b"localhost", PermFail, "#5.4.6"),
        (b"null.example", PermFail, "#5.1.10"),
        (b"missing.example", PermFail, "#5.4.4"),
        (b"nxdomain.example", PermFail, "#5.1.2"),
        (b"nodata.example", PermFail, "#5.1.2"),
        (b"dangling.example", PermFail, "#5.1.2"),
        (b"outside.example", PermFail, "#5.1.2"),
        (b"", PermFail, "#5.1.2"),
        (b".", PermFail, "#5.1.2"),
        (b"a..b", PermFail, "#5.1.2"),
        (b"x" * 64 + b".example", PermFail, "#5.1.2"),
        (b"x." * 200, PermFail, "#5.1.2"),
        (b"b\xc3\xa9 \n.example", PermFail, "#5.1.2"),
        (b"softmx.example", TempFail, "#4.1.2"),
        (b"broken.example", TempFail, "#4.1.2"),
        (b"not.served.invalid", TempFail, "#4.1.2"),
        (b"loop1.example", TempFail, "#4.1.2"),
    ],
)
def test_hosts_that_cannot_be_found(
    dns_server: DnsServer, domain: bytes, error: type[QsendError], code: str
) -> None:
    with pytest.raises(error) as caught:
        find(dns_server, domain)
    text = str(caught.value)
    assert text.endswith(f"({code})")
    assert all(33 <= ord(char) <= 126 or char == " " for char in text)


def test_hosts_without_ipv6_route(dns_server: DnsServer) -> None:
    async def look(domain: bytes) -> list[str]:
        finder = Dns(
            (dns_server.resolver,), reachable=lambda address: ":" not in address
        )
        return [host.address for host in await finder.hosts(domain)]

    assert run(look(b"v46.example")) == ["127.0.0.4"]
    with pytest.raises(TempFail, match=r"\(#4\.4\.1\)$"):
        run(look(b"onlyfar6.example"))


def test_has_route_knows_loopback_and_refuses_the_unroutable() -> None:
    assert has_route("127.0.0.1")
    assert has_route("::1")
    assert not has_route("fe80::1")  # link-local without a scope goes nowhere


def test_truncated_answer_comes_over_tcp_and_is_bounded(dns_server: DnsServer) -> None:
    found = find(dns_server, b"many.example")
    assert found == [(f"127.0.1.{n}", n) for n in range(1, MX_MAX + 1)]


@pytest.mark.parametrize(
    ("relay", "want"),
    [
        (b"mx3.example", {"127.0.0.3", "127.0.0.33"}),
        (b"mx1.example", {"127.0.0.1"}),
        (b"127.0.0.1", {"127.0.0.1"}),
        (b"[127.0.0.1]", {"127.0.0.1"}),
        (b"::1", {"::1"}),
        (b"[IPv6:::1]", {"::1"}),
        (b"localhost", {"127.0.0.1", "::1"}),
    ],
)
def test_relay_hosts_have_no_mx(
    dns_server: DnsServer, relay: bytes, want: set[str]
) -> None:
    async def look() -> set[str]:
        hosts = await Dns((dns_server.resolver,)).relay_hosts(relay)
        assert {host.preference for host in hosts} == {0}
        return {host.address for host in hosts}

    assert run(look()) == want


@pytest.mark.parametrize(
    ("relay", "error", "code"),
    [
        (b"one.example", PermFail, "#5.1.2"),
        (b"nowhere.example", PermFail, "#5.1.2"),
        (b"host.broken.example", TempFail, "#4.1.2"),
    ],
)
def test_relay_that_cannot_be_found(
    dns_server: DnsServer, relay: bytes, error: type[QsendError], code: str
) -> None:
    with pytest.raises(error, match=code):
        run(Dns((dns_server.resolver,)).relay_hosts(relay))


def test_many_questions_wait_for_their_turn(dns_server: DnsServer) -> None:
    async def main() -> int:
        finder = Dns((dns_server.resolver,))
        results = await asyncio.gather(
            *(finder.hosts(b"n%d.example" % n) for n in range(600)),
            return_exceptions=True,
        )
        return sum(isinstance(result, PermFail) for result in results)

    assert run(main(), "uvloop") == 600


IN_EMPTY_ROOT = """
import os, sys, uvloop, asyncio
from qsend.core.errors import QsendError
from qsend.formats.control import Resolver
from qsend.sysio.dns import Dns

dns = Dns((Resolver(host="127.0.0.1", port=int(sys.argv[1])),))
os.chroot(sys.argv[2])
os.chdir("/")
os.setresuid(65534, 65534, 65534)
loaded = set(sys.modules)

async def main():
    for name in sys.argv[3:]:
        try:
            hosts = await dns.hosts(name.encode())
            print(name, *(host.address for host in hosts))
        except QsendError as exc:
            print(name, str(exc)[-8:])
    await dns.close()

uvloop.run(main())
print(sorted(set(sys.modules) - loaded))
"""


@pytest.mark.root
def test_nothing_is_loaded_once_privilege_is_gone(
    dns_server: DnsServer, tmp_path: Path
) -> None:
    domains = ("two", "v6", "alias2", "many", "nowhere", "nodata", "softmx", "loop1")
    names = [f"{domain}.example" for domain in domains]
    script = [sys.executable, "-c", IN_EMPTY_ROOT]
    out = subprocess.run(
        [*script, str(dns_server.port), str(tmp_path), *names],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ).stdout.splitlines()
    assert out[-1] == "[]"
    assert out[0] == "two.example 127.0.0.2 127.0.0.3 127.0.0.33"
    assert out[1] == "v6.example ::1"
    assert out[3].startswith("many.example 127.0.1.1 127.0.1.2 ")
    assert [line[-8:] for line in out[4:8]] == [
        "(#5.1.2)",
        "(#5.1.2)",
        "(#4.1.2)",
        "(#4.1.2)",
    ]
