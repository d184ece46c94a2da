"""send: the queue manager, qmail-send's part.

Account qmails, group qmail. Owns info/, local/, remote/ and bounce/; reads mess/
and todo/. Speaks with start, clean, lspawn, the remote processes, enqueue and lookup;
its log goes to descriptor 1. Exit codes: 0 after TERM or when start is gone, 111 when
clean is lost or the queue cannot be read. All decisions are core/manager.py's.
"""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Mapping

import setproctitle

from qsend.core import logline
from qsend.core.destinations import ILL_SPREAD
from qsend.core.errors import Fatal, RemoteProtocolError
from qsend.core.lifecycle import Action
from qsend.core.manager import Manager
from qsend.core.message import (
    Forget,
    ForgetSilence,
    LoadJob,
    LoadTodo,
    SaveHolds,
    StartDelivery,
)
from qsend.core.model import Channel
from qsend.core.operator import flush, resolve, restore
from qsend.core.plan import Plan, Purpose
from qsend.formats import injection, startwire
from qsend.formats.control import parse_controls
from qsend.formats.frames import HELLO
from qsend.formats.sendcontrols import bounce_identity, routing, settings
from qsend.sysio import clock, privilege, sandbox, schedule
from qsend.sysio.boot import Boot
from qsend.sysio.bouncer import Bouncer
from qsend.sysio.cleanline import ClassicCleanLine, CleanLine
from qsend.sysio.controlserver import ControlServer
from qsend.sysio.endpoint import Descriptors, Endpoint
from qsend.sysio.executor import Bouncer as BounceQueuer
from qsend.sysio.executor import Executor
from qsend.sysio.fsq import Queue
from qsend.sysio.holdfile import HoldFile
from qsend.sysio.loader import Loader
from qsend.sysio.logsink import LogSink
from qsend.sysio.loop import Loop, Wake
from qsend.sysio.parent import Parent
from qsend.sysio.placeline import PlaceLine
from qsend.sysio.pressure import Pressure
from qsend.sysio.spawners import CLASSIC, Spawners
from qsend.sysio.starter import Starter
from qsend.sysio.steadytime import SteadyTime
from qsend.sysio.sweeper import Sweeper
from qsend.sysio.syncer import Syncer
from qsend.sysio.todoscan import TodoScan
from qsend.sysio.trigger import Trigger
from qsend.sysio.wire import Wire, wires_of


def main(boot: Boot) -> int:
    """Serve until told to end."""
    setproctitle.setproctitle("qmail-send: qsend")
    log = LogSink(1)
    try:
        privilege.drop(boot.accounts.qmails)
        privilege.harden()
        sandbox.apply("send", boot.home)
        return Send(boot, log).run()
    except Fatal as exc:
        log.alert(str(exc))
    except OSError as exc:
        log.alert(f"cannot go on: {exc}")
    log.flush()
    return 111


class Send:
    """The wiring of one send process."""

    def __init__(self, boot: Boot, log: LogSink) -> None:
        self.loop = Loop()
        self.sink = log
        self.controls = boot.controls
        self.queue = Queue(boot.queue)
        self.wires = self.open_wires(boot)
        self.classic = CLASSIC[1] in self.wires
        self.manager = Manager(
            settings(boot.controls, self.classic), lambda: random.randrange(ILL_SPREAD)
        )
        self.syncer = Syncer(
            self.loop, boot.controls.durability, [self.queue.dir_fd("info/0")]
        )
        self.holds = HoldFile(f"{boot.home}/run/send/holds")
        self.spawners = Spawners(
            self.loop,
            self.manager,
            lambda report: self.starter.report(report),
            self.spawner_lost,
            lambda: self._ask(startwire.ASK_ISOLATED),
        )
        self.pressure = Pressure()
        self.bouncer = Bouncer(
            self.queue, lambda: bounce_identity(self.controls), log.say
        )
        self.cleaner = self._clean_line(boot)
        self.executor = Executor(
            self.loop,
            self.queue,
            self.syncer,
            self.cleaner,
            self.bounces(),
            log.say,
            self._plan_done,
        )
        self.loader = Loader(
            self.queue, self.syncer, self.manager, routing(boot.controls), log.say
        )
        self.places = PlaceLine(
            self.loop, log.say, lambda: resolve(self.manager, clock.now())
        )
        self._set_places()
        self.starter = Starter(
            self.queue,
            self.loader,
            self.manager,
            self.spawners.local,
            self.spawners.remote,
            log.say,
        )
        self.time = SteadyTime(self.manager, log.say)
        self.sweeper = Sweeper(
            self.loop,
            self.queue,
            self.cleaner,
            self.manager.messages.__contains__,
            self.time.now,
            log.say,
        )
        self.parent = Parent(
            self.loop,
            boot.socks["start"],
            on_close=self._start_lost,
            on_controls=self._configure,
            on_peer=self._attach,
            on_signal=self._signalled,
            on_ping=self._tell_how,
        )
        if "control" in boot.socks:
            ControlServer(
                self.loop,
                boot.socks["control"],
                self.queue,
                self.manager,
                self.parent,
                lambda: self.controls.generation,
            )
        self.todo = TodoScan(
            self.loop,
            self.queue,
            Trigger(f"{boot.queue}/lock/trigger"),
            self.manager.known,
            log.say,
        )
        self._wake = Wake(self.loop)
        self._status = b""
        self._deadline_mono: float | None = None
        self._peers = {
            name: sock
            for name, sock in boot.socks.items()
            if name not in ("start", "clean", "control", *self.wires)
        }

    def open_wires(self, boot: Boot) -> dict[str, Wire]:
        """Role to wire of the classic programs that serve us."""
        return wires_of(boot.socks)

    def bounces(self) -> BounceQueuer:
        """What queues our bounces: enqueue, when there is one."""
        return self.bouncer

    def run(self) -> int:
        """Load the schedule, then serve until stopped."""
        self.loop.on_signal(signal.SIGTERM, lambda: self._ask(startwire.ASK_STOP_ALL))
        self.loop.on_signal(signal.SIGHUP, lambda: self._ask(startwire.ASK_RELOAD))
        self.loop.on_signal(
            signal.SIGALRM, lambda: self._signalled(startwire.SIGNAL_ALRM)
        )
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.controls.durability.value != "full":
            self.sink.warning(f"durability is {self.controls.durability.value}")
        restore(self.manager, self.holds.load(self.queue))
        self._say_status()
        for name, sock in self._peers.items():
            self._attach(name, sock)
        for name in CLASSIC:
            if name in self.wires:
                self.spawners.attach_classic(name, self.wires[name])
        schedule.load(self.queue, self.manager, clock.now())
        self.todo.start()
        self.sweeper.start()
        self.spawners.check_silence(self._kill_silent)
        self.loop.at_turn_end(self._work)
        self.parent.ready()
        self.loop.run()
        self.syncer.close()
        self.loop.turn(0)
        self.sink.say(logline.EXITING)
        self.sink.flush()
        return 0

    # --- each turn

    def _work(self) -> None:
        """Do everything that this turn's events and the time allow."""
        self.time.look()
        now, now_mono = clock.now(), clock.mono()
        self.manager.pump(now, now_mono)
        while actions := self.manager.take_actions():
            for action in actions:
                self._do(action)
            self.manager.fill(now, now_mono)
        self.spawners.remote.pump_suspects()
        self.bouncer.push()
        self.pressure.measure(self.manager.backlog_size)
        self._say_status()
        self.sink.flush()
        self._arm(now, now_mono)

    def _do(self, action: Action) -> None:
        match action:
            case bytes():
                self.sink.say(action)
            case StartDelivery():
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
            case SaveHolds():
                self._save_holds()
            case ForgetSilence():
                self.spawners.remote.forget_silence()

    def _say_status(self) -> None:
        running = self.manager.attempts.running
        local, remote = self.spawners.limits()
        # Who stops with nothing under way says no more than "status: exiting".
        is_leaving = any(running.values()) or self._status.endswith(b" exitasap\n")
        line = logline.status(
            running[Channel.LOCAL],
            local,
            running[Channel.REMOTE],
            remote,
            exiting=self.manager.exiting and is_leaving,
        )
        if line != self._status:
            self._status = line
            self.sink.say(line)

    def _tell_how(self) -> bytes:
        """One line for who looks after the service."""
        dues = self.manager.dues
        waiting = max((len(dues[channel]) for channel in Channel), default=0)
        how = self._status.removeprefix(b"status: ").strip()
        return b"%b; at least %d messages wait for their time" % (how, waiting)

    def _arm(self, now: int, now_mono: float) -> None:
        if self.manager.exiting:
            self._finish_when_drained()
            return
        wait_s = self.manager.next_wake_s(now, now_mono)
        if wait_s is not None:
            self._wake.by(now_mono + wait_s)

    # --- the end

    def stop(self) -> None:
        """Start nothing new, and end when what is under way has ended."""
        if not self.manager.exiting:
            self._deadline_mono = clock.mono() + self.controls.timeoutterm
            self.manager.stop()
            Wake(self.loop).by(self._deadline_mono)

    def _finish_when_drained(self) -> None:
        """End when nothing is under way, or when time is over for deliveries."""
        busy = bool(self.manager.attempts.deliveries)
        if self._deadline_mono is not None and clock.mono() >= self._deadline_mono:
            busy = False
        if not busy and self.executor.idle() and self.syncer.idle():
            self.loop.stop()

    def _start_lost(self) -> None:
        self.manager.stop()
        self._deadline_mono = clock.mono()

    # --- events from outside

    def _plan_done(self, plan: Plan) -> None:
        self.manager.plan_done(plan, clock.now())

    def _signalled(self, word: bytes) -> None:
        if word == startwire.SIGNAL_TERM:
            self.stop()
        elif word == startwire.SIGNAL_ALRM:
            flush(self.manager, b"all", clock.now())

    def _ask(self, word: bytes) -> None:
        self.parent.ask(word)

    def _configure(self, generation: int, files: Mapping[str, bytes]) -> None:
        """Swap to a new generation of controls, validated by start."""
        self.controls = parse_controls(files, generation)
        self.manager.configure(settings(self.controls, self.classic))
        self.loader.routing = routing(self.controls)
        self._set_places()
        resolve(self.manager, clock.now())
        self.syncer.set_level(self.controls.durability)

    def _set_places(self) -> None:
        """Without a database nobody is asked, and nothing waited for."""
        self.loader.places = self.places if self.controls.has_sql else None
        if self.loader.places is None:
            self.manager.backlog.unpark()

    def _save_holds(self) -> None:
        try:
            self.holds.save(self.manager.attempts.held, self.queue)
        except OSError as exc:
            self.sink.warning(f"holds will not survive a restart: {exc.strerror}")

    # --- peers

    def _attach(self, name: str, sock: socket.socket) -> None:
        if name == "enqueue":
            endpoint = Endpoint(
                self.loop, sock, self._from_enqueue, lambda _: self.bouncer.lost()
            )
            self.bouncer.attach(endpoint)
            self.pressure.attach(endpoint)
            self.todo.scan()
        elif name == "lookup":
            self.places.attach(sock)
        else:
            self.spawners.attach(name, sock)

    def spawner_lost(self, name: str, reason: str) -> None:
        """Go on without it; start brings another."""
        if not self.manager.exiting and name != "isolated":
            self.sink.warning(f"lost {name}: {reason}")

    def _kill_silent(self, name: str) -> None:
        self.sink.warning(f"{name} does not answer; it will be killed")
        self._ask(startwire.ASK_KILL + name.encode())

    def _from_enqueue(self, kind: bytes, body: bytes, _fds: Descriptors) -> None:
        if kind == injection.QUEUED:
            for messid in injection.parse_queued(body):
                self.manager.known(messid)
        elif kind == injection.RESULT:
            self.bouncer.answered(body)
        elif kind != HELLO:
            raise RemoteProtocolError(f"unexpected frame {kind!r} from enqueue")

    def _clean_line(self, boot: Boot) -> CleanLine | ClassicCleanLine:
        classic = self.wires.get("classic-clean")
        if classic is not None:
            return ClassicCleanLine(
                self.loop, classic, self.sink.flush, self.queue.todo_exists
            )
        return CleanLine(
            self.loop,
            boot.socks["clean"],
            self.sink.flush,
            self.queue.move_aside,
            clock.now,
        )
