"""Sim: send without processes: the real manager, loader, executor and cleaner on a
fake disk, with deliveries whose outcome the test decides.

One `step` does what one turn of send's loop does, and every wait of its plans ends
in it. `delivered` and `bounced` remember at which operation of the disk they
happened, so that a test can cut the run anywhere and ask what was known by then.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qsend.core.lookups import Locality
from qsend.core.manager import Manager
from qsend.core.message import (
    Forget,
    ForgetSilence,
    LoadJob,
    LoadTodo,
    SaveHolds,
    StartDelivery,
)
from qsend.core.model import Cause, Channel, DelId, FileIdentity, Letter, MessId
from qsend.core.plan import Plan, Purpose
from qsend.core.rewrite import Rules
from qsend.core.settings import Settings
from qsend.formats import cleanwire
from qsend.formats.delivery import LocalDelivery, Report, Transaction
from qsend.formats.routing import Routing
from qsend.sysio import schedule
from qsend.sysio.executor import Executor
from qsend.sysio.loader import Loader
from qsend.sysio.spawnlines import LocalLine, RemoteLines
from qsend.sysio.starter import Starter
from tests.fakes import FakeQueue, FakeSyncer

Outcome = tuple[Letter, bytes, Cause]
SUCCESS: Outcome = (Letter.SUCCESS, b"ok\n", Cause.NORMAL)
DEFERRAL: Outcome = (Letter.DEFERRAL, b"later\n", Cause.NORMAL)
FAILURE: Outcome = (Letter.FAILURE, b"never\n", Cause.NORMAL)
UNREACHABLE: Outcome = (Letter.DEFERRAL, b"no host\n", Cause.UNREACHABLE)
CRASHED: Outcome = (Letter.DEFERRAL, b"lost\n", Cause.CRASHED)
CHILD_LOST: Outcome = (Letter.DEFERRAL, b"lost\n", Cause.CHILD_LOST)
MANGLED: Outcome = (Letter.DEFERRAL, b"mangled\n", Cause.MANGLED)

DOWN = b"down"
"""The trouble of a database that does not answer."""
NOW = 1_000_000_000
WEEK = 604800
SETTINGS = Settings(
    lifetime=WEEK,
    limits={Channel.LOCAL: 10, Channel.REMOTE: 20},
    destination_limit=lambda _key: 20,
    virtualdomains={},
    group_max=100,
)
ROUTING = Routing(
    rules=Rules(envnoathost=b"here", locals=frozenset({b"here"})), smtproutes={}
)


@dataclass
class Event:
    """Something irrevocable, and how many disk operations came before it."""

    ops: int
    recip: bytes


@dataclass
class SimLoop:
    """Timers and soon-calls that the test runs."""

    soon: deque[Callable[[], None]] = field(default_factory=deque)
    later: list[Callable[[], None]] = field(default_factory=list)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, _delay_s: float, callback: Callable[[], None]) -> None:
        self.later.append(callback)


@dataclass
class SimClocks:
    """Clocks that move when the test says so."""

    wall: int
    monotonic: float = 0.0

    def now(self) -> int:
        return self.wall

    def mono(self) -> float:
        return self.monotonic


class Sim:
    """One life of send on a fake disk."""

    def __init__(
        self,
        queue: FakeQueue,
        outcome: Callable[[bytes], Outcome],
        *,
        now: int = NOW,
        settings: Settings = SETTINGS,
        places: Callable[[bytes], Locality] | None = None,
    ) -> None:
        self.queue = queue
        self.outcome = outcome
        self.clocks = SimClocks(now)
        self.log: list[bytes] = []
        self.delivered: list[Event] = []
        self.bounced: list[Event] = []
        self.started: list[StartDelivery] = []
        self.hold_reports = self.hold_clean = False
        self.reports: deque[tuple[DelId, bytes]] = deque()
        self.loop = SimLoop()
        self.syncer = FakeSyncer(queue.disk)
        self.manager = Manager(settings, lambda: 0)
        for channel in Channel:
            self.manager.set_capacity(channel, 1000)
        self._cleaner = queue.cleaner()
        self._requests: list[tuple[cleanwire.Request, Callable[..., None]]] = []
        local = LocalLine()
        local.attach(self)
        self.executor = Executor(
            self.loop, queue, self.syncer, self, self, self.log.append, self._done
        )
        self.loader = Loader(
            queue, self.syncer, self.manager, ROUTING, self.log.append, self.clocks
        )
        self.starter = Starter(
            queue,
            self.loader,
            self.manager,
            local,
            _Remote(self),
            self.log.append,
            self.clocks,
        )
        self.places = places
        self.asked: deque[
            tuple[Sequence[bytes], Callable[[Mapping[bytes, Locality]], None]]
        ] = deque()
        self.hold_places = False
        if places is not None:
            self.loader.places = self
        schedule.load(queue, self.manager, now)
        for messid in queue.list_todo():
            self.manager.known(messid)

    # what the executor asks of a cleaner and a bouncer

    def todo(self, messid: MessId, answer: Callable[..., None]) -> None:
        self._requests.append((cleanwire.Todo(messid=messid), answer))

    def foop(
        self, messid: MessId, identity: FileIdentity, answer: Callable[..., None]
    ) -> None:
        request = cleanwire.Foop(messid=messid, identity=identity)

        def settled(error: OSError | None) -> None:
            # As CleanLine: another file by now means that ours is gone.
            answer(None if error and error.errno == errno.ESTALE else error)

        self._requests.append((request, settled))

    def aside(self, messid: MessId, reason: str, answer: Callable[..., None]) -> None:
        request = cleanwire.Aside(
            messid=messid, stamp=self.clocks.wall, reason=reason.encode()
        )

        def moved(error: OSError | None) -> None:
            self.queue.move_aside(messid, request.stamp)
            answer(error)

        self._requests.append((request, moved))

    def send(
        self, messid: MessId, _sender: bytes, answer: Callable[[bool], None]
    ) -> None:
        text = self.queue.read_bounce(messid)
        if text is not None:
            for line in text.split(b"\n"):
                if line.startswith(b"<"):
                    recip = line[1:].partition(b">")[0]
                    self.bounced.append(Event(len(self.queue.disk.ops), recip))
        self.loop.call_soon(lambda: answer(True))

    # what the loader asks of lookup

    def ask(
        self,
        addresses: Sequence[bytes],
        done: Callable[[Mapping[bytes, Locality]], None],
    ) -> None:
        self.asked.append((addresses, done))

    def is_down(self, reason: bytes) -> bool:
        return reason == DOWN

    def answer_places(self) -> None:
        """Every question asked until now is answered."""
        assert self.places is not None
        for _ in range(len(self.asked)):
            addresses, done = self.asked.popleft()
            done({address: self.places(address) for address in addresses})

    # what the starter asks of spawners

    @property
    def name(self) -> str:
        return "lspawn"

    @property
    def slots(self) -> int:
        return 1000

    def start_path(self, delivery: LocalDelivery) -> None:
        self.attempt(delivery.delid, delivery.recip)

    def attempt(self, delid: DelId, recip: bytes) -> None:
        self.reports.append((delid, recip))

    # one turn

    def step(self) -> None:
        """One turn: work, then everything that was waited for."""
        self.manager.pump(self.clocks.wall, self.clocks.monotonic)
        while actions := self.manager.take_actions():
            for action in actions:
                self._act(action)
            self.manager.fill(self.clocks.wall, self.clocks.monotonic)
        self.syncer.run()
        if self.hold_clean:
            return
        requests, self._requests = self._requests, []
        errors = self._cleaner.work([request for request, _ in requests])
        for (_request, answer), code in zip(requests, errors, strict=True):
            answer(OSError(code, "clean") if code else None)
        for _ in range(len(self.loop.soon)):
            self.loop.soon.popleft()()
        if not self.hold_reports:
            self.report_all()
        if self.places is not None and not self.hold_places:
            self.answer_places()

    def report_all(self) -> None:
        """Every delivery under way ends as the test says."""
        while self.reports:
            self.report(*self.reports.popleft())

    def report(self, delid: DelId, recip: bytes) -> None:
        letter, text, cause = self.outcome(recip)
        if letter is Letter.SUCCESS:
            self.delivered.append(Event(len(self.queue.disk.ops), recip))
        self.starter.report(Report(delid=delid, letter=letter, text=text, cause=cause))

    def run(self, steps: int = 200) -> None:
        """Turn until nothing happens any more."""
        quiet = 0
        for _ in range(steps):
            before = (len(self.queue.disk.ops), len(self.log))
            self.step()
            same = before == (len(self.queue.disk.ops), len(self.log))
            quiet = quiet + 1 if same and not self.reports and not self.asked else 0
            if quiet == 2:
                return
        raise AssertionError("still busy")

    def run_until(self, is_so: Callable[[], bool], steps: int = 50) -> None:
        """Turn until something is so."""
        for _ in range(steps):
            if is_so():
                return
            self.step()
        raise AssertionError("did not happen")

    def lines(self, start: bytes) -> list[bytes]:
        return [line for line in self.log if line.startswith(start)]

    def _done(self, plan: Plan) -> None:
        self.manager.plan_done(plan, self.clocks.wall)

    def _act(self, action: object) -> None:
        match action:
            case bytes():
                self.log.append(action)
            case StartDelivery():
                self.started.append(action)
                self.starter.start(action)
            case Plan():
                if action.purpose is Purpose.PREPROCESS:
                    self.loader.forget(action.messid)
                self.executor.submit(action)
            case LoadTodo():
                self.loader.load_todo(action)
            case LoadJob():
                self.loader.load_job(action)
            case Forget():
                self.loader.forget(action.messid)
            case SaveHolds() | ForgetSilence():
                pass
            case _:
                raise AssertionError(action)


class _Remote(RemoteLines):
    """Remote processes that do what the sim's outcome says."""

    def __init__(self, sim: Sim) -> None:
        super().__init__(lambda: None)
        self._sim = sim

    def start(self, transaction: Transaction, fd: int) -> None:
        self._sim.queue.close_fd(fd)
        for delid, recip in transaction.recips:
            self._sim.attempt(delid, recip)
