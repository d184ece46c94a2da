"""The scripts by which daemontools runs us: rc, and run files of service directories.

They are those of every qmail howto, with our paths in them.
Source: supervise(8), multilog(8), tcpserver(1), softlimit(8); docs/OPERATORS.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

MARK = "# Written by `qsend setup`; it stays as it is once this line is gone.\n"
SEND, SMTPD, POP3D = "qmail-send", "qmail-smtpd", "qmail-pop3d"

LIMIT_BYTES = 80_000_000
"""For `softlimit -m`: twice what `python -m bench.softlimit` finds necessary, where
half of what POP3 needs is for one yescrypt. The 2000000 of howtos is for programs in
C; Python maps more before its first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPlaces:
    """What differs between machines: paths, all absolute, and this host's name.

    `tools` maps multilog, setuidgid, softlimit and tcpserver to where they are.
    """

    home: str
    logs: str
    host: str
    tools: Mapping[str, str]
    smtp_rules: str
    default_delivery: str = "./Maildir/"


def render_rc(places: ScriptPlaces) -> str:
    """`<home>/rc`, which starts the mail system."""
    programs = shlex.quote(f"{places.home}/bin")
    delivery = shlex.quote(places.default_delivery)
    command = f'exec env - PATH={programs}:"$PATH" \\\nqmail-start {delivery}\n'
    return f"#!/bin/sh\n{MARK}{command}"


def render_services(places: ScriptPlaces) -> dict[str, str]:
    """`qmail-send/run`, `qmail-send/log/run` and so on, each with its text."""
    runs = {SEND: _send(places), SMTPD: _smtpd(places), POP3D: _pop3d(places)}
    files = {}
    for service, text in runs.items():
        files[f"{service}/run"] = f"#!/bin/sh\n{MARK}{text}"
        files[f"{service}/log/run"] = f"#!/bin/sh\n{MARK}{_log(places, service)}"
    return files


def _send(places: ScriptPlaces) -> str:
    return f"exec {_program(places, 'rc')}\n"


def _smtpd(places: ScriptPlaces) -> str:
    return (
        "QMAILDUID=`id -u qmaild`\n"
        "NOFILESGID=`id -g qmaild`\n"
        f"exec {_tool(places, 'softlimit')} -m {LIMIT_BYTES} \\\n"
        f"{_tool(places, 'tcpserver')} -H -R -v -p "
        f"-x {shlex.quote(places.smtp_rules)} \\\n"
        "-u $QMAILDUID -g $NOFILESGID 0 smtp "
        f"{_program(places, 'bin/qmail-smtpd')} 2>&1\n"
    )


def _pop3d(places: ScriptPlaces) -> str:
    rules = shlex.quote(f"{places.home}/control/tcp.pop3.cdb")
    return (
        f"exec {_tool(places, 'softlimit')} -m {LIMIT_BYTES} \\\n"
        f"{_tool(places, 'tcpserver')} -H -R -v -X -x {rules} 0 pop3 \\\n"
        f"{_program(places, 'bin/qmail-popup')} {shlex.quote(places.host)} \\\n"
        f"{_program(places, 'bin/checkpassword')} "
        f"{_program(places, 'bin/qmail-pop3d')} Maildir 2>&1\n"
    )


def _log(places: ScriptPlaces, service: str) -> str:
    directory = shlex.quote(f"{places.logs}/{service}")
    return (
        f"exec {_tool(places, 'setuidgid')} qmaill "
        f"{_tool(places, 'multilog')} t s2500000 {directory}\n"
    )


def _tool(places: ScriptPlaces, name: str) -> str:
    return shlex.quote(places.tools[name])


def _program(places: ScriptPlaces, name: str) -> str:
    return shlex.quote(f"{places.home}/{name}")
