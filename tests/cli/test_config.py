"""config and config-fast: the first control files, by the name or by the DNS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.firstcontrols import add_line
from tests.dnsserver import SOA, DnsServer, running_dns
from tests.programs import run_program


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    return tmp_path


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home / "control").iterdir()}


@pytest.mark.parametrize(
    ("name", "default", "plus"),
    [
        ("a.b.c.d", b"b.c.d\n", b"c.d\n"),
        ("b.c", b"b.c\n", b"b.c\n"),
        ("A.b.C", b"b.C\n", b"b.C\n"),
    ],
)
def test_config_fast_writes_the_five_files(
    home: Path, name: str, default: bytes, plus: bytes
) -> None:
    done = run_program("config_fast", name, home=home)
    assert (done.returncode, done.stderr) == (0, b"")
    line = name.encode() + b"\n"
    assert files(home) == {
        "me": line,
        "defaultdomain": default,
        "plusdomain": plus,
        "locals": line,
        "rcpthosts": line,
    }
    for path in (home / "control").iterdir():
        assert path.stat().st_mode & 0o7777 == 0o644
    assert b"Putting %b into control/plusdomain...\n" % plus[:-1] in done.stdout


def test_config_fast_replaces_names_and_adds_to_lists_once(home: Path) -> None:
    (home / "control/me").write_bytes(b"old.example\nwith more\n")
    (home / "control/locals").write_bytes(b"old.example")
    (home / "control/rcpthosts").write_bytes(b"# ours\nMX.example\n")
    for _ in range(2):
        assert run_program("config_fast", "mx.example", home=home).returncode == 0
    assert files(home)["me"] == b"mx.example\n"
    assert files(home)["locals"] == b"old.example\nmx.example\n"
    assert files(home)["rcpthosts"] == b"# ours\nMX.example\n"


@pytest.mark.parametrize(
    "args", [(), ("a.b", "c.d"), ("",), ("nodot",), ("a..b",), ("a/../b.c",), ("ü.ex",)]
)
def test_config_fast_refuses_what_is_no_full_name(
    home: Path, args: tuple[str, ...]
) -> None:
    done = run_program("config_fast", *args, home=home)
    assert (done.returncode, done.stderr.count(b"\n")) == (100, 1)
    assert files(home) == {}


def test_config_fast_without_a_place_is_111(home: Path) -> None:
    done = run_program("config_fast", "a.b", home=home / "none")
    assert done.returncode == 111
    assert done.stderr.startswith(b"config-fast: fatal: unable to write ")


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", b"x\n"),
        (b"a", b"a\nx\n"),
        (b"a\nX\nb\n", b"a\nX\nb\n"),
        (b"xx\n", b"xx\nx\n"),
    ],
)
def test_line_is_added_once(content: bytes, want: bytes) -> None:
    assert add_line(content, b"x") == want


REVERSE = f"""\
{SOA}
1.0.0 300 IN PTR lo.host.example.
5.0.0 300 IN PTR MX.Host.Example.
6.0.0 300 IN PTR a/b.example.
"""
FORWARD = f"""\
{SOA}
mx    300 IN A    127.0.0.5
mx    300 IN AAAA 2001:db8::1
odd   300 IN A    127.0.0.6
bare  300 IN A    127.0.0.7
"""


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    zones = {"host.example": FORWARD, "127.in-addr.arpa": REVERSE}
    with running_dns(zones) as found:
        yield found


def called(name: str) -> str:
    """Python that makes it this machine's name, with two addresses."""
    return (
        f"import socket; socket.gethostname = lambda: {name!r}\n"
        "from qsend.sysio import hostnames\n"
        "hostnames.own_addresses = lambda: frozenset("
        "('127.0.0.1', '127.0.0.9', '0.0.0.0', 'fe80::1'))\n"
    )


def test_config_takes_names_from_the_dns(home: Path, server: DnsServer) -> None:
    (home / "control/resolvers").write_text(server.control)
    (home / "control/locals").write_bytes(b"old.example\n")
    done = run_program("config", home=home, before=called("MX.host.example"))
    assert (done.returncode, done.stderr) == (0, b"")
    del (found := files(home))["resolvers"]
    names = b"mx.host.example\nlo.host.example\n"
    assert found == {
        "me": b"mx.host.example\n",
        "defaultdomain": b"host.example\n",
        "plusdomain": b"host.example\n",
        "locals": names,
        "rcpthosts": names,
    }
    said = done.stdout.decode().splitlines()
    assert "Your host's fully qualified name in DNS is mx.host.example." in said
    assert "127.0.0.1: Adding lo.host.example to control/locals..." in said
    lost = "PTR lookup failed. I assume this address has no DNS name."
    assert f"127.0.0.9: {lost}" in said
    assert f"2001:db8::1: {lost}" in said
    assert not any(line.startswith(("0.0.0.0:", "fe80")) for line in said)


@pytest.mark.parametrize("name", ["gone", "bare", "odd"])
def test_config_writes_nothing_when_the_dns_does_not_tell(
    home: Path, server: DnsServer, name: str
) -> None:
    (home / "control/resolvers").write_text(server.control)
    before = called(f"{name}.host.example")
    done = run_program("config", home=home, before=before)
    assert done.returncode == 111
    assert done.stdout.endswith(
        b"Sorry, I couldn't find your host's canonical name in DNS.\n"
        b"You will have to set up control/me yourself.\n"
    )
    assert list(files(home)) == ["resolvers"]


def test_config_with_wrong_resolvers_or_no_home_is_111(
    home: Path, server: DnsServer
) -> None:
    (home / "control/resolvers").write_text("dns.example\n")
    done = run_program("config", home=home)
    assert done.returncode == 111
    assert b"control/resolvers:1" in done.stderr
    os.remove(home / "control/resolvers")
    (home / "control").rmdir()
    (home / "control").write_text("")
    assert run_program("config", home=home).returncode == 111
