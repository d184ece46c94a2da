"""Answers what a local part, an address or a host is: database first, then files.

Every answer goes to a callback, at once when it is known without the database.
Without settings for one, the files alone answer and nothing is waited for.
Source: core/sqlrules.py and its kin have the rules; docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from qsend.core import logline
from qsend.core.errors import TempFail
from qsend.core.lookups import Listing, Locality, Stored, YesNo
from qsend.core.model import Accounts, Channel, User
from qsend.core.rewrite import Rules, rewrite
from qsend.core.sqlalias import ask_instructions, judge_instructions
from qsend.core.sqllocality import (
    Unlisted,
    ask_locality,
    judge_locality,
    settle,
)
from qsend.core.sqllogin import (
    MailboxLogin,
    ask_login,
    ask_rcpthost,
    judge_login,
    judge_rcpthost,
)
from qsend.core.sqlrules import Ask, Judged, Machine, Row
from qsend.core.sqluser import ask_user, judge_user
from qsend.core.ttlcache import TtlCache
from qsend.core.users import Outcome, Trouble, is_fallback, passwd_candidates
from qsend.formats.sqlcontrols import SqlSettings
from qsend.sysio import clock
from qsend.sysio.loop import Loop
from qsend.sysio.sqllink import SqlLink
from qsend.sysio.sqlrows import SqlRows
from qsend.sysio.userdb import UserDb, owner_of

_CACHE_S = 5.0
"""How long an answer counts as known. Short, because changes to passwd cannot be
noticed; long enough for a burst of mail to one user."""
_CACHE_ALIAS_S = 1.0
"""What fell to alias is forgotten sooner: an account made meanwhile wants its mail.
The same for an address that the database does not have."""
_CACHED = 20000

AnswerT = TypeVar("AnswerT")
OnState = Callable[[bytes | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Database:
    settings: SqlSettings
    link: SqlLink
    rows: SqlRows


class Resolver:
    """Asks the database and the files of one home; belongs to the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        home: str,
        accounts: Accounts,
        *,
        single_user: bool,
        say: Callable[[bytes], None],
        on_state: OnState = lambda _trouble: None,
    ) -> None:
        """Without a database until `configure` brings one.

        `say` writes a log line; `on_state` is told why no database server answers,
        and None when one does again.
        """
        self._loop = loop
        self._accounts = accounts
        self._single_user = single_user
        self._say = say
        self._on_state = on_state
        self._files = UserDb(home, accounts, single_user=single_user)
        self._users: TtlCache[bytes, User] = TtlCache(_CACHED)
        self._places: TtlCache[bytes, Stored | Listing] = TtlCache(_CACHED)
        self._database: _Database | None = None

    @property
    def has_database(self) -> bool:
        """Whether a database is to be asked at all."""
        return self._database is not None

    @property
    def trouble(self) -> bytes | None:
        """Why the database cannot be asked now, or None."""
        return None if self._database is None else self._database.link.trouble

    def configure(self, settings: SqlSettings | None) -> None:
        """Use these settings, and forget every answer.

        A connection is kept as long as its server stays the same; questions on
        their way over another one are still answered.
        """
        self._users.clear()
        self._places.clear()
        old, self._database = self._database, None
        kept = old and settings and old.settings.servers == settings.servers
        if old is not None and not kept:
            old.link.close()
            if old.link.trouble is not None:
                self._on_state(None)
        if settings is None:
            return
        link = old.link if old is not None and kept else self._connect(settings)
        log = self._log_query if settings.log_queries else None
        rows = SqlRows(link, settings.queries, log)
        self._database = _Database(settings=settings, link=link, rows=rows)

    def close(self) -> None:
        """Give descriptors back."""
        self.configure(None)
        self._files.close()

    # Questions

    def user(self, local: bytes, done: Callable[[Outcome], None]) -> None:
        """Who takes mail for `local` (not empty)."""
        if self._files.refresh():
            self._users.clear()
            self._places.clear()
        known = self._users.get(local, clock.mono())
        if known is not None:
            done(known)
            return

        def judged(found: Judged[Outcome]) -> None:
            self._log(found.log)
            outcome = found.answer
            if isinstance(outcome, User):
                lasts_s = _CACHE_ALIAS_S if is_fallback(outcome, local) else _CACHE_S
                self._users.put(local, outcome, clock.mono(), lasts_s)
            done(outcome)

        self.judge_user(local, judged)

    def judge_user(self, local: bytes, done: Callable[[Judged[Outcome]], None]) -> None:
        """The same without the cache of answers, and how it was found."""
        database = self._database
        if database is None:
            done(self._files.judge(local))
            return
        options = database.settings.options
        try:
            assigned = self._files.assigned(local)
        except TempFail as exc:
            why = str(exc)
            answer = Trouble(text=why.encode("utf-8", "backslashreplace"))
            done(Judged(answer=answer, steps=(why,)))
            return
        if assigned is not None:
            user = assigned
            _ask(
                database.rows,
                ask_instructions(user),
                lambda rows: judge_instructions(rows, user, options),
                done,
                ("users/cdb has it",),
            )
            return
        machine = self._machine()
        _ask(
            database.rows,
            ask_user(local, options),
            lambda rows: judge_user(rows, local, options, machine),
            done,
        )

    def locality(self, address: bytes, done: Callable[[Locality], None]) -> None:
        """Where mail for an address goes; it has a domain and is after percenthack."""
        if self._database is None:
            done(Listing.NONE)
            return
        if self._files.refresh():
            self._users.clear()
            self._places.clear()
        known = self._places.get(address, clock.mono())
        if known is not None:
            done(known)
            return

        def judged(found: Judged[Locality]) -> None:
            self._log(found.log)
            answer = found.answer
            if not isinstance(answer, Trouble):
                lasts_s = _CACHE_S if isinstance(answer, Stored) else _CACHE_ALIAS_S
                self._places.put(address, answer, clock.mono(), lasts_s)
            done(answer)

        self.judge_locality(address, judged)

    def judge_locality(
        self, address: bytes, done: Callable[[Judged[Locality]], None]
    ) -> None:
        """The same without the cache of answers, and how it was found."""
        database = self._database
        if database is None:
            done(Judged(answer=Listing.NONE, steps=("there is no database",)))
            return
        options = database.settings.options
        _ask(
            database.rows,
            ask_locality(address, options),
            lambda rows: judge_locality(rows, address, options, self._is_account),
            done,
        )

    def settle(
        self, address: bytes, place: Stored | Listing, rules: Rules
    ) -> tuple[Channel, bytes] | Unlisted:
        """Where mail for an address goes, by the control files, too.

        `place` is what `locality` answered. Without a database they are all.
        """
        if self._database is None:
            return rewrite(address, rules)
        return settle(address, place, rules)

    def rcpthost(self, host: bytes, done: Callable[[YesNo], None]) -> None:
        """Whether the database has the host among those whose mail is taken."""
        database = self._database
        if database is None:
            done(False)
            return

        def judged(found: Judged[YesNo]) -> None:
            self._log(found.log)
            done(found.answer)

        _ask(
            database.rows,
            ask_rcpthost(host),
            lambda rows: judge_rcpthost(rows, host),
            judged,
        )

    def login(
        self, name: bytes, done: Callable[[MailboxLogin | Trouble | None], None]
    ) -> None:
        """The mailbox row of a login, None without one. Never from memory."""
        database = self._database
        if database is None:
            done(None)
            return
        options, machine = database.settings.options, self._machine()

        def came(rows: Sequence[Row] | Trouble) -> None:
            if isinstance(rows, Trouble):
                done(rows)
                return
            found = judge_login(rows, name, options, machine)
            self._log(found.log)
            done(found.answer)

        database.rows.ask(ask_login(name), came, is_kept=False)

    # Parts

    def _connect(self, settings: SqlSettings) -> SqlLink:
        link: SqlLink

        def changed(trouble: bytes | None) -> None:
            # A link that was replaced may still learn what became of its server.
            if self._database is not None and self._database.link is link:
                self._on_state(trouble)

        link = SqlLink(self._loop, settings.servers, self._say, changed)
        return link

    def _machine(self) -> Machine:
        return Machine(
            accounts=self._accounts,
            single_user=self._single_user,
            account=self._files.account,
            fallback=self._files.fallback,
            owner=owner_of,
        )

    def _is_account(self, local: bytes) -> bool:
        if self._files.assigned(local) is not None:
            return True
        return any(map(self._files.account, passwd_candidates(local)))

    def _log(self, lines: Sequence[str]) -> None:
        for line in lines:
            level, _, text = line.partition(": ")
            write = logline.alert if level == "alert" else logline.warning
            self._say(write(f"qmail-lookup: {text}"))

    def _log_query(self, text: str) -> None:
        self._say(f"qmail-lookup: {text}\n".encode("ascii", "backslashreplace"))


def _ask(
    rows: SqlRows,
    ask: Ask,
    judge: Callable[[Sequence[Row]], Judged[AnswerT]],
    done: Callable[[Judged[AnswerT | Trouble]], None],
    steps: tuple[str, ...] = (),
) -> None:
    """Have the rows of `ask` judged; `steps` came before."""

    def came(found: Sequence[Row] | Trouble) -> None:
        if isinstance(found, Trouble):
            why = found.text.decode("utf-8", "backslashreplace")
            done(Judged(answer=found, steps=(*steps, why)))
        else:
            judged = judge(found)
            done(replace(judged, steps=(*steps, *judged.steps)))

    rows.ask(ask, came)
