"""qsend setup --supervise: what daemontools or systemd need to run us.

Writes files, and says what to run; starts, stops and enables nothing.
Source: docs/OPERATORS.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account, Accounts
from qsend.formats import servicescripts, systemdunits
from qsend.formats.controllines import one_line
from qsend.formats.servicescripts import ScriptPlaces
from qsend.formats.systemdunits import UnitPlaces
from qsend.formats.tcprules import records, rules_name
from qsend.sysio import homemaker, services
from qsend.sysio.cdbmaker import make_cdb
from qsend.sysio.controldir import read_controls
from qsend.sysio.home import read_control
from qsend.sysio.listening import listeners

KINDS = ("daemontools", "systemd")
_UNITS = "/etc/systemd/system"
LOGS = "/var/log/qmail"
_TOOLS = ("multilog", "setuidgid", "softlimit", "tcpserver")
_SCANNED = ("/service", "/etc/service")
"""Where svscan looks: on most machines, and on Debian's."""
_RULES = b":allow\n"
"""tcpserver turns everybody away without a database of rules."""
_OLD_RULES = "/etc/tcp.smtp.cdb"


def set_up(
    kind: str,
    home: str,
    accounts: Accounts,
    *,
    into: str | None,
    logs: str,
    default_delivery: str,
) -> Iterator[str]:
    """Install for one of KINDS, and yield what to say.

    Args:
        into: the directory for service directories or units; None for the usual.
        logs: the directory for the logs of daemontools' services.
    """
    if kind == "systemd":
        yield from _systemd(home, accounts.root, into or _UNITS, default_delivery)
    else:
        where = into or f"{home}/supervise"
        yield from _daemontools(home, accounts, where, logs, default_delivery)


def _daemontools(
    home: str, accounts: Accounts, into: str, logs: str, default_delivery: str
) -> Iterator[str]:
    tools, missing = services.find_tools(_TOOLS)
    rules = _old_rules(home)
    if rules is None:
        rules = f"{home}/control/{rules_name('smtp')}"
        yield from _first_rules(home, rules, accounts.root)
    places = ScriptPlaces(
        home=home,
        logs=logs,
        host=one_line(read_control(home, "me") or b"localhost").decode("latin-1"),
        tools=tools,
        smtp_rules=rules,
        default_delivery=default_delivery,
    )
    scripts = servicescripts.render_services(places)
    names = sorted({name.split("/")[0] for name in scripts})
    for name in names:
        services.make_directory(f"{into}/{name}", 0o1755, accounts.root)
        services.set_sticky(f"{into}/{name}")
        services.make_directory(f"{into}/{name}/log", 0o755, accounts.root)
        yield from _log_directory(f"{logs}/{name}", accounts.qmaill)
    rc = {"rc": servicescripts.render_rc(places)}
    mark = servicescripts.MARK
    kept = services.install(home, rc, mark, 0o755, accounts.root)
    yield from _kept(home, kept)
    kept = services.install(into, scripts, mark, 0o755, accounts.root)
    yield from _kept(into, kept)
    if missing:
        yield f"not found: {' '.join(missing)} (Debian: daemontools, ucspi-tcp)"
    scanned = next(filter(os.path.isdir, _SCANNED), _SCANNED[0])
    yield f"{into} has the services {' '.join(names)}; to run them:"
    yield f"  ln -s {into}/{servicescripts.SEND} {scanned}/"
    yield "and, unless control/smtplisten and pop3listen have these ports:"
    yield f"  ln -s {into}/{servicescripts.SMTPD} {scanned}/"
    yield f"  ln -s {into}/{servicescripts.POP3D} {scanned}/"


def _old_rules(home: str) -> str | None:
    """Rules that a howto's tcprules has made, unless there are rules of ours."""
    ours = f"{home}/control/{rules_name('smtp')}"
    if os.path.exists(ours) or not os.path.exists(_OLD_RULES):
        return None
    return _OLD_RULES


def _first_rules(home: str, rules: str, owner: Account) -> Iterator[str]:
    if os.path.lexists(rules):
        return
    source = os.path.basename(rules).removesuffix(".cdb")
    made, _ = homemaker.make_files(f"{home}/control", {source: _RULES}, owner)
    if made:
        make_cdb(rules, f"{rules}.tmp", records([_RULES], source))
        yield f"made control/: {source} {source}.cdb"
    else:
        yield f"control/{source} is not in force yet: qsend tcprules smtp"


def _log_directory(path: str, owner: Account) -> Iterator[str]:
    if services.make_directory(path, 0o750, owner):
        return
    if services.owner_of(path) != owner.uid:
        yield f"kept {path}, which is not qmaill's: multilog cannot write there"


def _systemd(
    home: str, root: Account, into: str, default_delivery: str
) -> Iterator[str]:
    if not systemdunits.is_plain(home):
        problem = "expected a home without blanks and special characters"
        raise ConfigError([ConfigFault(file=home, line=0, problem=problem)])
    places = UnitPlaces(
        home=home,
        listeners=listeners(read_controls(home)),
        default_delivery=default_delivery,
    )
    units = systemdunits.render_units(places)
    services.make_directory(into, 0o755, root)
    yield from _kept(
        into, services.install(into, units, systemdunits.MARK, 0o644, root)
    )
    network = systemdunits.NETWORK
    if network not in units and services.withdraw(
        f"{into}/{network}", systemdunits.MARK
    ):
        yield f"removed {into}/{network}: no control file names an address"
        yield f"  systemctl disable --now {network}"
    sockets = sorted(name for name in units if name.endswith(".socket"))
    yield f"{into} has {' '.join(sorted(units))}; to run them:"
    yield "  systemctl daemon-reload"
    yield f"  systemctl enable --now {' '.join(sockets)} {systemdunits.SERVICE}"


def _kept(directory: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield f"kept {directory}/{name}, which is not from here"
