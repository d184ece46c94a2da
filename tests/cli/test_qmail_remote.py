"""qmail-remote as a program, against scripted SMTP peers on loopback."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qsend.core.tcpto import Silence
from qsend.formats.tcptofile import Record, parse_table, render_record
from qsend.sysio import clock
from tests.dnsserver import SOA, DnsServer, running_dns

SCRIPT = (
    "import sys; from qsend.cli.qmail_remote import main; sys.exit(main(sys.argv[1:]))"
)
MESSAGE = b"Subject: x\n\n.\n..\nbody\n"
ACCEPT = {
    "greeting": "220 peer",
    "EHLO": "250 peer",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go",
    ".": "250 taken",
    "QUIT": "221 bye",
}


@dataclass
class Peer:
    """Says what its script says; `closed` ends the connection there."""

    script: dict[str, str]
    heard: list[str] = field(default_factory=list)
    content: bytes = b""
    connections: int = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not await self._say(writer, "greeting"):
            return
        while line := await reader.readline():
            self.heard.append(line.decode("latin-1").rstrip("\r\n"))
            verb = self.heard[-1].split(":")[0].split(" ")[0]
            key = self.heard[-1] if self.heard[-1] in self.script else verb
            if not await self._say(writer, key):
                return
            if verb == "DATA" and self.script["DATA"].startswith("354"):
                self.content = await reader.readuntil(b"\r\n.\r\n")
                if not await self._say(writer, "."):
                    return

    async def _say(self, writer: asyncio.StreamWriter, key: str) -> bool:
        text = self.script.get(key, "500 what")
        if text == "closed":
            return False
        writer.write(text.encode() + b"\r\n")
        await writer.drain()
        return True


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    (tmp_path / "queue/lock").mkdir(parents=True)
    (tmp_path / "queue/lock/tcpto").write_bytes(bytes(1024))
    (tmp_path / "control/me").write_text("me.example\n")
    return tmp_path


async def run_program(
    home: Path, operands: Sequence[str | bytes], message: bytes = MESSAGE
) -> list[bytes]:
    """The items it printed; the message comes from a file, as below a spawner."""
    path = home / "message"
    path.write_bytes(message)
    with open(path, "rb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SCRIPT,
            *operands,
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "QSEND_HOME": str(home), "PYTHONPATH": os.getcwd()},
        )
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert out.endswith(b"\0")
    return out.split(b"\0")[:-1]


def deliver(
    home: Path,
    peer: Peer,
    operands: Sequence[str | bytes] = ("d.example", "s@h", "r@d.example"),
    message: bytes = MESSAGE,
) -> list[bytes]:
    """Deliver to a peer that control/smtproutes names."""

    async def main() -> list[bytes]:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            routes = f"# ours\n.example:127.0.0.1:{port}\n"
            (home / "control/smtproutes").write_text(routes)
            return await run_program(home, operands, message)

    return asyncio.run(main())


def test_accepted_message(home: Path) -> None:
    peer = Peer(ACCEPT)
    recip, message = deliver(home, peer)
    assert recip == b"r"
    assert message.startswith(b"K127.0.0.1 accepted message.\n")
    assert b"Remote host said: 250 taken\n" in message
    assert peer.heard[:4] == [
        "EHLO me.example",
        "MAIL FROM:<s@h>",
        "RCPT TO:<r@d.example>",
        "DATA",
    ]
    assert peer.content == b"Subject: x\r\n\r\n..\r\n...\r\nbody\r\n.\r\n"


def test_several_recipients_in_their_order(home: Path) -> None:
    script = {
        **ACCEPT,
        "RCPT TO:<b@d.example>": "550 no such b",
        "RCPT TO:<c@d.example>": "450 c later",
    }
    operands = ("d.example", "", "a@d.example", "b@d.example", "c@d.example")
    items = deliver(home, Peer(script), operands)
    assert [item[:1] for item in items] == [b"r", b"h", b"s", b"K"]
    assert b"550 no such b" in items[1]
    assert b"450 c later" in items[2]


def test_local_parts_are_quoted(home: Path) -> None:
    peer = Peer(ACCEPT)
    deliver(home, peer, ("d.example", 'a"b c@h', b"\xe9@d.example"))
    assert peer.heard[1] == 'MAIL FROM:<"a\\"b c"@h>'
    assert peer.heard[2] == 'RCPT TO:<"\xe9"@d.example>'


@pytest.mark.parametrize(
    ("change", "kinds", "text"),
    [
        ({"greeting": "554 no"}, [b"Z"], b"554 no"),
        ({"greeting": "421 busy"}, [b"Z"], b"421 busy"),
        ({"greeting": "closed"}, [b"Z"], b"#4.4.2"),
        ({"MAIL": "550 not you"}, [b"D"], b"550 not you"),
        ({"MAIL": "450 wait"}, [b"Z"], b"450 wait"),
        ({"RCPT": "550 nobody"}, [b"h", b"D"], b"127.0.0.1"),
        ({"RCPT": "450 later"}, [b"s", b"D"], b"127.0.0.1"),
        ({"DATA": "554 no"}, [b"r", b"D"], b"554 no"),
        ({"DATA": "451 wait"}, [b"r", b"Z"], b"451 wait"),
        ({".": "554 spam"}, [b"r", b"D"], b"554 spam"),
        ({".": "451 disk"}, [b"r", b"Z"], b"451 disk"),
        ({".": "closed"}, [b"r", b"Z"], b"ossible duplicate"),
    ],
)
def test_refusals(
    home: Path, change: dict[str, str], kinds: list[bytes], text: bytes
) -> None:
    items = deliver(home, Peer({**ACCEPT, **change}))
    assert [item[:1] for item in items] == kinds
    assert text in items[-1]


@pytest.mark.parametrize(
    ("operands", "letter", "code"),
    [
        ((), b"D", b"#5.3.5"),
        (("d.example", "s@h"), b"D", b"#5.3.5"),
        (("d.example", "s@h\nX", "r@d.example"), b"D", b"#5.1.7"),
        (("d.example", "s@h", "r\r@d.example"), b"D", b"#5.1.3"),
    ],
)
def test_operands_that_cannot_be_used(
    home: Path, operands: Sequence[str], letter: bytes, code: bytes
) -> None:
    peer = Peer(ACCEPT)
    (item,) = deliver(home, peer, operands)
    assert item[:1] == letter
    assert code in item
    assert peer.connections == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("me", None),
        ("smtproutes", "no colon\n"),
        ("timeoutremote", "soon\n"),
        ("resolvers", "not.an.address\n"),
    ],
)
def test_controls_that_cannot_be_used_are_a_deferral(
    home: Path, name: str, content: str | None
) -> None:
    path = home / "control" / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    (item,) = asyncio.run(run_program(home, ("d", "s", "r@d")))
    assert item[:1] == b"Z"
    assert b"#4.3.0" in item
    assert name.encode() in item


def test_helohost_is_enough_without_me(home: Path) -> None:
    (home / "control/me").unlink()
    (home / "control/helohost").write_text("helo.example\n")
    peer = Peer(ACCEPT)
    deliver(home, peer)
    assert peer.heard[0] == "EHLO helo.example"


def test_peer_that_refuses_the_connection(home: Path) -> None:
    async def main() -> list[bytes]:
        server = await asyncio.start_server(Peer(ACCEPT).serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        (home / "control/smtproutes").write_text(f":127.0.0.1:{port}\n")
        return await run_program(home, ("d", "s@h", "r@d"))

    (item,) = asyncio.run(main())
    assert item[:1] == b"Z"
    assert b"#4.4.1" in item


@pytest.mark.slow
def test_silent_peer_ends_by_timeoutremote(home: Path) -> None:
    (home / "control/timeoutremote").write_text("1\n")

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    peer = Peer(ACCEPT)
    peer.serve = never  # type: ignore[method-assign] # a peer of few words
    (item,) = deliver(home, peer)
    assert item[:1] == b"Z"
    assert b"#4.4.2" in item


@pytest.mark.parametrize(
    ("age_s", "is_tried"), [(10, False), (3 * 3600, True)], ids=["resting", "rested"]
)
def test_resting_host_is_not_tried(home: Path, age_s: int, is_tried: bool) -> None:
    silence = Silence(count=2, last=clock.now() - age_s)
    record = render_record(Record(address="127.0.0.1", silence=silence))
    table = home / "queue/lock/tcpto"
    table.write_bytes(record + bytes(1008))
    peer = Peer(ACCEPT)
    items = deliver(home, peer)
    assert peer.connections == int(is_tried)
    assert items[-1][:1] == (b"K" if is_tried else b"Z")
    # An answer frees the record; nothing else changes it.
    assert parse_table(table.read_bytes())[0].silence.count == (0 if is_tried else 2)


def test_message_from_a_pipe(home: Path) -> None:
    peer = Peer(ACCEPT)

    async def main() -> bytes:
        async with await asyncio.start_server(
            peer.serve, "127.0.0.1", 0, limit=1 << 20
        ) as server:
            port = server.sockets[0].getsockname()[1]
            (home / "control/smtproutes").write_text(f":127.0.0.1:{port}\n")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SCRIPT, "d", "s@h", "r@d"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "QSEND_HOME": str(home), "PYTHONPATH": os.getcwd()},
            )
            out, _ = await process.communicate(b"line\n" * 100000)
            return out

    assert asyncio.run(main()).startswith(b"r\0K")
    assert peer.content == b"line\r\n" * 100000 + b".\r\n"


@pytest.mark.parametrize(
    ("domain", "letter", "code"),
    [
        ("nowhere.example", b"D", b"#5.1.2"),
        ("missing.example", b"D", b"#5.4.4"),
        ("null.example", b"D", b"#5.1.10"),
        ("me.example", b"D", b"#5.4.6"),
        ("[127.0.0.1]", b"D", b"#5.4.6"),
        ("softmx.example", b"Z", b"#4.1.2"),
    ],
)
def test_domains_without_a_host(
    home: Path, dns_server: DnsServer, domain: str, letter: bytes, code: bytes
) -> None:
    (home / "control/resolvers").write_text(dns_server.control)
    (item,) = asyncio.run(run_program(home, (domain, "s@h", f"r@{domain}")))
    assert item[:1] == letter
    assert code in item
    assert item.endswith(b")\n")


@pytest.mark.root
def test_mx_in_order_on_port_25(home: Path) -> None:
    """The best exchanger refuses the connection, the second takes the message."""
    host = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3))
    zone = f"""{SOA}
dom 60 IN MX 10 first
dom 60 IN MX 20 second
first 60 IN A 127.255.255.253
second 60 IN A {host}
"""
    peer = Peer(ACCEPT)

    async def main() -> list[bytes]:
        async with await asyncio.start_server(peer.serve, host, 25):
            return await run_program(home, ("dom.mx.test", "s@h", "r@dom.mx.test"))

    with running_dns({"mx.test": zone.replace("ns.example.", "ns.mx.test.")}) as server:
        (home / "control/resolvers").write_text(server.control)
        recip, message = asyncio.run(main())
    assert recip == b"r"
    assert message.startswith(b"K" + host.encode())
    assert peer.content.startswith(b"Subject: x\r\n")


def test_queue_without_a_table_of_silent_hosts(home: Path) -> None:
    (home / "queue/lock/tcpto").unlink()
    assert deliver(home, Peer(ACCEPT))[-1][:1] == b"K"
