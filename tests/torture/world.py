"""A tree with a place for every kind of recipient, every entrance, and an SMTP sink."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.ports import free_ports
from tests.torture import injector
from tests.torture.ledger import Pair
from tests.tree.harness import Tree

ENTRANCES = (
    ("library", 64901),
    ("library", 0),
    ("program", 64901),
    ("inject", 64901),
    ("sendmail", 64901),
    ("smtp", 64901),
    ("qmtp", 64901),
    ("qmqp", 64901),
)
"""How messages are injected, and by whom; root writes the queue itself when there
is nobody to ask."""
MAILDIRS = {
    "Maildir": ("box", "prog", "later"),
    "Hopped": ("hop", "listbox"),
    "Returned": ("sender",),
}
"""The Maildirs of alias, and the kinds of recipient of each."""


class Sink:
    """An SMTP server that counts.

    It refuses recipients that begin with "no", and "soft" ones when they come first.
    """

    def __init__(
        self,
        chance: random.Random,
        took: Callable[[Pair], None] = lambda _pair: None,
    ) -> None:
        """`took` is told of each recipient before the client is."""
        self.arrived: Counter[Pair] = Counter()
        self.mutilated: list[str] = []
        self._chance = chance
        self._took = took
        self._deferred: set[str] = set()

    async def handle_RCPT(
        self,
        _server: SMTP,
        _session: Session,
        envelope: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address.startswith("no"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("soft") and address not in self._deferred:
            self._deferred.add(address)
            return "450 4.2.0 come again"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 yes"

    async def handle_DATA(
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        for address in envelope.rcpt_tos:
            kind, number = address.partition("@")[0].split("-")
            assert isinstance(envelope.content, bytes)
            text = envelope.content.replace(b"\r\n", b"\n")
            if not text.endswith(injector.body(int(number))):
                self.mutilated.append(address)
            self.arrived[int(number), kind] += 1
            self._took((int(number), kind))
        # Between the message and the word that it has come: the time for a kill.
        await asyncio.sleep(self._chance.random() * 0.1)
        return "250 2.0.0 queued"


@contextmanager
def listening(sink: Sink) -> Iterator[int]:
    """Serve `sink`; the port."""
    [port] = free_ports(1)
    controller = Controller(sink, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def set_up(
    tree: Tree,
    port: int,
    durability: str = "full",
    entrances: Sequence[str] = ("smtp", "qmtp", "qmqp"),
) -> dict[str, int]:
    """Controls, aliases and Maildirs.

    Args:
        port: of the sink.
        entrances: those by network that are open.
    Returns: the port of each entrance by network.
    """
    tree.control("durability", f"{durability}\n")
    tree.control("smtproutes", f":127.0.0.1:{port}\n")
    tree.alias("box-default", "./Maildir/\n")
    tree.alias("prog-default", "|sleep 0.05\n./Maildir/\n")
    tree.alias("fwd-default", _again("hop"))
    tree.alias("list-default", _again("listbox", "listfar"))
    tree.alias("hop-default", "./Hopped/\n")
    tree.alias("listbox-default", "./Hopped/\n")
    tree.alias("sender-default", "./Returned/\n")
    tree.alias(
        "later-default", '|mkdir "seen-$EXT2" 2>&- && exit 111; exit 0\n./Maildir/\n'
    )
    for name in MAILDIRS:
        tree.maildir(name)
    ports = dict(zip(entrances, free_ports(len(entrances)), strict=True))
    for name, number in ports.items():
        tree.control(f"{name}listen", f"127.0.0.1:{number}\n")
        tree.control(f"tcp.{name}", '127.:allow,RELAYCLIENT=""\n')
        tree.run("tcprules", name)
    return ports


def maildirs(tree: Tree) -> dict[Path, tuple[str, ...]]:
    """Where what was delivered lies, and the kinds of recipient there."""
    return {tree.home / "alias" / name: kinds for name, kinds in MAILDIRS.items()}


def how(entrance: str, ports: dict[str, int]) -> str:
    """What the injector calls an entrance."""
    return f"{entrance}:{ports[entrance]}" if entrance in ports else entrance


def inject(
    tree: Tree,
    ports: dict[str, int],
    which: int,
    answers: Path,
    numbers: tuple[int, int],
    pace: str = "",
) -> subprocess.Popen[bytes]:
    """An injector of ENTRANCES[which] until its standard input closes.

    It adds to `answers`. `numbers` are those of its first message and the step.
    """
    entrance, uid = ENTRANCES[which]
    source = Path(injector.__file__).read_text()
    first, step = numbers
    with answers.open("ab") as stdout:
        return subprocess.Popen(
            [
                *(str(tree.installation.python), "-c", source, str(tree.home)),
                *(how(entrance, ports), str(first), str(step), pace),
            ],
            stdin=subprocess.PIPE,
            stdout=stdout,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            user=uid,
            group=uid,
            extra_groups=[],
        )


def _again(*kinds: str) -> str:
    """A program delivery that sends the message on to these kinds of recipient."""
    recips = " ".join(
        f'{kind}-"$EXT2"@{injector.address(kind, 0).partition("@")[2]}'
        for kind in kinds
    )
    return f'|"$QSEND_HOME"/bin/qmail-inject -a -f "$SENDER" -- {recips}\n'
