"""qsend check: everything that is wrong, before or while the system runs.

Source: docs/ARCHITECTURE.md; qmail-control(5).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from qsend.cli.parser import EXIT_NO, EXIT_USAGE, Parser, complain, home_of
from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Accounts
from qsend.formats.control import KNOWN
from qsend.formats.popcontrols import POP_FILES
from qsend.formats.qmtpcontrols import QMTPD_FILES
from qsend.formats.runnercontrols import RUNNER_FILES
from qsend.formats.smtpdcontrols import SMTPD_FILES
from qsend.formats.sqlcontrols import SQL_FILES
from qsend.formats.tcprules import SERVICES
from qsend.formats.tlscontrols import TLS_FILES
from qsend.sysio import homecheck, networkcheck, queuemaker, sqlcheck
from qsend.sysio.accounts import load_accounts
from qsend.sysio.controldir import read_controls
from qsend.sysio.validate import faults_in

_ELSEWHERE = frozenset(
    {
        *homecheck.INJECTING, *homecheck.RECEIVING, *homecheck.DELIVERING,
        *SQL_FILES, *POP_FILES, *TLS_FILES, *SMTPD_FILES, *QMTPD_FILES, *RUNNER_FILES,
        "qmqpservers", *(f"tcp.{service}" for service in SERVICES),
    }
)  # fmt: skip
"""Control files that other programs than the queue manager read."""

_TEACHING = """\
Looks at the control files (every line), the accounts, the queue directory and the
messages in it, owners and modes, programs that are setuid, and whether each
program can read the controls that it needs; with control/sqlserver, whether the
database answers and its tables fit the queries; with control/milters, whether these
answer qmaild. Changes nothing; safe while the system runs. Prints one line for each
thing found, as FILE:LINE: what was found and what was expected; then which sandbox the
kernel has for which process. Notes are no faults. Exit code
0 when nothing is wrong, 1 otherwise.

`qsend setup` mends owners, modes, and what is missing."""


def main(argv: Sequence[str]) -> int:
    """Print every fault; 1 if there is any."""
    parser = Parser(argv[0], "Say what is wrong, with file and line.", _TEACHING)
    parser.add_home()
    parser.add_json()
    args = parser.parse_args(argv[1:])
    home = home_of(args)
    single_user = os.getuid() != 0
    if single_user and os.path.exists(home) and os.stat(home).st_uid != os.getuid():
        complain(argv[0], f"{home} is not yours; only root can check it")
        return EXIT_USAGE
    faults, notes = inspect(home, single_user=single_user)
    active = homecheck.active_sandboxes(home)
    if args.json:
        sys.stdout.write(_as_json(home, faults, notes, active))
    else:
        for fault in faults:
            sys.stdout.write(f"{fault}\n")
        for note in notes:
            sys.stdout.write(f"note: {note}\n")
        for line in _sandbox_lines(active):
            sys.stdout.write(f"sandbox: {line}\n")
        if not faults:
            sys.stdout.write(f"{home}: all is well\n")
    return EXIT_NO if faults else 0


def _sandbox_lines(active: Mapping[str, Sequence[str]]) -> list[str]:
    """Roles that have the same share a line."""
    roles: dict[str, list[str]] = {}
    for role, features in active.items():
        roles.setdefault(" ".join(features), []).append(role)
    return [
        *(
            f"{' '.join(those)}: {features or 'this kernel has none'}"
            for features, those in roles.items()
        ),
        "start lspawn local runner: none, because others' programs would inherit it",
    ]


def _as_json(
    home: str,
    faults: Sequence[ConfigFault],
    notes: Sequence[str],
    active: Mapping[str, Sequence[str]],
) -> str:
    told = {
        "home": home,
        "faults": [
            {"file": fault.file, "line": fault.line, "problem": fault.problem}
            for fault in faults
        ],
        "notes": list(notes),
        "sandbox": {role: list(features) for role, features in active.items()},
    }
    return f"{json.dumps(told)}\n"


def inspect(home: str, *, single_user: bool) -> tuple[list[ConfigFault], list[str]]:
    """All faults and notes of a home; needs root unless `single_user`."""
    if not os.path.isdir(home):
        problem = "expected a directory; `qsend setup` makes it"
        return [ConfigFault(file=home, line=0, problem=problem)], []
    faults: list[ConfigFault] = []
    files, found = _controls(home)
    faults += found
    notes = [
        f"control/{name} is none of qsend's; is the name right?"
        for name in sorted(files.keys() - KNOWN - _ELSEWHERE)
    ]
    notes += homecheck.kept_notes(home)
    try:
        accounts = load_accounts(single_user)
    except ConfigError as exc:
        return [*exc.faults, *faults], notes
    faults += homecheck.directory_faults(home, accounts)
    faults += homecheck.control_faults(home, accounts)
    faults += homecheck.alias_faults(home)
    faults += homecheck.privileged_faults(home)
    faults += networkcheck.filter_faults(files, accounts.qmaild)
    notes += networkcheck.service_notes(home, files)
    findings = sqlcheck.inspect(home, files, accounts, single_user=single_user)
    faults += findings.faults
    notes += findings.notes
    if not single_user:
        faults += homecheck.reading_faults(home, accounts)
    faults += _queue_faults(home, accounts)
    return _without_consequences(faults), notes


def _without_consequences(faults: Sequence[ConfigFault]) -> list[ConfigFault]:
    """Leave out what is missing only because its directory is."""
    missing = tuple(
        f"{fault.file}/"
        for fault in faults
        if fault.problem.startswith("expected a directory")
    )
    return [fault for fault in faults if not fault.file.startswith(missing)]


def _controls(home: str) -> tuple[Mapping[str, bytes], list[ConfigFault]]:
    """The files, and what is wrong with them."""
    try:
        files = read_controls(home)
    except ConfigError as exc:
        return {}, exc.faults
    return files, faults_in(files)


def _queue_faults(home: str, accounts: Accounts) -> Iterator[ConfigFault]:
    faults = queuemaker.verify(home, accounts)
    yield from faults
    queue = f"{home}/queue"
    if not os.path.isdir(queue):
        return
    if os.statvfs(queue).f_flag & os.ST_RDONLY:
        yield ConfigFault(file="queue", line=0, problem="on a read-only file system")
    try:
        yield from queuemaker.verify_messages(home, accounts)
    except OSError as exc:
        if not faults:
            yield ConfigFault(
                file="queue", line=0, problem=f"cannot look into it: {exc.strerror}"
            )
