"""What is asked of the database, and what its rows mean: the shared parts.

A question is one Ask, which costs one round trip; pure functions judge its rows.
Locality is core/sqllocality.py, users and their instructions core/sqluser.py and
core/sqlalias.py, logins and hosts core/sqllogin.py.
Must not know SQL: the texts are formats/sqlqueries.py's.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from qsend.core.errors import TempFail
from qsend.core.model import Account, Accounts, Ownership, User
from qsend.core.users import Candidate, NoUser, refusal

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "mailbox": ("username", "uid", "gid", "home"),
    "virtual": ("username", "ext", "virtual_username", "virtual_host"),
    "pattern": ("username", "ext", "virtual_username", "virtual_host"),
    "virtualhost": ("virtual_host",),
    "forward": ("username", "ext"),
    "alias": ("alias", "alias_username", "alias_host"),
    "rcpthost": ("host",),
    "login": (
        "username",
        "uid",
        "gid",
        "home",
        "password",
        "password_type",
        "suspended",
    ),
}
"""The queries by name, and the columns each must give; others do not matter."""

PLACEHOLDERS: Mapping[str, tuple[str, ...]] = {
    "mailbox": ("username",),
    "virtual": ("user", "host"),
    "pattern": ("user", "host"),
    "virtualhost": ("host",),
    "forward": ("ext",),
    "alias": ("username", "alias"),
    "rcpthost": ("host",),
    "login": ("username",),
}
"""The values each query is given."""

CATCH_ALL_EXT = b"@"
"""In `ext`: append the virtual user. In `alias`: any extension."""
FORWARD = b"forward"
"""The user name that means "send on to ext" with control/magicforwarding."""
ID_MAX = 2**32 - 2
"""The largest uid; one more means "no change" to the system calls."""

Cell = bytes | int | None
Row = Sequence[Cell]
"""Number of the part in its Ask (from 0), then that query's COLUMNS in order. Text
is bytes, numbers are digits or int; further cells are ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One query of COLUMNS with the values for its PLACEHOLDERS."""

    query: str
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question: queries that are sent as one and answered as one."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlOptions:
    """The controls that the rules need. `locals` is lower case.

    `minuid` is control/sqlminuid, `patterns` control/sqlpatterns, `blank_catchall`
    control/sqlblankalias.
    """

    envnoathost: bytes
    locals: frozenset[bytes] = frozenset()
    minuid: int = 100
    magicforwarding: bool = False
    patterns: bool = False
    blank_catchall: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the rules ask of this machine. Each may raise TempFail: not known now.

    `account` answers whether a candidate is an account of the machine, `fallback`
    who takes a local part that nobody has (alias, the local part its extension),
    `owner` whose a directory is, None when it is not there.
    """

    accounts: Accounts
    single_user: bool
    account: Callable[[Candidate], User | None]
    fallback: Callable[[bytes], User | NoUser]
    owner: Callable[[bytes], Account | None]


AnswerT = TypeVar("AnswerT", covariant=True)
_GivenT = TypeVar("_GivenT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(Generic[AnswerT]):
    """An answer, the lines it owes to the log, and how it was found.

    `log` lines start with their level (`alert: `, `warning: `). `steps` are for
    people: which table, row, account and rule was looked at, in order.
    """

    answer: AnswerT
    log: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


class Misconfigured(TempFail):
    """A row that cannot be meant; the mail waits until it is mended."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"MySQL misconfiguration: {problem}")


class Refused(TempFail):
    """A row names a uid that never gets mail; somebody should look at once."""


class Notes:
    """Log lines and steps as they come up during one judgement."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.steps: list[str] = []

    def judged(self, answer: _GivenT) -> Judged[_GivenT]:
        """`answer` with all notes so far."""
        return Judged(answer=answer, log=tuple(self.log), steps=tuple(self.steps))

    def trouble(self, exc: TempFail) -> None:
        """Note why it cannot be answered."""
        level = "alert" if isinstance(exc, Refused) else "warning"
        self.log.append(f"{level}: {exc}")
        self.steps.append(str(exc))


def rows_by_part(ask: Ask, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each part, without the leading number."""
    found: list[list[Row]] = [[] for _ in ask.parts]
    for row in rows:
        number = row[0]
        if not isinstance(number, int) or not 0 <= number < len(found):
            raise Misconfigured("a query gives rows of an unknown shape")
        columns = len(COLUMNS[ask.parts[number].query])
        if len(row) <= columns:
            raise Misconfigured("a query gives too few columns")
        found[number].append(row[1 : columns + 1])
    return found


def text(cell: Cell) -> bytes:
    """A cell as text; NULL is blank."""
    if cell is None:
        return b""
    return b"%d" % cell if isinstance(cell, int) else cell


def shown(value: bytes) -> str:
    """A value for a log line: ASCII, one line, at most 100 characters of it."""
    return repr(value.decode("ascii", "backslashreplace")[:100])


def is_line(value: bytes) -> bool:
    """Whether a value can stand in one line of instructions or an envelope."""
    return not any(byte in value for byte in b"\0\r\n")


def number(cell: Cell, what: str) -> int:
    """A uid or gid. Raises: Misconfigured."""
    digits = text(cell)
    if not digits.isdigit() or len(digits) > 10 or int(digits) > ID_MAX:
        raise Misconfigured(f"{what} is {shown(digits)}, not a number")
    return int(digits)


def mailbox_user(
    row: Row, candidate: Candidate, options: SqlOptions, machine: Machine
) -> User:
    """The user of a mailbox row (or the start of a login row).

    Raises: Misconfigured when a field cannot be meant, Refused when its uid never
        gets mail.
    """
    name, home = text(row[0]), text(row[3])
    where = f"mailbox row {shown(name)}"
    if not name or not is_line(name):
        raise Misconfigured(f"{where}: no usable username")
    uid, gid = number(row[1], f"{where}: uid"), number(row[2], f"{where}: gid")
    if home[:1] != b"/" or not is_line(home):
        raise Misconfigured(f"{where}: home {shown(home)} is no absolute path")
    reason = refused(uid, options, machine)
    if reason is not None:
        raise Refused(f"{where}: uid {uid}: {reason}")
    return User(
        name=name,
        uid=uid,
        gid=gid,
        home=home,
        dash=candidate.dash,
        ext=candidate.ext,
        ownership=Ownership.UID_GID,
    )


def refused(uid: int, options: SqlOptions, machine: Machine) -> str | None:
    """Why a row of the database may not name this uid, or None.

    Stricter than for users/cdb, which only root writes: alias is refused too, and
    everything below control/sqlminuid.
    """
    reason = refusal(uid, machine.accounts, single_user=machine.single_user)
    if reason is not None or machine.single_user:
        return reason
    if uid == machine.accounts.alias.uid:
        return "deliveries as alias are refused"
    if uid < options.minuid:
        return f"below control/sqlminuid ({options.minuid})"
    return None
