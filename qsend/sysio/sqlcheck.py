"""What is wrong with the database, its queries, and the user `forward`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault, TempFail
from qsend.core.model import Accounts
from qsend.core.sqlrules import FORWARD, PLACEHOLDERS, Ask, Part
from qsend.core.users import Candidate
from qsend.formats.control import parse_controls
from qsend.formats.sqlcontrols import SqlSettings, parse_sql
from qsend.formats.sqlqueries import SqlQueries
from qsend.formats.sqlserver import SQLSERVER
from qsend.sysio.sqlconnection import QueryRefused, ServerLost, SqlConnection
from qsend.sysio.userdb import UserDb

Run = Callable[[str, Mapping[str, bytes]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Faults, and what is worth a note."""

    faults: list[ConfigFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def query_problems(run: Run, queries: SqlQueries) -> Iterator[str]:
    """What the server says against each query that does not fit the tables.

    `run` sends a query and raises QueryRefused; what else it raises passes through.
    """
    for name, placeholders in PLACEHOLDERS.items():
        part = Part(query=name, values=dict.fromkeys(placeholders, b"x"))
        try:
            run(*queries.statement(Ask(parts=(part,))))
        except QueryRefused as exc:
            yield f"query {name}: {exc}"


def inspect(
    home: str, files: Mapping[str, bytes], accounts: Accounts, *, single_user: bool
) -> Findings:
    """Ask the database of a snapshot of the control files; nothing without one.

    A server that does not answer is a note: it may be the one that is down, and
    mail waits for it. Controls that cannot be parsed are told elsewhere.
    """
    try:
        settings = parse_sql(files, parse_controls(files))
    except ConfigError:
        settings = None
    findings = Findings()
    if settings is None:
        return findings
    if settings.options.magicforwarding:
        _look_for_account(home, accounts, single_user, findings)
    connection = SqlConnection(settings.servers)
    try:
        _ask(connection, settings, findings)
    except ServerLost as exc:
        findings.notes.append(f"the database does not answer: {exc}")
    finally:
        connection.close()
    return findings


def _ask(connection: SqlConnection, settings: SqlSettings, findings: Findings) -> None:
    problems = list(query_problems(connection.run, settings.queries))
    findings.faults.extend(_fault(SQLSERVER, problem) for problem in problems)
    if problems or not settings.options.magicforwarding:
        return
    part = Part(query="mailbox", values={"username": FORWARD})
    if connection.run(*settings.queries.statement(Ask(parts=(part,)))):
        findings.faults.append(_forward("a mailbox row"))


def _look_for_account(
    home: str, accounts: Accounts, single_user: bool, findings: Findings
) -> None:
    """Whether users/cdb or passwd have the name that magic forwarding takes."""
    files = UserDb(home, accounts, single_user=single_user)
    try:
        assigned = files.assigned(FORWARD)
        if assigned is not None and assigned.name == FORWARD:
            findings.faults.append(_forward("a line in users/cdb"))
        if files.account(Candidate(name=FORWARD, dash=b"", ext=b"")) is not None:
            findings.faults.append(_forward("an account"))
    except TempFail as exc:
        findings.notes.append(f"cannot tell whether there is a user forward: {exc}")
    finally:
        files.close()


def _forward(what: str) -> ConfigFault:
    problem = f"magic forwarding needs the name forward, but there is {what} of it"
    return _fault("control/magicforwarding", problem)


def _fault(file: str, problem: str) -> ConfigFault:
    return ConfigFault(file=file, line=0, problem=problem)
