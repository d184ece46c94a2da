"""Whether a snapshot of control files can be used, found out in a child.

The child that parses has no privilege and a sandbox: the process that asks is
root, and what it asks about may be anything. It alone reads the secret ones.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Mapping

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import Controls, parse_controls
from qsend.formats.popcontrols import parse_pop
from qsend.formats.qmtpcontrols import QmtpdSettings, parse_qmtpd
from qsend.formats.runnercontrols import RunnerSettings, parse_runner
from qsend.formats.smtpdcontrols import SmtpdSettings, parse_smtpd
from qsend.formats.sqlcontrols import parse_sql
from qsend.sysio import clock, sandbox
from qsend.sysio.controldir import Snapshot, take_snapshot
from qsend.sysio.fork import fork_child
from qsend.sysio.privilege import drop, harden
from qsend.sysio.tls import server_context
from qsend.sysio.tlscontext import check_tls

TIMEOUT_S = 30.0
"""A million virtual domains parse in a few seconds."""
_ANSWER_MAX = 1 << 20
_SHOWN_MAX = 1000
"""Faults told; whoever has more has one cause for all."""


def take_good(home: str, parser: Account) -> Snapshot:
    """The control files as they are, which every process can use.

    Args:
        parser: the account of the child that finds out.
    Raises: ConfigError with every fault; TempFail when no child can be had.
    """
    snapshot = take_snapshot(home)
    try:
        if faults := find_faults(snapshot, parser):
            raise ConfigError(faults)
    except BaseException:
        snapshot.close()
        raise
    return snapshot


def find_faults(snapshot: Snapshot, parser: Account) -> list[ConfigFault]:
    """What is wrong with the files; empty when every process can use them.

    Args:
        parser: the account of the child.
    Raises: TempFail when no child can be had.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = fork_child(
            lambda: _parse(snapshot, parser, write),
            (write, *snapshot.secrets.values()),
            "controls",
        )
    except BaseException:
        os.close(read)
        os.close(write)
        raise
    os.close(write)
    try:
        answer = _read_answer(read)
    finally:
        os.close(read)
        if answer is None:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if answer is None or status != 0:
        return [_unparsed("took too long" if answer is None else "crashed")]
    return _faults_from(answer)


def faults_in(files: Mapping[str, bytes]) -> list[ConfigFault]:
    """The same, found out in this process."""
    rest = [*_faults_of_pop(files), *_faults_of_tls(files)]
    try:
        controls = parse_controls(files)
    except ConfigError as exc:
        return [*exc.faults, *rest]
    # Several files say the same of a certificate that they share.
    return list(dict.fromkeys([*_faults_of_mail(files, controls), *rest]))


def _faults_of_mail(
    files: Mapping[str, bytes], controls: Controls
) -> list[ConfigFault]:
    faults: list[ConfigFault] = []
    for parse in (parse_sql, parse_access, _parse_smtpd, _parse_qmtpd, _parse_runner):
        try:
            parse(files, controls)
        except ConfigError as exc:
            faults += exc.faults
    return faults


def _parse_smtpd(files: Mapping[str, bytes], controls: Controls) -> SmtpdSettings:
    return parse_smtpd(files, controls.me)


def _parse_qmtpd(files: Mapping[str, bytes], _controls: Controls) -> QmtpdSettings:
    return parse_qmtpd(files)


def _parse_runner(files: Mapping[str, bytes], _controls: Controls) -> RunnerSettings:
    return parse_runner(files)


def _faults_of_pop(files: Mapping[str, bytes]) -> list[ConfigFault]:
    try:
        settings = parse_pop(files)
        if settings.certificate:
            server_context(settings.certificate)
    except ConfigError as exc:
        return exc.faults
    return []


def _faults_of_tls(files: Mapping[str, bytes]) -> list[ConfigFault]:
    try:
        check_tls(files)
    except ConfigError as exc:
        return exc.faults
    return []


def _parse(snapshot: Snapshot, parser: Account, write: int) -> int:
    """In the child: parse, and write the faults as JSON."""
    drop(parser)
    harden()
    sandbox.apply("parser")
    faults = faults_in(snapshot.read_all())[:_SHOWN_MAX]
    told = [[fault.file, fault.line, fault.problem] for fault in faults]
    with open(write, "w") as pipe:
        json.dump(told, pipe)
    return 0


def _read_answer(fd: int) -> bytes | None:
    """All that the child writes; None when it does not end in time."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline_mono = clock.mono() + TIMEOUT_S
    answer = b""
    while len(answer) <= _ANSWER_MAX:
        left_s = deadline_mono - clock.mono()
        if left_s <= 0 or not poller.poll(left_s * 1000):
            return None
        chunk = os.read(fd, 65536)
        if not chunk:
            return answer
        answer += chunk
    return None


def _faults_from(answer: bytes) -> list[ConfigFault]:
    try:
        return [
            ConfigFault(file=str(file), line=int(line), problem=str(problem))
            for file, line, problem in json.loads(answer)
        ]
    except (ValueError, TypeError):
        return [_unparsed("gave no answer")]


def _unparsed(what: str) -> ConfigFault:
    return ConfigFault(file="control", line=0, problem=f"the parser {what}")
