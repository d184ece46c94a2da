"""The PROXY header in front of a connection that a balancer hands on.

aiosmtpd parses it; here it is either a client, or nobody, or an error.
Source: haproxy's proxy-protocol.txt; aiosmtpd.proxy_protocol.
"""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Address, IPv6Address

from aiosmtpd.proxy_protocol import get_proxy

from qsend.core.errors import RemoteProtocolError
from qsend.core.mx import canonical

# What it would say there, past the log's own form, is in the error.
logging.getLogger("mail.debug").addHandler(logging.NullHandler())


async def client(reader: asyncio.StreamReader) -> tuple[str, int] | None:
    """Address and port of the client; None: the balancer itself looks how we are.

    Raises: RemoteProtocolError for what is no header, or names no IP address.
    """
    try:
        header = await get_proxy(reader)
    except EOFError as exc:
        raise RemoteProtocolError("the connection ended") from exc
    if not header.valid:
        raise RemoteProtocolError(header.error or "expected a PROXY header")
    if header.src_addr is None:
        return None
    if not isinstance(header.src_addr, IPv4Address | IPv6Address):
        raise RemoteProtocolError("the client has no IP address")
    return canonical(str(header.src_addr)), int(header.src_port or 0)
