"""What would turn mail from the network away, though every control file is right.

Source: docs/NETWORK.md.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account
from qsend.formats.control import parse_controls
from qsend.formats.milters import MILTERS, Milter
from qsend.formats.qmtpcontrols import QMQP_LISTEN, QMTP_LISTEN
from qsend.formats.smtpdcontrols import LISTEN, SUBMISSION, parse_smtpd
from qsend.formats.tcprules import rules_name
from qsend.sysio.askchild import ask_child
from qsend.sysio.milterlink import LinkBroken, connect
from qsend.sysio.privilege import drop

_CONNECT_S = 5.0
_SERVED = {
    "smtp": LISTEN,
    "qmtp": QMTP_LISTEN,
    "qmqp": QMQP_LISTEN,
    "pop3": "pop3listen",
}
"""Service, and the control file that has its sockets."""


async def unreachable(milters: Iterable[Milter]) -> dict[str, str]:
    """Name to reason, of filters that cannot be connected to and agreed with."""
    tried = [_problem(milter) for milter in milters]
    return dict(filter(None, await asyncio.gather(*tried)))


async def _problem(milter: Milter) -> tuple[str, str] | None:
    try:
        link = await connect(
            replace(milter, connect_s=min(milter.connect_s, _CONNECT_S))
        )
    except LinkBroken as exc:
        return milter.name, str(exc)
    link.close()
    return None


def filter_faults(
    files: Mapping[str, bytes], account: Account
) -> Iterator[ConfigFault]:
    """Mail filters that `account`, which is qmaild, cannot reach.

    Raises: TempFail when no child can be had.
    """
    try:
        milters = parse_smtpd(files, b"me").milters
    except ConfigError:
        return  # is told as that
    if not milters:
        return

    def ask(write: int) -> int:
        drop(account)
        found = asyncio.run(unreachable(milters))
        os.write(write, json.dumps(found).encode())
        return 0

    for name, reason in json.loads(ask_child(ask) or b"{}").items():
        yield ConfigFault(
            file=f"control/{MILTERS}", line=0, problem=f"{name}: {reason}"
        )


def service_notes(home: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """Services that serve nobody, or by rules other than their text says."""
    try:
        has_sql = parse_controls(files).has_sql
        smtp = parse_smtpd(files, b"me")
    except ConfigError:
        return  # is told as that
    is_open = any(SUBMISSION not in each.words for each in smtp.listeners)
    lists = any(os.path.exists(f"{home}/control/{name}") for name in _HOSTS)
    if is_open and not lists and not has_sql:
        yield "control/rcpthosts lists nothing: SMTP takes mail with RELAYCLIENT only"
    if smtp.listeners and not is_open and not smtp.certificate:
        yield "control/smtplisten: nobody can log in without control/servercert.pem"
    for service, listen in _SERVED.items():
        rules = rules_name(service)
        if listen in files:
            yield from _rules_notes(f"{home}/control", rules, service)


_HOSTS = ("rcpthosts", "morercpthosts.cdb")


def _rules_notes(control: str, rules: str, service: str) -> Iterator[str]:
    made, written = (
        _mtime(f"{control}/{name}") for name in (rules, rules.removesuffix(".cdb"))
    )
    if made is None and service == "qmqp":
        yield f"control/{rules} is missing: QMQP takes nobody's mail"
    if written is not None and written > (made or 0):
        source = rules.removesuffix(".cdb")
        yield f"control/{source} has changed since `qsend tcprules {service}`"


def _mtime(path: str) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None
