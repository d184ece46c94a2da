"""Remote delivery by a whole tree: which host gets the mail, by DNS and by route.

The hosts are loopback addresses with port 25 and the DNS server is a real one.
"""

from __future__ import annotations

import ctypes
import mailbox
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.sysio import clock
from tests.dnsserver import SOA, running_dns
from tests.smtppeer import LOCKSTEP, Odd, Peer, Said
from tests.smtpsink import Sink
from tests.tree.harness import Installation, Tree
from tests.tree.loopback import SMTP_PORT, free_block

pytestmark = pytest.mark.root

BOUNCES = b"bounces@here.example"
CLONE_NEWNET = 0x40000000


def zone(block: str) -> str:
    """One domain per case; host hN has the address BLOCK N."""
    hosts = "".join(f"h{n} 300 IN A {block}{n}\n" for n in range(1, 40))
    return f"""\
{SOA}
ns       300 IN A     127.0.0.1
{hosts}
order    300 IN MX 20 h2
order    300 IN MX 10 h1
order    300 IN MX 30 h3
next     300 IN MX 10 h4
next     300 IN MX 20 h5
manyaddr 300 IN MX 10 two
two      300 IN A {block}6
two      300 IN A {block}7
equal    300 IN MX 10 h8
equal    300 IN MX 10 h9
plain    300 IN A {block}10
alias    300 IN CNAME plain
chain    300 IN CNAME alias
mxalias  300 IN MX 10 alias
aliasmx  300 IN CNAME order
gone     300 IN CNAME nothing
null     300 IN MX 0 .
noaddr   300 IN MX 10 nothing
nodata   300 IN TXT "no mail here"
softmx   300 IN MX 10 host.broken.example.
partsoft 300 IN MX 10 host.broken.example.
partsoft 300 IN MX 20 h11
me       300 IN MX 10 here
here     300 IN A 127.0.0.1
between  300 IN MX 10 h12
between  300 IN MX 20 here
between  300 IN MX 30 h13
only6    300 IN AAAA fd00:25::6
mx6      300 IN MX 10 only6
relay    300 IN A {block}20
relay6   300 IN AAAA ::1
a.wild   300 IN MX 10 h21
"""


@dataclass(frozen=True)
class World:
    """A running tree that asks a DNS server of its own."""

    tree: Tree
    block: str
    bounces: Path

    def address(self, number: int) -> str:
        return f"{self.block}{number}"

    def host(self, number: int, **options: bool) -> Sink:
        """A mail host, to be entered."""
        return Sink(self.address(number), SMTP_PORT, **options)

    def send(self, *recips: bytes) -> list[bytes]:
        """Send one message; what the log says of each recipient."""
        self.tree.queue(recips, sender=BOUNCES)
        return self.tree.reports(*recips)

    def bounce(self, recip: bytes) -> bytes:
        """The bounce about one recipient."""
        self.tree.reports(BOUNCES)
        end = clock.mono() + 20
        while clock.mono() < end:
            for key, message in mailbox.Maildir(self.bounces).iteritems():
                if b"<%b>:" % recip in message.as_bytes():
                    mailbox.Maildir(self.bounces).remove(key)
                    return message.as_bytes()
            self.tree.wait_for(rb"delivery \d+: success: did_1\+0\+0/\n")
        raise AssertionError(f"no bounce about {recip!r}")


@contextmanager
def world(installation: Installation, routes: str = "") -> Iterator[World]:
    """Zone `test`, and a tree that finds its way by it."""
    path = Path(tempfile.mkdtemp(prefix="qsend-test-", dir="/tmp"))
    path.chmod(0o755)
    block = free_block()
    try:
        with (
            running_dns({"test": zone(block)}) as dns,
            Tree(installation, path / "home") as tree,
        ):
            tree.control("resolvers", dns.control)
            tree.control("smtproutes", routes)
            tree.control("timeoutconnect", "2\n")
            tree.control("durability", "none\n")
            bounces = tree.maildir("Bounces")
            tree.alias("bounces", "./Bounces/\n")
            tree.start()
            yield World(tree, block, bounces)
            assert tree.stop() == 0
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def shared(installation: Installation) -> Iterator[World]:
    """One world for the tests that use different domains in it."""
    with world(installation) as made:
        yield made


def accepted(address: str) -> bytes:
    return f"success: {address}_accepted_message./".encode()


def test_lowest_preference_gets_the_mail(shared: World) -> None:
    with shared.host(1) as first, shared.host(2) as second, shared.host(3) as third:
        reports = shared.send(b"a@order.test", b"b@ORDER.test", b"c@aliasmx.test")
    assert all(each.startswith(accepted(shared.address(1))) for each in reports)
    # One transaction for both spellings, one for the alias, which is not rewritten.
    assert sorted(mail.recips for mail in first.mails) == [
        [b"a@order.test", b"b@ORDER.test"],
        [b"c@aliasmx.test"],
    ]
    assert (second.sessions, third.sessions) == (0, 0)


def test_refused_connection_falls_through_in_order(shared: World) -> None:
    with shared.host(2) as second, shared.host(3) as third:
        [report] = shared.send(b"down1@order.test")
        assert report.startswith(accepted(shared.address(2)))
    assert (len(second.mails), third.sessions) == (1, 0)
    with shared.host(3) as third:
        [report] = shared.send(b"down2@order.test")
    assert report.startswith(accepted(shared.address(3)))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("greeting", b"421 busy"),
        ("greeting", b"450 later"),
        ("greeting", b"554 no"),
        ("greeting", b"SSH-2.0-what"),
        ("greeting", Odd.CLOSE),
        ("EHLO", b"451 later"),
        ("EHLO", Odd.RESET),
        ("EHLO", b"250 peer\r\n421 changed my mind"),
    ],
)
def test_host_that_takes_no_session_makes_way_for_the_next(
    shared: World, step: str, said: Said
) -> None:
    recip = f"{secrets.token_hex(4)}@next.test".encode()
    script = {**LOCKSTEP, step: said}
    with Peer(script, shared.address(4), SMTP_PORT) as bad, shared.host(5) as good:
        [report] = shared.send(recip)
    assert report.startswith(accepted(shared.address(5)))
    assert (len(bad.served), len(good.mails)) == (1, 1)


def test_every_address_of_a_host_is_tried(shared: World) -> None:
    for number in (6, 7):
        with shared.host(number) as host:
            [report] = shared.send(b"try%d@manyaddr.test" % number)
        assert report.startswith(accepted(shared.address(number)))
        assert len(host.mails) == 1


def test_hosts_of_equal_preference_share_the_mail(shared: World) -> None:
    # Held until all are under way: no session can be used twice.
    recips = [b"r%d@equal.test" % number for number in range(15)]
    with shared.host(8, hold=True) as one, shared.host(9, hold=True) as other:
        shared.tree.queue(recips, sender=b"list-@here.example-@[]")
        shared.tree.wait_for(b"status: local 0/10 remote 15/20\n")
        one.open_gate()
        other.open_gate()
        shared.tree.reports(*recips)
        # Each chooses by itself: all 15 the same once in 16384 runs.
        assert one.sessions > 0
        assert other.sessions > 0
        assert len(one.mails) + len(other.mails) == 15


@pytest.mark.parametrize(
    "domain", [b"plain.test", b"alias.test", b"chain.test", b"mxalias.test"]
)
def test_host_is_found_without_mx_and_through_aliases(
    shared: World, domain: bytes
) -> None:
    recip = b"r@" + domain
    with shared.host(10) as host:
        [report] = shared.send(recip)
    assert report.startswith(accepted(shared.address(10)))
    assert [mail.recips for mail in host.mails] == [[recip]]


def test_literal_needs_no_dns(shared: World) -> None:
    recip = f"r@[{shared.address(14)}]".encode()
    with shared.host(14) as host:
        [report] = shared.send(recip)
    assert report.startswith(accepted(shared.address(14)))
    assert [mail.recips for mail in host.mails] == [[recip]]


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        (b"nothing.test", b"(#5.1.2)"),
        (b"gone.test", b"(#5.1.2)"),
        (b"nodata.test", b"(#5.1.2)"),
        (b"null.test", b"(#5.1.10)"),
        (b"noaddr.test", b"(#5.4.4)"),
        (b"me.test", b"(#5.4.6)"),
        (b"[127.0.0.1]", b"(#5.4.6)"),
    ],
)
def test_domain_that_takes_no_mail_bounces_with_the_reason(
    shared: World, domain: bytes, code: bytes
) -> None:
    recip = b"r@" + domain
    [report] = shared.send(recip)
    assert report.startswith(b"failure: ")
    assert report.endswith(code + b"/")
    text = report.removeprefix(b"failure: ").removesuffix(b"/").replace(b"_", b" ")
    bounce = shared.bounce(recip)
    assert b"<%b>:\n%b\n" % (recip, text) in bounce
    assert b"\nTo: " + BOUNCES in bounce
    assert b"\n--- Below this line is a copy of the message.\n" in bounce


@pytest.mark.parametrize("domain", [b"host.broken.example", b"softmx.test"])
def test_dns_server_that_fails_defers(shared: World, domain: bytes) -> None:
    [report] = shared.send(b"r@" + domain)
    assert report.startswith(b"deferral: The_DNS_did_not_answer_about_")
    assert report.endswith(b":_SERVFAIL._(#4.1.2)/")


def test_part_of_the_hosts_is_enough_where_the_dns_fails_for_others(
    shared: World,
) -> None:
    with shared.host(11) as host:
        [report] = shared.send(b"r@partsoft.test")
    assert report.startswith(accepted(shared.address(11)))
    assert len(host.mails) == 1


def test_host_behind_this_machine_is_never_tried(shared: World) -> None:
    with shared.host(13) as third:
        [report] = shared.send(b"r1@between.test")
        assert report.startswith(b"deferral: Sorry,_I_wasn't_able_to_establish_")
        shared.tree.run("flush", "all")
        assert third.sessions == 0
        with shared.host(12) as better:
            [report] = shared.send(b"r2@between.test")
    assert report.startswith(accepted(shared.address(12)))
    assert (len(better.mails) >= 1, third.sessions) == (True, 0)


def test_routes_go_before_the_dns(installation: Installation) -> None:
    with ExitStack() as stack:
        sinks = {
            name: stack.enter_context(Sink(host))
            for name, host in (
                ("wild", "127.0.0.1"),
                ("one", "127.0.0.1"),
                ("rest", "127.0.0.1"),
                ("six", "::1"),
            )
        }
        routes = f"""\
One.Test:127.0.0.1:{sinks["one"].port}
.wild.test:127.0.0.1:{sinks["wild"].port}
a.wild.test:
name.test:relay.test:2525
six.test:[::1]:{sinks["six"].port}
six-name.test:relay6.test:{sinks["six"].port}
bad-name.test:nothing.test:26
soft-name.test:host.broken.example
plain25.test:relay.test
:127.0.0.1:{sinks["rest"].port}
"""
        made = stack.enter_context(world(installation, routes))
        sinks["name"] = stack.enter_context(Sink(made.address(20), 2525))
        sinks["plain25"] = stack.enter_context(made.host(20))
        sinks["exception"] = stack.enter_context(made.host(21))
        wanted = {
            b"r@one.test": ("one", "127.0.0.1"),
            b"r@ONE.TEST": ("one", "127.0.0.1"),
            b"r@x.wild.test": ("wild", "127.0.0.1"),
            b"r@y.x.wild.test": ("wild", "127.0.0.1"),
            b"r@a.wild.test": ("exception", made.address(21)),
            b"r@name.test": ("name", made.address(20)),
            b"r@plain25.test": ("plain25", made.address(20)),
            b"r@wild.test": ("rest", "127.0.0.1"),
            b"r@[127.0.0.1]": ("rest", "127.0.0.1"),
            b"r@six.test": ("six", "::1"),
            b"r@six-name.test": ("six", "::1"),
        }
        reports = made.send(*wanted)
        for report, (_, address) in zip(reports, wanted.values(), strict=True):
            assert report.startswith(accepted(address))
        for name, sink in sinks.items():
            got = {recip for mail in sink.mails for recip in mail.recips}
            assert got == {r for r, (where, _) in wanted.items() if where == name}
        bad, soft = made.send(b"r@bad-name.test", b"r@soft-name.test")
        assert bad.startswith(
            b"failure: Sorry,_I_couldn't_find_any_host_named_nothing.test"
        )
        assert soft.endswith(b"_host.broken.example:_SERVFAIL._(#4.1.2)/")


@pytest.mark.slow
def test_silent_resolver_defers_in_time_and_holds_up_nobody(tree: Tree) -> None:
    block = free_block()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        Sink(f"{block}1", SMTP_PORT) as host,
    ):
        silent.bind(("127.0.0.1", 0))
        tree.control("resolvers", f"127.0.0.1:{silent.getsockname()[1]}\n")
        tree.start()
        begin = clock.mono()
        lost = [b"r%d@lost%d.test" % (number, number) for number in range(10)]
        tree.queue(lost)
        good = f"r@[{block}1]".encode()
        tree.queue([good])
        [report] = tree.reports(good)
        assert report.startswith(accepted(f"{block}1"))
        assert clock.mono() - begin < 5
        reports = tree.reports(*lost)
        assert clock.mono() - begin < 20
    for report in reports:
        assert report.startswith(b"deferral: The_DNS_did_not_answer_about_lost")
        assert report.endswith(b":_timed_out._(#4.1.2)/")
    assert len(host.mails) == 1


@contextmanager
def own_network() -> Iterator[None]:
    """A network of this thread's own; what is started in it stays in it.

    It has a loopback interface, and all of fd00:25::/64 leads to this machine
    without being an address of it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            for command in (
                "link set lo up",
                "-6 route add local fd00:25::/64 dev lo",
            ):
                subprocess.run(["ip", *command.split()], check=True)
            yield
        finally:
            if libc.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)


def test_domain_with_ipv6_alone_gets_its_mail(installation: Installation) -> None:
    with (
        own_network(),
        world(installation) as made,
        Sink("::", SMTP_PORT) as host,
    ):
        recips = [b"r@only6.test", b"r@mx6.test", b"r@[IPv6:fd00:25::7]"]
        reports = made.send(*recips)
        # ::1 is this machine, in any spelling.
        [mine] = made.send(b"r@[IPv6:::1]")
    for report, address in zip(reports, ("6", "6", "7"), strict=True):
        assert report.startswith(accepted(f"fd00:25::{address}"))
    assert mine.startswith(b"failure: The_best_mail_exchanger_of_")
    assert sorted(mail.recips[0] for mail in host.mails) == sorted(recips)
