"""Reads queue files for the manager: new messages, and jobs that are due.

Every reading ends in one event to the manager: loaded, failed (later), or damaged.
Source: qmail-send.c todo_do, pass_dochan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from qsend.core import logline
from qsend.core.errors import QueueCorrupt
from qsend.core.lookups import Locality
from qsend.core.manager import Manager
from qsend.core.message import LoadJob, LoadTodo, Message, Phase
from qsend.core.model import Channel, FileIdentity, MessId
from qsend.core.placed import Rewritten, placed
from qsend.core.rewrite import qualified, rewrite
from qsend.core.users import Trouble
from qsend.formats import paths
from qsend.formats.recips import parse_recips
from qsend.formats.routing import Routing
from qsend.formats.todo import parse_todo
from qsend.sysio import clock
from qsend.sysio.clocks import Clocks
from qsend.sysio.executor import Committer
from qsend.sysio.fsq import Queue


class Places(Protocol):
    """Looks up where mail for addresses goes; sysio/placeline.py."""

    def ask(
        self,
        addresses: Sequence[bytes],
        done: Callable[[Mapping[bytes, Locality]], None],
    ) -> None:
        """Call `done` with an answer for each of the addresses."""

    def is_down(self, reason: bytes) -> bool:
        """Whether nothing can be looked up until it says so; `reason` is logged
        once then.
        """


class Loader:
    """Answers the manager's loads; keeps new messages' descriptors for a while."""

    def __init__(
        self,
        queue: Queue,
        syncer: Committer,
        manager: Manager,
        routing: Routing,
        say: Callable[[bytes], None],
        clocks: Clocks = clock,
    ) -> None:
        self.routing = routing
        self._queue = queue
        self._syncer = syncer
        self._manager = manager
        self._say = say
        self._clocks = clocks
        self._fds: dict[MessId, tuple[int, int]] = {}
        self.places: Places | None = None
        self._answers: dict[MessId, Mapping[bytes, Locality]] = {}

    def load_todo(self, load: LoadTodo) -> None:
        """Read todo/N and announce the message, when its recipients are known."""
        messid, path = load.messid, paths.todo(load.messid)
        try:
            content, mtime_ns = self._queue.read_todo(messid)
        except FileNotFoundError:
            return  # gone since it was seen: somebody else's business
        except QueueCorrupt as exc:
            self._damaged(messid, str(exc))
            return
        except OSError as exc:
            self._later(load, path, exc)
            return
        try:
            self._announce(messid, content, mtime_ns)
        except QueueCorrupt as exc:
            self._damaged(messid, f"{path}: {exc}")
        except FileNotFoundError:
            self._damaged(messid, f"{paths.mess(messid)} is missing")
        except OSError as exc:
            self._later(load, paths.mess(messid), exc)

    def load_job(self, load: LoadJob) -> None:
        """Read info/N and one channel's file."""
        messid, channel = load.messid, load.channel
        path = paths.info(messid)
        try:
            sender, birth, notes = self._queue.read_notes(messid)
        except FileNotFoundError:
            # What we remove is not due any more: it was somebody else.
            self._damaged(messid, f"{path} is missing")
            return
        except QueueCorrupt as exc:
            self._damaged(messid, str(exc))
            return
        except OSError as exc:
            self._later(load, path, exc)
            return
        try:
            self._queue.stat_mess(messid)
            files = {
                each for each in Channel if self._queue.due(each, messid) is not None
            }
            recips = self._waiting(channel, messid) if channel in files else []
            bouncing = self._queue.bounce_exists(messid)
        except QueueCorrupt as exc:
            self._damaged(messid, f"{paths.recips(channel, messid)}: {exc}")
            return
        except FileNotFoundError:
            self._damaged(messid, f"{paths.mess(messid)} is missing")
            return
        except OSError as exc:
            self._later(load, paths.recips(channel, messid), exc)
            return
        message = Message(messid, sender, birth, Phase.QUEUED, {}, files)
        message.bouncing = bouncing
        message.notes = notes
        self._manager.job_loaded(
            message, load, recips, self._clocks.now(), self._clocks.mono()
        )

    def take_mess(self, messid: MessId) -> tuple[int, int]:
        """(descriptor, size) of mess/N for one attempt; the caller owns it.

        Raises: OSError, QueueCorrupt.
        """
        kept = self._fds.pop(messid, None)
        if kept is not None:
            return kept
        fd, identity = self._queue.open_mess(messid)
        return fd, identity.size

    def forget(self, messid: MessId) -> None:
        """Close what is kept for a message."""
        kept = self._fds.pop(messid, None)
        if kept is not None:
            self._queue.close_fd(kept[0])

    def _announce(self, messid: MessId, content: bytes, mtime_ns: int) -> None:
        envelope = parse_todo(content)
        rewritten = self._rewritten(messid, envelope.recips)
        if rewritten is None:
            return
        key = self.routing.key
        recips = [
            (each.channel, each.address, key(each.channel, each.address))
            for each in rewritten
        ]
        now_mono = self._clocks.mono()
        keys = {(channel, key) for channel, _, key in recips}
        if self._manager.pass_over(messid, keys, now_mono):
            return
        identity = self._identify(
            messid, any(each.channel is Channel.REMOTE for each in rewritten)
        )
        stale = self._queue.unlink_stale(messid)
        if stale:
            self._look_again(messid, stale)
            return
        self._say(logline.new_msg(messid))
        self._say(
            logline.info_msg(
                messid, identity.size, envelope.sender, envelope.pid, envelope.uid
            )
        )
        message = Message(
            messid,
            envelope.sender,
            mtime_ns // 1_000_000_000,
            Phase.FIRST,
            {},
            set(),
            mtime_ns,
            identity,
        )
        self._manager.todo_loaded(
            message,
            recips,
            self._clocks.now(),
            now_mono,
            {at: each.note for at, each in enumerate(rewritten) if each.note},
        )

    def _rewritten(
        self, messid: MessId, recips: Sequence[bytes]
    ) -> list[Rewritten] | None:
        """Where each recipient goes; None when that is not known now.

        What the database is asked about comes back into `load_todo`, which reads
        the envelope once more: it may be another one by then.
        """
        rules = self.routing.rules
        if self.places is None:
            return [Rewritten(*rewrite(recip, rules)) for recip in recips]
        whole = [qualified(recip, rules) for recip in recips]
        answers = self._answers.pop(messid, {})
        unknown = {each: None for each in whole if each not in answers}
        if unknown:
            self._manager.backlog.ask(messid)
            self.places.ask(list(unknown), lambda found: self._located(messid, found))
            return None
        rewritten = []
        for address in whole:
            locality = answers[address]
            if isinstance(locality, Trouble):
                self._troubled(messid, locality.text, self.places)
                return None
            rewritten.append(placed(address, locality, rules))
        return rewritten

    def _located(self, messid: MessId, found: Mapping[bytes, Locality]) -> None:
        """The answers to all questions of one message."""
        self._manager.backlog.answered(messid)
        if self._manager.exiting:
            return  # it stays in todo, for the next send
        if messid in self._manager.messages:
            self._manager.known(messid)  # an operator has it removed
            return
        self._answers[messid] = found
        self.load_todo(LoadTodo(messid))
        self._answers.pop(messid, None)

    def _troubled(self, messid: MessId, reason: bytes, places: Places) -> None:
        """A recipient could not be looked up: the message stays in todo."""
        if places.is_down(reason):
            self._manager.backlog.park(messid)
            return
        text = reason.decode("utf-8", "backslashreplace")
        self._say(
            logline.warning(
                f"trouble with a recipient of message {messid}: {text}; "
                "will try again later"
            )
        )
        self._manager.load_failed(LoadTodo(messid), self._clocks.now())

    def _identify(self, messid: MessId, remote: bool) -> FileIdentity:
        """The file's identity; its descriptor is kept where one will be needed."""
        if not remote:
            return self._queue.stat_mess(messid)
        fd, identity = self._queue.open_mess(messid)
        self.forget(messid)
        self._fds[messid] = (fd, identity.size)
        return identity

    def _waiting(self, channel: Channel, messid: MessId) -> list[tuple[int, bytes]]:
        content = self._queue.read_recips(channel, messid)
        return [
            (offset, self.routing.key(channel, address))
            for offset, is_done, address in parse_recips(content)
            if not is_done
        ]

    def _later(self, load: LoadTodo | LoadJob, path: str, error: OSError) -> None:
        self._say(
            logline.warning(
                f"trouble opening {path}: {error.strerror}; will try again later"
            )
        )
        self._manager.load_failed(load, self._clocks.now())

    def _damaged(self, messid: MessId, reason: str) -> None:
        self.forget(messid)
        self._say(logline.alert(f"message {messid} is set aside: {reason}"))
        self._manager.damaged(messid, reason)

    def _look_again(self, messid: MessId, stale: Collection[str]) -> None:
        """Read the message once what an earlier one of its number left is gone.

        Were it to come back after a power cut, it could pass for the envelope of
        a message that gets the number next.
        """
        self.forget(messid)

        def synced(error: OSError | None) -> None:
            if error is None:
                self._manager.known(messid)
            else:
                self._later(LoadTodo(messid), paths.info(messid), error)

        self._syncer.commit([], [self._queue.dirs.fd(name) for name in stale], synced)
