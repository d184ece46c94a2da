"""One local delivery from the home to the report, and the listing of `-n`.

Serves the local child (many at once) and the program qmail-local. The process must
already be the user's: nothing here knows privilege.
A deferral after a line that succeeded repeats that line at the next attempt, as
in qmail: dot-qmail(5) advises separate addresses where that matters.
Source: qmail-local.c main(), dot-qmail(5).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

from qsend.core import dotqmail, localenv
from qsend.core.dotqmail import (
    Effect,
    Forward,
    Instruction,
    Maildir,
    Mbox,
    Program,
    Refusal,
)
from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.model import Letter, User
from qsend.formats.control import Durability
from qsend.formats.delivery import ChildDelivery, Report
from qsend.sysio import clock, dotqmailfile, program
from qsend.sysio.durable import BLOCKS, Steps, finish
from qsend.sysio.maildir import Maildirs
from qsend.sysio.mbox import Mboxes
from qsend.sysio.messagefile import MessageFile, check_loop

Inject = Callable[[Iterable[bytes], bytes, Sequence[bytes], Mapping[str, str]], int]
"""(message pieces, sender, recipients, environment that programs get) -> qp of the
queued message. Its TempFail and PermFail say why in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is the same for all deliveries of a process.

    `patrn` are the mode bits refused on home and dot-qmail file; `base` the
    environment that programs get besides their own variables; `collects` puts
    the output of programs into the report, otherwise they inherit descriptors 1
    and 2.
    """

    patrn: int
    default_delivery: bytes
    durability: Durability
    base: Mapping[bytes, bytes]
    collects: bool


@dataclass(slots=True)
class _Run:
    """One delivery under way: what it needs, what it has done."""

    delivery: ChildDelivery
    message: MessageFile
    home_fd: int
    now: int
    new_sender: bytes
    environ: Mapping[bytes, bytes]
    output: bytearray
    files: int = 0
    programs: int = 0


class Deliverer:
    """Carries out deliveries; many may be under way, in several threads."""

    def __init__(self, settings: Settings, inject: Inject) -> None:
        self._settings = settings
        self._inject = inject
        self._maildirs = Maildirs(settings.durability)
        self._mboxes = Mboxes(settings.durability)
        self._state = threading.Condition()
        self._writing = 0
        self._stop = threading.Event()

    def deliver(self, delivery: ChildDelivery, mess_fd: int) -> Report:
        """Carry out all of `steps`."""
        return finish(self.steps(delivery, mess_fd))

    def steps(self, delivery: ChildDelivery, mess_fd: int) -> Steps[Report]:
        """Deliver one message to one user and say what became of it.

        Args:
            mess_fd: the message, seekable; stays the caller's.
        Yields: what must be durable before it goes on.
        Returns: the report; its text starts with what programs wrote.
        Raises: Nothing of the QsendError tree, and no OSError.
        """
        output = bytearray()
        try:
            yield from self._deliver(delivery, MessageFile(mess_fd), output)
            letter = Letter.SUCCESS
        except PermFail as exc:
            letter = Letter.FAILURE
            output += _line(str(exc))
        except QsendError as exc:
            letter = Letter.DEFERRAL
            output += _line(str(exc))
        except OSError as exc:
            letter = Letter.DEFERRAL
            output += _line(f"System trouble: {exc}. (#4.3.0)")
        return Report(delid=delivery.delid, letter=letter, text=bytes(output))

    def settle(self, limit_s: float) -> bool:
        """Start nothing more; wait until nothing is half written.

        Running programs are not waited for. Returns: False when the limit came
        first.
        """
        with self._state:
            self._stop.set()
            return self._state.wait_for(lambda: self._writing == 0, limit_s)

    def _deliver(
        self, delivery: ChildDelivery, message: MessageFile, output: bytearray
    ) -> Steps[None]:
        settings, user = self._settings, delivery.user
        home_fd = dotqmailfile.open_home(user, settings.patrn)
        try:
            check_loop(message, localenv.delivered_to(delivery.local, delivery.domain))
            chosen = choose(home_fd, user, settings.patrn)
            steps = instructions(chosen, settings.default_delivery)
            run = self._prepare(delivery, message, home_fd, chosen.default, steps)
            run.output = output
            if _may_block(steps) or message.size() > _LONG:
                yield BLOCKS
            recips = yield from self._carry_out(run, steps)
            queued = self._forward(run, recips) if recips else None
        finally:
            os.close(home_fd)
        output += b"did %d+%d+%d\n" % (run.files, len(recips), run.programs)
        if queued is not None:
            output += b"qp %d\n" % queued

    def _prepare(
        self,
        delivery: ChildDelivery,
        message: MessageFile,
        home_fd: int,
        default: bytes | None,
        steps: Sequence[Instruction],
    ) -> _Run:
        run = _Run(
            delivery=delivery,
            message=message,
            home_fd=home_fd,
            now=clock.now(),
            new_sender=delivery.sender,
            environ={},
            output=bytearray(),
        )
        # Before the first step, so that trouble here repeats none of them; and
        # only when a step needs it: most mail goes to a maildir alone.
        if any(isinstance(step, Program | Forward) for step in steps):
            user = delivery.user
            run.new_sender = dotqmail.new_sender(
                delivery.sender,
                delivery.local,
                delivery.domain,
                dotqmailfile.find_owner(home_fd, user.dash, user.ext),
            )
            run.environ = localenv.environment(
                self._settings.base,
                user,
                local=delivery.local,
                domain=delivery.domain,
                sender=delivery.sender,
                new_sender=run.new_sender,
                default=default,
                now=run.now,
            )
        return run

    def _carry_out(self, run: _Run, steps: Iterable[Instruction]) -> Steps[list[bytes]]:
        """Do the steps in order; return the addresses to forward to."""
        recips: list[bytes] = []
        for step in steps:
            match step:
                case Maildir(path):
                    with self._no_stop():
                        yield from self._maildirs.deliver(
                            run.home_fd, path, _prefix(run.delivery), run.message
                        )
                    run.files += 1
                case Mbox(path):
                    with self._no_stop():
                        self._append(run, path)
                    run.files += 1
                case Forward(address):
                    recips.append(address)
                case Program(command):
                    run.programs += 1
                    if self._run_program(run, command) is Effect.STOP:
                        break
                case Refusal(reason):
                    raise TempFail(reason)
                case _:
                    assert_never(step)
        return recips

    def _append(self, run: _Run, path: bytes) -> None:
        line = localenv.from_line(run.delivery.sender, run.now)
        prefix = line + _prefix(run.delivery)
        self._mboxes.deliver(run.home_fd, path, prefix, run.message)

    def _run_program(self, run: _Run, command: bytes) -> Effect:
        if self._stop.is_set():
            raise TempFail(_STOPPING)
        code = program.run(
            command,
            home_fd=run.home_fd,
            mess_fd=run.message.fd,
            environ=run.environ,
            output=run.output if self._settings.collects else None,
        )
        effect = dotqmail.effect(code)
        # No words of ours: what the program wrote is the report.
        if effect is Effect.FAILURE:
            raise PermFail
        if effect is Effect.DEFERRAL:
            raise TempFail
        return effect

    def _forward(self, run: _Run, recips: Sequence[bytes]) -> int:
        dtline = localenv.delivered_to(run.delivery.local, run.delivery.domain)
        pieces = _pieces(dtline, run.message)
        # A program that queues instead of qmail-queue may look at SENDER and such.
        environ = {os.fsdecode(k): os.fsdecode(v) for k, v in run.environ.items()}
        with self._no_stop():
            try:
                return self._inject(pieces, run.new_sender, recips, environ)
            except (PermFail, TempFail) as exc:
                raise type(exc)(f"Unable to forward message: {exc}.") from exc

    @contextmanager
    def _no_stop(self) -> Iterator[None]:
        """`settle` waits for what runs inside. Raises: TempFail once it was called."""
        with self._state:
            if self._stop.is_set():
                raise TempFail(_STOPPING)
            self._writing += 1
        try:
            yield
        finally:
            with self._state:
                self._writing -= 1
                if self._stop.is_set():
                    self._state.notify_all()


def choose(home_fd: int, user: User, patrn: int) -> dotqmailfile.Chosen:
    """What alias rows say, else the dot-qmail file that decides.

    Raises: PermFail, TempFail, as dotqmailfile.choose.
    """
    if user.instructions is None:
        return dotqmailfile.choose(home_fd, user.dash, user.ext, patrn)
    return dotqmailfile.Chosen(
        content=user.instructions, default=None, forward_only=False
    )


_LONG = 1 << 20
"""A message of more bytes is not written while others wait."""


def _may_block(steps: Iterable[Instruction]) -> bool:
    """Whether a program, a lock or the queue may have to be waited for."""
    return any(isinstance(step, Program | Mbox | Forward) for step in steps)


_STOPPING = "The delivery process is ending. (#4.3.0)"


def _pieces(dtline: bytes, message: MessageFile) -> Iterator[bytes]:
    yield dtline
    yield from message.chunks()


def _prefix(delivery: ChildDelivery) -> bytes:
    return localenv.return_path(delivery.sender) + localenv.delivered_to(
        delivery.local, delivery.domain
    )


def _line(text: str) -> bytes:
    """Report text: one LF at its end, unless there is no text at all."""
    return os.fsencode(text.rstrip("\n") + "\n") if text else b""


def instructions(
    chosen: dotqmailfile.Chosen, default_delivery: bytes
) -> tuple[Instruction, ...]:
    """The steps of the chosen file; those of the default delivery if it is empty.

    An empty file that is executable is not "forward only": it has no say.
    """
    if not chosen.content:
        return tuple(dotqmail.parse(default_delivery, forward_only=False))
    return tuple(dotqmail.parse(chosen.content, forward_only=chosen.forward_only))


def describe(steps: Iterable[Instruction]) -> Iterator[bytes]:
    """What `-n` prints: a line per step, then the counts.

    Raises: TempFail at a step that would be refused, after the lines before it.
    """
    files = forwards = programs = 0
    for step in steps:
        match step:
            case Maildir(path):
                files += 1
                yield b"maildir %b\n" % path
            case Mbox(path):
                files += 1
                yield b"mbox %b\n" % path
            case Forward(address):
                forwards += 1
                yield b"forward %b\n" % address
            case Program(command):
                programs += 1
                yield b"program %b\n" % command
            case Refusal(reason):
                raise TempFail(reason)
            case _:
                assert_never(step)
    yield b"did %d+%d+%d\n" % (files, forwards, programs)
