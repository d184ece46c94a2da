"""What a power cut left of numbered mail, and whether anything is missing.

`Left` reads a queue and Maildirs by the tables of core/states.py alone; `missing` is
the conservation of mail: everything acknowledged before the cut has arrived, or waits
to be attempted, or is named in a bounce. `live_on` then lets the real manager, loader,
executor and cleaner work what is left (tests/sim.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from qsend.core.errors import QueueCorrupt
from qsend.core.model import MessId
from qsend.core.states import FILES, Fate, fate
from qsend.formats.info import parse_info
from qsend.formats.paths import parse_messid
from qsend.formats.recips import parse_recips
from qsend.formats.todo import parse_todo
from tests.fakedisk import FakeDisk
from tests.fakes import FakeQueue
from tests.sim import FAILURE, NOW, SUCCESS, WEEK, Outcome, Sim
from tests.torture.injector import BECOMES, RETURNED, body, kinds_of
from tests.torture.ledger import Pair

_ADDRESS = re.compile(rb"([a-z0-9]+)-(\d+)@")
_NAMED = re.compile(rb"^<([a-z0-9]+)-(\d+)@", re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^Delivered-To: ([a-z0-9]+)-(\d+)@", re.MULTILINE)
_COPY = b"--- Below this line is a copy"
FRESH = b"fresh-0@here"


def pair_of(address: bytes) -> Pair:
    """(number, kind) of an address."""
    found = _ADDRESS.match(address)
    assert found is not None, address
    return int(found[2]), found[1].decode()


def is_single(pair: Pair) -> bool:
    """Whether only one message has this recipient, whatever is delivered twice."""
    return pair[1] in kinds_of(pair[0])


@dataclass(slots=True)
class Left:
    """What is on a disk after a cut, as far as mail goes."""

    waiting: set[Pair] = field(default_factory=set)
    """Recipients that will be attempted."""
    told: set[Pair] = field(default_factory=set)
    """Failures named in a bounce that is collected, queued or delivered."""
    arrived: set[Pair] = field(default_factory=set)
    """Recipients that have a whole message in a Maildir."""
    faults: list[str] = field(default_factory=list)
    """What nobody may find, whatever was lost."""
    stale: set[MessId] = field(default_factory=set)
    """Numbers without a message that have files: to be met by the next of them."""

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Left:
        """What files (path, content) say."""
        left = cls()
        found: dict[MessId, dict[str, bytes]] = defaultdict(dict)
        for path, data in files.items():
            top, _, rest = path.partition("/")
            if top == "alias":
                left._read_arrived(path, data)
            elif top == "aside":
                left.faults.append(f"{path} was set aside")
            elif top in FILES:
                messid = parse_messid(rest.rpartition("/")[2])
                assert messid is not None, path
                found[messid][top] = data
        for messid, parts in found.items():
            left._read_message(messid, parts)
        return left

    def _read_arrived(self, path: str, data: bytes) -> None:
        if "/new/" not in path:
            return
        found = _DELIVERED_TO.search(data)
        if found is None or not data.endswith(body(int(found[2]))):
            # Being delivered; if it counts as delivered, it is missed elsewhere.
            return
        pair = int(found[2]), found[1].decode()
        self.arrived.add(pair)
        if pair[1] == "sender":
            self._read_bounce(data)

    def _read_message(self, messid: MessId, parts: dict[str, bytes]) -> None:
        try:
            match fate(frozenset(parts)):
                case Fate.PREPROCESS:
                    envelope = parse_todo(parts["todo"])
                    recips: Iterable[bytes] = envelope.recips
                    self._read_queued(parts, envelope.sender, recips)
                case Fate.DELIVER:
                    sender = parse_info(parts["info"])
                    recips = list(_undone(parts))
                    self._read_queued(parts, sender, recips)
                    self._read_named(parts.get("bounce", b""))
                case Fate.ASIDE:
                    self.faults.append(f"{messid}: {sorted(parts)} without mess")
                case Fate.LEFTOVER:
                    self.stale.add(messid)
                case Fate.SWEEP | Fate.NONE:
                    pass
        except QueueCorrupt as exc:
            self.faults.append(f"{messid}: {exc} in {sorted(parts)}")

    def _read_queued(
        self, parts: dict[str, bytes], sender: bytes, recips: Iterable[bytes]
    ) -> None:
        pairs = {pair_of(recip) for recip in recips}
        if sender:
            # A queue file of another message would name another number.
            pairs.add((pair_of(sender)[0], ""))
        numbers = {number for number, _ in pairs}
        if len(numbers) != 1 or not parts["mess"].endswith(body(min(numbers))):
            if pairs:
                self.faults.append(f"{sorted(pairs)} have another's message, or none")
            return
        self.waiting.update(pair for pair in pairs if pair[1])
        if any(kind == "sender" for _, kind in pairs):
            self._read_bounce(parts["mess"])

    def _read_bounce(self, message: bytes) -> None:
        self._read_named(message[: message.find(_COPY)])

    def _read_named(self, text: bytes) -> None:
        for kind, number in _NAMED.findall(text):
            pair = int(number), kind.decode()
            self.told.add(pair)
            if pair[1] not in RETURNED:
                self.faults.append(f"{pair} is returned, and never fails")


def _undone(parts: dict[str, bytes]) -> Iterator[bytes]:
    for channel in ("local", "remote"):
        for _offset, is_done, recip in parse_recips(parts.get(channel, b"")):
            if not is_done:
                yield recip


def missing(accepted: Iterable[int], left: Left, taken: set[Pair]) -> list[Pair]:
    """What was acknowledged and is nowhere; `taken` is what SMTP servers have."""
    kept = left.waiting | left.told | left.arrived | taken

    def is_kept(pair: Pair) -> bool:
        if pair in kept:
            return True
        number, kind = pair
        became = BECOMES.get(kind, ())
        return bool(became) and all(is_kept((number, each)) for each in became)

    wanted = [(number, kind) for number in accepted for kind in kinds_of(number)]
    return [pair for pair in wanted if not is_kept(pair)]


def as_always(recip: bytes) -> Outcome:
    """Those fail that always do."""
    return FAILURE if recip.startswith(b"no") else SUCCESS


def all_fail(_recip: bytes) -> Outcome:
    """Everything that is still attempted fails, and shows in a bounce."""
    return FAILURE


def live_on(
    disk: FakeDisk, left: Left, outcome: Callable[[bytes], Outcome]
) -> list[str]:
    """Work the queue of a disk until it is empty; what went wrong.

    Where files without a message are left, a new message gets their number.
    """
    queue = FakeQueue(disk)
    # A number is free unless the file lives on elsewhere, in a Maildir of another time.
    free = (each for each in sorted(left.stale) if disk.free_ino(each) == each)
    fresh = next(free, None)
    if fresh is not None:
        disk.first_ino = fresh
        envelope = b"u0\0p1\0Fsender-0@here\0T" + FRESH + b"\0"
        assert queue.inject(b"x\n", envelope) == fresh
    sim = Sim(queue, outcome, now=max(NOW, disk.now_ns // 10**9) + 1)
    sim.run()
    if any(len(dues) for dues in sim.manager.dues.values()):
        sim.clocks.wall += WEEK + 10**6
        sim.run()
    ended = {event.recip for event in (*sim.delivered, *sim.bounced)}
    wanted = {f"{kind}-{number}@".encode() for number, kind in left.waiting}
    wanted |= {FRESH[: FRESH.index(b"@") + 1]} if fresh is not None else set()
    found = {recip[: recip.index(b"@") + 1] for recip in ended}
    told = {f"{kind}-{number}@".encode() for number, kind in left.told}
    faults = [f"{recip!r} was not attempted" for recip in sorted(wanted - found)]
    faults += [f"{recip!r} came back" for recip in sorted(found - wanted - told)]
    faults += [repr(line) for line in sim.log if line.startswith((b"alert", b"warn"))]
    after = Left.read(disk.files())
    faults += [f"{pair} is still there" for pair in sorted(after.waiting)]
    return faults + after.faults
