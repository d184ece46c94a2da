"""The same mail through notqmail and through qsend: the same log, the same results."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.interop import notqmail
from tests.interop.whole import BODY, files, queue_by_theirs, start_ours, start_theirs
from tests.smtppeer import Script
from tests.tree.classicqueue import INJECTOR
from tests.tree.harness import Installation, Tree
from tests.tree.outcomes import contents, hosts, trouble

pytestmark = notqmail.marks

ME = b"me@here.example"
LONG = b"x" * 2000


@dataclass(frozen=True)
class Mail:
    """One message; when `ends` so many messages have ended, its work is done."""

    recips: Sequence[bytes]
    sender: bytes = ME
    ends: int = 1
    message: bytes = BODY


WORKLOAD = [
    Mail([b"ok@here.example"]),
    Mail([b"OK@Here.Example", b"ok-ext@here.example"], b""),
    Mail([b"a@good.example"], b'odd name"\\@h'),
    Mail([b"list@here.example"], b"me-@here.example-@[]", 2),
    Mail([b"a@good.example", b"b@good.example"], b"me-@here.example-@[]"),
    Mail([b"bare"]),
    Mail(
        [b"ok%here.example@hack.example", b"ok%here.example%here.example@hack.example"]
    ),
    Mail([b"x@v.example", b"boss@v.example", b"y@sub.w.example"]),
    Mail([b"no@v.example"], ends=2),
    Mail([b"no@here.example"], ends=2),
    Mail([b"nobody@here.example", b"ok@here.example"], ends=2),
    Mail([b"a@bad.example"], ends=2),
    Mail([b"a@bad.example", b"b@bad.example"], b"me-@here.example-@[]", 2),
    Mail([b"no@here.example"], b"", 2),
    Mail([b"no@here.example"], b"#@[]"),
    Mail([b"no@here.example"], b"nowhere", 3),
    Mail([]),
    Mail([b"odd one\n\xe9@here.example"], b"s% \xe9@good.example", 2),
    Mail([b"fwd@here.example"], ends=2),
    Mail([b"list-owner@here.example"]),
    Mail([b"programs@here.example"]),
    Mail([b"99@here.example"], ends=2),
    Mail([b"long@here.example"], ends=2),
    Mail([b"nul@here.example"]),
    Mail(
        [b"loop@here.example"], ends=2, message=b"Delivered-To: loop@here.example\n\n"
    ),
    Mail([b"xbit@here.example"], ends=0),
    Mail([b"blank@here.example"], ends=0),
    Mail([b"@here.example"]),
    Mail([b"empty@here.example"]),
    Mail([b"a@noroom.example"], ends=0),
    Mail([b"a@full.example"], ends=2),
    Mail([b"a@late.example"], ends=0),
]
"""Each is sent when the one before is done; those with ends=0 are deferred."""
SCRIPTS: dict[str, Script] = {
    "good": {},
    "bad": {"RCPT": b"550 unknown"},
    "noroom": {"MAIL": [b"452-no\r\n452 room", b"250 ok"]},
    "full": {"DOT": b"554 too\tmuch\x80"},
    "late": {"greeting": [b"451 later", b"220 peer"]},
}


@dataclass
class Result:
    """What a system did with the workload."""

    told: list[list[bytes]]
    states: list[bytes]
    mail: dict[str, list[bytes]]
    sent: dict[str, list[bytes]] = field(default_factory=dict)


def prepare(tree: Tree) -> None:
    """Controls and aliases of the workload."""
    for name in ("concurrencylocal", "concurrencyremote"):
        tree.control(name, "1\n")
    tree.control(
        "virtualdomains",
        "boss@v.example:alias-boss\nv.example:alias-virt\n.w.example:alias-w\n",
    )
    tree.control("percenthack", "hack.example\nhere.example\n")
    tree.control("doublebounceto", "double\n")
    tree.control("envnoathost", "here.example\n")
    lines = {
        "ok": "./Box/\n", "ok-default": "./Box/\n", "bare": "./Box/\n",
        "me": "./Returned/\n", "me-default": "./Returned/\n", "double": "./Double/\n",
        "no": "|printf 'no\\n\\nsuch%%'; exit 100\n", "virt-no": "|exit 100\n",
        "virt-x": "./Box/\n", "boss-boss": "./Box/\n", "w-default": "./Box/\n",
        "fwd": "# both\n&ok@here.example\na@good.example\n./Box/\n",
        "list": "&ok@here.example\n", "list-owner": "./Box/\n",
        "list-owner-default": "./Box/\n", "list-default": "./Box/\n",
        "programs": "|cat >/dev/null\n|echo said; echo too >&2\n./Box/\n|true\n",
        "99": "&ok@here.example\n|echo enough; exit 99\n|exit 100\n",
        "long": f"|printf '{LONG.decode()}\\n%s\\n' {LONG.decode()}; exit 100\n",
        "nul": "|printf 'a\\0b'\n", "loop": "./Box/\n", "xbit": "./Box/\n",
        "blank": "\n./Box/\n", "empty": "",
    }  # fmt: skip
    for name, content in lines.items():
        tree.alias(name, content)
    (tree.home / "alias/.qmail-xbit").chmod(0o755)
    for name in ("Box", "Returned", "Double"):
        tree.maildir(name)


def work(tree: Tree, start: Callable[[Tree, str], None]) -> Result:
    """Send all of it through one system, and what was deferred once more."""
    prepare(tree)
    with hosts(tree, **SCRIPTS) as peers:
        start(tree, "./Box/")
        for mail in WORKLOAD:
            queue_by_theirs(tree, mail.recips, mail.message, mail.sender, uid=INJECTOR)
            if mail.ends:
                tree.wait_for(rb"(?m)^end msg \d+\n", count=mail.ends)
            else:
                tree.wait_for(rb"(?m)^delivery \d+: deferral: .*\n")
        assert tree.stop() == 0
        (tree.home / "alias/.qmail-xbit").chmod(0o644)
        (tree.home / "alias/.qmail-blank").write_text("./Box/\n")
        start(tree, "./Box/")
        tree.signal(signal.SIGALRM)
        tree.wait_for(rb"(?m)^end msg \d+\n", count=sum(not m.ends for m in WORKLOAD))
        assert tree.stop() == 0
        sent = {name: masked_all(peer.contents) for name, peer in peers.items()}
    assert files(tree) == []
    assert trouble(tree) == []
    boxes = ("Box", "Returned", "Double")
    return Result(
        told=by_message(tree.log),
        states=states(tree.log),
        mail={name: masked_all(contents(tree, name)) for name in boxes},
        sent=sent,
    )


NUMBERED = re.compile(rb"(?:msg |bounce/)(\d+)")


def by_message(log: bytes) -> list[list[bytes]]:
    """The lines of each message, in the order in which they came; numbers masked.

    A number may be used again: "new msg" begins another message.
    """
    messages: list[list[bytes]] = []
    number: dict[bytes, int] = {}
    delivery: dict[bytes, int] = {}
    for line in log.splitlines():
        if line.startswith(b"status: "):
            delivery = {} if line == b"status: exiting" else delivery
            continue
        if found := re.match(rb"delivery (\d+): ", line):
            at = delivery[found[1]]
        else:
            found = NUMBERED.search(line)
            assert found, line
            if line.startswith(b"new msg ") or found[1] not in number:
                number[found[1]] = len(messages)
                messages.append([])
            at = number[found[1]]
        if started := re.match(rb"starting delivery (\d+): ", line):
            delivery[started[1]] = at
        messages[at].append(without_numbers(line))
    return [in_order(lines) for lines in messages]


def in_order(lines: list[bytes]) -> list[bytes]:
    """The lines; sorted when two channels took turns by chance."""
    started = [line for line in lines if line.startswith(b"starting delivery")]
    channels = {line.split()[6] for line in started}
    return sorted(lines) if len(channels) > 1 else lines


def without_numbers(line: bytes) -> bytes:
    """One line of the log; the size depends on the length of a pid, too."""
    line = NUMBERED.sub(rb"msg N", line, count=1)
    line = re.sub(rb"^((?:starting )?delivery) \d+: ", rb"\1 D: ", line)
    line = re.sub(rb"(info msg N: bytes) \d+ ", rb"\1 B ", line)
    return re.sub(rb"\b(qp[ _])\d+", rb"\1Q", line)


def states(log: bytes) -> list[bytes]:
    """The status lines that say something new."""
    found = re.findall(rb"(?m)^status: .*$", log)
    return [line for at, line in enumerate(found) if line not in found[:at]]


def masked_all(messages: Sequence[bytes]) -> list[bytes]:
    return sorted(map(masked, messages))


def masked(message: bytes) -> bytes:
    """Without pids and times, and the sentences of bounces, which are each one's."""
    message = message.replace(b"\r\n", b"\n")
    message = re.sub(
        rb"(?m)^(Received: \(qmail) \d+ (invoked .*)\); .*$", rb"\1 P \2); T", message
    )
    message = re.sub(rb"(?m)^Date: \d+ \w+ \d{4} [\d:]+ -0000$", b"Date: T", message)
    said = rb"(Hi\. This is the qmail-send program at \S+\n)(?:.+\n)+"
    return re.sub(said, rb"\1SAID\n", message)


@pytest.fixture
def others(installation: Installation, open_tmp: Path) -> Iterator[Tree]:
    """A home for the other system."""
    with Tree(installation, open_tmp / "that") as made:
        yield made


def test_logs_mailboxes_and_what_was_sent_are_the_same(
    tree: Tree, others: Tree
) -> None:
    theirs = work(others, start_theirs)
    ours = work(tree, start_ours)
    assert len(ours.told) == len(theirs.told)
    for mine, yours in zip(ours.told, theirs.told, strict=True):
        assert mine == yours
    # Ours says once what is true of several things that happen together.
    assert set(ours.states) <= set(theirs.states)
    assert ours.states[0] == theirs.states[0]
    assert ours.states[-1] == theirs.states[-1]
    assert ours.mail == theirs.mail
    assert ours.sent == theirs.sent
