"""Emptying a maildir through a client that sends its messages somewhere.

The client gets file names on descriptor 0, each ended by NUL, and says on 1 what
became of each (formats/serialmail). A message is removed when the client says that
it is somewhere else, or when its bounce is queued; whatever dies in between leaves
it where it is. Works in the current directory, which is the maildir.
Must not do: know how messages are sent.
Source: maildirserial(1), maildirserial.c. Unlike it: names come from a file and not
through a pipe; a client may speak only of messages that it was given, and once of
each; removals are durable before the next round.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qsend.core import bounce
from qsend.core.calendar import render_date
from qsend.core.errors import PermFail, QsendError, RemoteProtocolError, TempFail
from qsend.core.model import Letter
from qsend.core.serialmail import TOO_OLD, Fate, Progress, judge
from qsend.formats.control import parse_controls
from qsend.formats.serialmail import (
    HEAD_MAX,
    Head,
    Result,
    ResultReader,
    parse_head,
    parse_recip,
)
from qsend.sysio import clock, maildirscan, mailqueue
from qsend.sysio.home import read_control

EXIT_LEFT = 111
"""Messages are left, or the run was given up."""
EXIT_REFUSED = 100
"""The client says that its arguments are wrong, here and as its exit code."""

_CHUNK_BYTES = 65536
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTROLS = ("me", "bouncefrom", "bouncehost", "doublebounceto", "doublebouncehost")
_PROGRAM = b"maildirbounce"

Say = Callable[[str], None]
"""Takes one line without its end: `info: ...`, `warning: ...`."""
Start = Callable[[int, int], int]
"""Starts a client on descriptors that become its 0 and 1; its pid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushing:
    """How to push; `prefix` is what recipients in Delivered-To must begin with.

    `lifetime` in seconds, None for none. `bounces`: failures are returned and
    removed. `home` and `environ` are for queueing bounces. A client that ends with
    `last_code` has said that no other round is of use.
    """

    prefix: bytes
    lifetime: int | None
    bounces: bool
    home: str
    environ: Mapping[str, str]
    last_code: int | None = None


class _BadFormat(Exception):
    """The message does not begin with an envelope."""


@dataclass(slots=True)
class Pusher:
    """One run over one maildir."""

    how: Pushing
    start: Start
    say: Say
    _left: set[bytes] = field(default_factory=set)
    """Messages that this run tries no more."""
    _given: set[bytes] = field(default_factory=set)
    _has_removed: bool = False

    def run(self) -> int:
        """Push until no message is left for the client; the exit code.

        Raises: TempFail when the maildir cannot be read, a process is not to be had,
            or nothing moves.
        """
        progress = Progress()
        while names := self._usable():
            progress.begin_round()
            code = self._round(names, progress)
            self._sync()
            if code < 0:
                raise TempFail("client crashed")
            if code == EXIT_REFUSED:
                return EXIT_REFUSED
            if code == self.how.last_code:
                return EXIT_LEFT
            if progress.is_hopeless:
                raise TempFail("making no progress, giving up")
        return EXIT_LEFT if self._left else 0

    # what there is to send

    def _usable(self) -> list[bytes]:
        maildirscan.clean(clock.now())
        found = [os.fsencode(entry.path) for entry in maildirscan.scan(clock.now())]
        return [
            name for name in found if name not in self._left and self._is_ours(name)
        ]

    def _is_ours(self, name: bytes) -> bool:
        if not self.how.prefix:
            return True
        try:
            recip = parse_recip(_beginning(name))
        except OSError as exc:
            self._warn(f"unable to open {os.fsdecode(name)}: {exc.strerror}")
            return False
        return recip is not None and recip.startswith(self.how.prefix)

    # one client

    def _round(self, names: Sequence[bytes], progress: Progress) -> int:
        """Give `names` to a client and do what it says; its exit code.

        -1 when a signal killed it.
        """
        self._given = set(names)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            listed = os.memfd_create("names")
            try:
                with open(listed, "wb", closefd=False) as file:
                    file.writelines(name + b"\0" for name in names)
                os.lseek(listed, 0, os.SEEK_SET)
                pid = self.start(listed, writing)
            finally:
                os.close(listed)
                os.close(writing)
            try:
                self._listen(reading, progress)
            finally:
                # Whoever still writes gets an error, and ends.
                os.close(reading)
                reading = -1
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            if reading >= 0:
                os.close(reading)
        return max(code, -1)

    def _listen(self, reading: int, progress: Progress) -> None:
        reader = ResultReader()
        try:
            while data := os.read(reading, _CHUNK_BYTES):
                for result in reader.feed(data):
                    if result.name in self._given:
                        self._given.discard(result.name)
                        progress.note_result()
                        self._take(result)
        except OSError as exc:
            raise TempFail(f"unable to read from client: {exc.strerror}") from exc
        except RemoteProtocolError as exc:
            raise TempFail(str(exc)) from exc

    # one message

    def _take(self, result: Result) -> None:
        """Do what a result asks for."""
        name = os.fsdecode(result.name)
        verdict = judge(
            result.letter,
            is_too_old=result.letter is Letter.DEFERRAL and self._is_too_old(name),
            bounces=self.how.bounces,
        )
        text = result.text.decode("utf-8", "surrogateescape").rstrip("\n")
        self._info(f"{name} {verdict.words}: {text}")
        if verdict.fate is Fate.REMOVE:
            self._remove(result.name, "message will be delivered twice!")
        elif verdict.fate is Fate.LEAVE or not self._is_returned(
            result, is_expired=verdict.is_expired
        ):
            self._left.add(result.name)
        else:
            self._remove(result.name, "message has been bounced but not removed!")

    def _is_too_old(self, name: str) -> bool:
        if self.how.lifetime is None:
            return False
        try:
            mtime = int(os.stat(name).st_mtime)
        except OSError as exc:
            reason = exc.strerror
            self._warn(
                f"assuming message is still alive; unable to stat {name}: {reason}"
            )
            return False
        return clock.now() > mtime + self.how.lifetime

    def _remove(self, name: bytes, consequence: str) -> None:
        try:
            os.unlink(name)
            self._has_removed = True
        except OSError as exc:
            shown = os.fsdecode(name)
            self._warn(f"{consequence} unable to unlink {shown}: {exc.strerror}")
            self._left.add(name)

    def _sync(self) -> None:
        """Removed messages must not come back, or they are sent twice."""
        if not self._has_removed:
            return
        self._has_removed = False
        for name in ("new", "cur"):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as exc:
                self._warn(f"unable to sync {name}: {exc.strerror}")

    # bounces

    def _is_returned(self, result: Result, *, is_expired: bool) -> bool:
        """Whether the bounce is queued, or there must be none."""
        name = os.fsdecode(result.name)
        try:
            qp = self._return(result, is_expired=is_expired)
        except OSError as exc:
            self._warn(f"unable to bounce {name}: {exc.strerror}")
        except _BadFormat:
            self._warn(f"unable to bounce {name}: bad file format")
        except QsendError as exc:
            self._warn(f"unable to bounce {name}: qq failed: {exc}")
        else:
            if qp is None:
                self._info(f"discarding {name}: triple bounce")
            else:
                self._info(f"returned {name}: qp {qp}")
            return True
        return False

    def _return(self, result: Result, *, is_expired: bool) -> int | None:
        """Queue the bounce; its qp number, None when it must be discarded."""
        head = parse_head(_beginning(result.name))
        if head is None:
            raise _BadFormat
        date = render_date(clock.now())
        made = bounce.compose(head.sender, self._identity(), date, _PROGRAM)
        if made is None:
            return None
        report = result.text + (TOO_OLD if is_expired else b"")
        recip = head.recip.removeprefix(self.how.prefix)
        paragraph = bounce.paragraph(recip, report, {})
        chunks = self._chunks(made.before + paragraph + made.after, result.name, head)
        return mailqueue.inject(
            self.how.home, chunks, made.sender, [made.recip], self.how.environ
        )

    def _chunks(self, before: bytes, name: bytes, head: Head) -> Iterator[bytes]:
        yield before
        fd = _open(name)
        with open(fd, "rb") as file:
            file.seek(head.length)
            while piece := file.read(_CHUNK_BYTES):
                yield piece

    def _identity(self) -> bounce.Identity:
        """Raises: TempFail, ConfigError."""
        found = {name: read_control(self.how.home, name) for name in _CONTROLS}
        files = {name: text for name, text in found.items() if text is not None}
        # Which domains are local is nobody's business here.
        controls = parse_controls({"me": b"me", "locals": b"", **files})
        return bounce.Identity(
            bouncefrom=controls.bouncefrom,
            bouncehost=controls.bouncehost,
            doublebounceto=controls.doublebounceto,
            doublebouncehost=controls.doublebouncehost,
        )

    def _info(self, words: str) -> None:
        self.say(f"info: {words}")

    def _warn(self, words: str) -> None:
        self.say(f"warning: {words}")


def enter(maildir: str) -> None:
    """Make a maildir the current directory. Raises: TempFail."""
    try:
        os.chdir(maildir)
    except OSError as exc:
        raise TempFail(f"unable to chdir to {maildir}: {exc.strerror}") from exc


def parse_lifetime(text: str) -> int:
    """Seconds. Raises: PermFail for anything else (maildirserial takes 0 then)."""
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise PermFail(f"expected a number of seconds, found {text[:40]!r}")
    return int(text)


def _open(name: bytes) -> int:
    """A message, to be read. Raises: OSError."""
    fd = os.open(name, _OPEN)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file", os.fsdecode(name))
    return fd


def _beginning(name: bytes) -> bytes:
    """The first HEAD_MAX bytes. Raises: OSError."""
    with open(_open(name), "rb") as file:
        return file.read(HEAD_MAX)
