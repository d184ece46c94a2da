"""The name of a client: what the DNS says of its address, if the name says the same.

Source: tcpserver(1) -h -p; RFC 1035 3.5, RFC 8501.
"""

from __future__ import annotations

import asyncio
import ipaddress

from dns.rdatatype import AAAA, PTR, A

from qsend.sysio.dns import Dns

DEADLINE_S = 5.0
"""A client waits for its greeting meanwhile."""
_NAMES_MAX = 4
"""Names of one address that are looked at."""


async def client_name(dns: Dns, address: str) -> bytes | None:
    """The first name of an address that has that address; lower case, or None.

    Raises: nothing: what the DNS does not say in time is no name.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await _find(dns, address)
    except TimeoutError:
        return None


async def _find(dns: Dns, address: str) -> bytes | None:
    parsed = ipaddress.ip_address(address)
    answer = await dns.ask(parsed.reverse_pointer.encode(), PTR)
    for name in answer.names[:_NAMES_MAX]:
        confirmed = await dns.ask(name, A if parsed.version == 4 else AAAA)
        if address in confirmed.addresses:
            return name.lower()
    return None
