"""A real DNS server on loopback for tests: Debian's nsd, on a random port.

Any test may ask for the fixture `dns_server` (one server per test process):

    def test_something(dns_server: DnsServer) -> None:
        dns = Dns((dns_server.resolver,))             # or, as a control file:
        (home / "control/resolvers").write_text(dns_server.control)

It serves ZONE below, and answers SERVFAIL for everything in `broken.example`.
For other zones use `running_dns({"my.example": "..."})` as a context manager.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from qsend.formats.control import Resolver
from qsend.sysio import clock
from tests.ports import free_port

SOA = "@ 300 IN SOA ns.example. root.example. 1 3600 600 86400 60\n@ 300 IN NS ns\n"
MANY = "".join(
    f"many 300 IN MX {n} a-rather-long-name-of-exchanger-number-{n}.many\n"
    f"a-rather-long-name-of-exchanger-number-{n}.many 300 IN A 127.0.1.{n}\n"
    for n in range(1, 31)
)
ZONE = f"""\
; One domain per case. Addresses are loopback ones, so that nothing leaves.
{SOA}
ns        300 IN A     127.0.0.1
one       300 IN MX 10 mx2
two       300 IN MX 20 mx3
two       300 IN MX 10 mx2
equal     300 IN MX 10 mx2
equal     300 IN MX 10 mx3
me        300 IN MX 10 mx1
threeme   300 IN MX 10 mx2
threeme   300 IN MX 20 mx1
threeme   300 IN MX 30 mx3
mx1       300 IN A     127.0.0.1
mx2       300 IN A     127.0.0.2
mx3       300 IN A     127.0.0.3
mx3       300 IN A     127.0.0.33
mx6       300 IN AAAA  ::1
mx46      300 IN A     127.0.0.4
mx46      300 IN AAAA  ::1
far6      300 IN AAAA  2001:db8::1
mapped    300 IN AAAA  ::ffff:127.0.0.9
plain     300 IN A     127.0.0.5
nodata    300 IN TXT   "no address here"
null      300 IN MX 0  .
notnull   300 IN MX 0  .
notnull   300 IN MX 10 mx2
v6        300 IN MX 10 mx6
v46       300 IN MX 10 mx46
onlyfar6  300 IN MX 10 far6
missing   300 IN MX 10 nowhere
partial   300 IN MX 10 nowhere
partial   300 IN MX 20 mx2
softmx    300 IN MX 10 host.broken.example.
softpart  300 IN MX 10 host.broken.example.
softpart  300 IN MX 20 mx2
numeric   300 IN MX 10 127.0.0.7.
alias     300 IN CNAME two
alias2    300 IN CNAME alias
hostalias 300 IN CNAME plain
mxalias   300 IN MX 10 hostalias
dangling  300 IN CNAME gone
outside   300 IN CNAME elsewhere.invalid.
loop1     300 IN CNAME loop2
loop2     300 IN CNAME loop1
short     1   IN A     127.0.0.6
{MANY}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsServer:
    """A running server; it is stopped by whoever started it."""

    host: str
    port: int
    pid: int

    @property
    def resolver(self) -> Resolver:
        """The server for Controls.resolvers or Dns."""
        return Resolver(host=self.host, port=self.port)

    @property
    def control(self) -> str:
        """The content of control/resolvers."""
        return f"{self.host}:{self.port}\n"


def _configure(directory: Path, port: int, zones: Mapping[str, str]) -> Path:
    text = f"""\
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    zonesdir: "{directory}"
    pidfile: "{directory}/nsd.pid"
    database: ""
    zonelistfile: "{directory}/zone.list"
    xfrdfile: "{directory}/xfrd.state"
    logfile: "{directory}/nsd.log"
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: "broken.example"
    zonefile: "does-not-exist"
"""
    for name, content in zones.items():
        file = directory / f"{name}.zone"
        file.write_text(f"$ORIGIN {name}.\n{content}")
        text += f'zone:\n    name: "{name}"\n    zonefile: "{file}"\n'
    path = directory / "nsd.conf"
    path.write_text(text)
    return path


def _start(directory: Path, config: Path) -> subprocess.Popen[bytes]:
    command = ["/usr/sbin/nsd", "-d", "-c", str(config)]
    if os.getuid() == 0:
        nobody = 65534
        os.chown(directory, nobody, nobody)
        ids = f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"
        command = ["/usr/bin/setpriv", *ids, *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _answers(process: subprocess.Popen[bytes], port: int, name: str) -> bool:
    """Whether the server serves before it dies or ten seconds are over."""
    end = clock.mono() + 10
    query = dns.message.make_query(f"{name}.", "SOA")
    while process.poll() is None and clock.mono() < end:
        try:
            reply = dns.query.udp(query, "127.0.0.1", timeout=0.2, port=port)
        except (OSError, dns.exception.DNSException):
            continue
        if reply.answer:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running_dns(zones: Mapping[str, str], port: int = 0) -> Iterator[DnsServer]:
    """A server for these zones: name without final dot, and records with SOA.

    It listens at `port`, or at any free one.
    """
    wanted = port
    directory = Path(tempfile.mkdtemp(prefix="qsend-dns-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        for _attempt in range(5):  # another process may have taken the port
            port = wanted or free_port()
            process = _start(directory, _configure(directory, port, zones))
            try:
                if _answers(process, port, next(iter(zones))):
                    yield DnsServer(host="127.0.0.1", port=port, pid=process.pid)
                    return
            finally:
                _stop(process)
        log = directory / "nsd.log"
        raise RuntimeError(log.read_text() if log.exists() else "nsd did not start")
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def dns_server() -> Iterator[DnsServer]:
    """One server with ZONE (origin `example`) for all tests of this process."""
    with running_dns({"example": ZONE}) as server:
        yield server
