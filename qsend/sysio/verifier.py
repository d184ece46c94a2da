"""Whether a login is right: the row from the database, the check in a thread.

Passwords are hashed slowly on purpose; nobody else's question waits for that. What
is stored never leaves this process. Must not: log or keep what a client gave.
Source: docs/VIRTUAL.md; sysio/passwordcheck.py.
"""

from __future__ import annotations

from collections.abc import Callable

from qsend.core.errors import TempFail
from qsend.core.lookups import Login, Proof, Verdict, Verification
from qsend.core.sqllogin import MailboxLogin
from qsend.core.users import Trouble
from qsend.sysio.loop import Loop
from qsend.sysio.passwordcheck import check, check_apop
from qsend.sysio.resolver import Resolver
from qsend.sysio.threads import Pool

THREADS = 2
"""Checks at a time: as many as leave mail a processor on a small machine."""
WAITING_MAX = 200
"""Logins in line: some ten seconds of work. More is an attack, or will give up."""

OnVerified = Callable[[Verification], None]


class Verifier:
    """Judges logins; belongs to the loop's thread."""

    def __init__(self, loop: Loop, resolver: Resolver) -> None:
        self._loop = loop
        self._resolver = resolver
        self._threads = Pool(THREADS)
        self._waiting = 0

    def verify(self, login: Login, done: OnVerified) -> None:
        """`done` gets the verdict; with OK the user that the mailbox row names."""

        def found(mailbox: MailboxLogin | Trouble | None) -> None:
            match mailbox:
                case None:
                    done(Verification(verdict=Verdict.UNKNOWN, text=b"no such mailbox"))
                case Trouble(text=text):
                    done(Verification(verdict=Verdict.TROUBLE, text=text))
                case MailboxLogin():
                    self._judge(mailbox, login, done)

        self._resolver.login(login.name, found)

    def _judge(self, mailbox: MailboxLogin, login: Login, done: OnVerified) -> None:
        if mailbox.suspended:
            done(Verification(verdict=Verdict.SUSPENDED, text=b"suspended"))
            return
        if mailbox.password is None:
            done(Verification(verdict=Verdict.WRONG, text=b"no password is set"))
            return
        if self._waiting >= WAITING_MAX:
            text = b"too many logins at once"
            done(Verification(verdict=Verdict.TROUBLE, text=text))
            return
        stored = mailbox.password

        def work() -> None:
            try:
                found: bool | Exception = _is_right(mailbox, stored, login)
            except Exception as exc:  # noqa: BLE001 - told to who asked
                found = exc
            self._loop.call_soon(lambda: self._checked(found, mailbox, done))

        try:
            self._threads.add(work)
        except RuntimeError:
            text = b"no thread is to be had"
            done(Verification(verdict=Verdict.TROUBLE, text=text))
            return
        self._waiting += 1

    def _checked(
        self, found: bool | Exception, mailbox: MailboxLogin, done: OnVerified
    ) -> None:
        self._waiting -= 1
        if isinstance(found, Exception):
            # A bug that one login meets must not end everybody's answers.
            words = str(found) if isinstance(found, TempFail) else type(found).__name__
            text = words.encode("utf-8", "backslashreplace")
            done(Verification(verdict=Verdict.TROUBLE, text=text))
        elif found:
            done(Verification(verdict=Verdict.OK, user=mailbox.user))
        else:
            done(Verification(verdict=Verdict.WRONG, text=b"wrong password"))


def _is_right(mailbox: MailboxLogin, stored: bytes, login: Login) -> bool:
    """On a thread. Raises: TempFail."""
    kind = mailbox.kind.value
    if login.proof is Proof.APOP:
        return check_apop(stored, kind, login.challenge, login.secret)
    return check(stored, kind, login.secret)
