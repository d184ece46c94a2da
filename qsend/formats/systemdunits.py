"""The units by which systemd runs us: a service, and the sockets that it is lent.

Source: systemd.service(5), systemd.socket(5), systemd.exec(5), systemd.unit(5).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qsend.formats.listeners import Listener

MARK = "# Written by `qsend setup`; changes belong into `systemctl edit` or its like.\n"
SERVICE, SOCKET, NETWORK = "qsend.service", "qsend.socket", "qsend-network.socket"

_PATH = re.compile(r"/[A-Za-z0-9_./+@:,-]*")
"""Paths that mean the same everywhere in a unit."""

_SERVICE = """\
[Unit]
Description=qsend mail system
Documentation=man:qsend(8)
Wants=network-online.target
After=network-online.target nss-lookup.target nss-user-lookup.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={home}/bin/qsend start --home {home} --default-delivery {delivery}
ExecReload=/bin/kill -HUP $MAINPID
Sockets={sockets}
Restart=on-failure
RestartSec=5
# Wrong controls do not become right by another try.
RestartPreventExitStatus=100
# Told by start itself: how long a start or an end takes, and that send is alive.
TimeoutStartSec=10min
TimeoutStopSec=2min
WatchdogSec=2min
# TERM is for start alone, which lets deliveries finish.
KillMode=mixed
# A program of a user that takes all memory ends alone.
OOMPolicy=continue
LimitNOFILE=65536
TasksMax=16384
UMask=0077
SyslogIdentifier=qsend
# The log of deliveries is kept whole.
LogRateLimitIntervalSec=0

# start and lspawn are root, to become the users whose mail they deliver; all others
# give that up, and confine themselves further. What follows is for the whole tree,
# programs of users included, and so leaves them: homes wherever they are, a /tmp that
# they share with their other sessions, setuid programs, and terminals for qbiff.
CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_DAC_OVERRIDE CAP_FOWNER CAP_CHOWN
CapabilityBoundingSet=CAP_KILL CAP_NET_BIND_SERVICE
ProtectSystem=full
ReadWritePaths=-{home}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
KeyringMode=private
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io
SystemCallFilter=~@reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
Also={sockets}
"""

_SOCKET = """\
[Unit]
Description=Where programs hand in mail for qsend
Documentation=man:qsend(8)

[Socket]
ListenSequentialPacket={home}/run/enqueue.sock
SocketMode=0666
Backlog=128
RemoveOnStop=yes
Service={service}

[Install]
WantedBy=sockets.target
"""

_NETWORK = """\
[Unit]
Description=Where qsend listens to the network
Documentation=man:qsend(8) man:qmail-control(5)

[Socket]
# The lines of control/smtplisten, qmtplisten, qmqplisten and pop3listen, as they were
# when `qsend setup --supervise systemd` ran.
{listen}\
BindIPv6Only=ipv6-only
Backlog=128
Service={service}

[Install]
WantedBy=sockets.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlaces:
    """What differs between machines; `listeners` are those of all control files."""

    home: str
    listeners: Sequence[Listener]
    default_delivery: str = "./Maildir/"


def is_plain(path: str) -> bool:
    """Whether a path can stand in a unit as it is."""
    return _PATH.fullmatch(path) is not None


def render_units(places: UnitPlaces) -> dict[str, str]:
    """Each unit with its text; `home` is_plain."""
    sockets = f"{SOCKET} {NETWORK}" if places.listeners else SOCKET
    units = {
        SERVICE: _SERVICE.format(
            home=places.home,
            delivery=_word(places.default_delivery),
            sockets=sockets,
        ),
        SOCKET: _SOCKET.format(home=places.home, service=SERVICE),
    }
    if places.listeners:
        listen = "".join(f"ListenStream={each}\n" for each in places.listeners)
        units[NETWORK] = _NETWORK.format(listen=listen, service=SERVICE)
    return {name: MARK + text for name, text in units.items()}


def _word(text: str) -> str:
    """One word of ExecStart=, whatever is in it."""
    escaped = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%", "$": "$$"}
    return '"' + "".join(escaped.get(each, each) for each in text) + '"'
