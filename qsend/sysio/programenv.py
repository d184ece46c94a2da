"""What the programs of others are given of our environment.

Source: qmail-command(8); tcp-environ(5); docs/NETWORK.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from qsend.core.access import Client

_PATH = b"/usr/local/bin:/usr/bin:/bin"
"""When the daemon itself was started without a PATH."""


def program_base(home: str, environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What programs get besides the variables of their delivery or client.

    PATH and QMAILQUEUE as the daemon has them; the home and its programs first in
    PATH, so that `forward` and its kin in a dot-qmail file are found, and find this
    queue. Nothing else is inherited.
    """
    programs = os.fsencode(home) + b"/bin"
    path = environ.get(b"PATH") or _PATH
    if programs not in path.split(b":"):
        path = programs + b":" + path
    base = {b"PATH": path, b"QSEND_HOME": os.fsencode(home)}
    if queue_program := environ.get(b"QMAILQUEUE"):
        base[b"QMAILQUEUE"] = queue_program
    return base


def client_variables(
    client: Client, variables: Mapping[bytes, bytes], login: bytes | None
) -> dict[bytes, bytes]:
    """What a queueing program is told of the client, as below tcpserver.

    Args:
        variables: those of its access rule.
        login: who has logged in: he may relay, and is what ident would have said.
    """
    told = {b"PROTO": b"TCP", b"TCPREMOTEIP": client.address.encode()}
    if client.host is not None:
        told[b"TCPREMOTEHOST"] = client.host
    info = client.info if login is None else login
    if info is not None:
        told[b"TCPREMOTEINFO"] = info
    if login is not None:
        told[b"RELAYCLIENT"] = b""
    return {**told, **variables}
