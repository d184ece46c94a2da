"""What filters are told of a client and its message besides the commands: macros.

Source: sendmail's confMILTER_MACROS_*; Postfix's MILTER_README.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

from qsend.core.milterwords import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """The client's TLS."""

    version: bytes
    cipher: bytes
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFacts:
    """One client; `host` is its name, `helo` what it calls itself, None: not known.

    `server` is our name.
    """

    server: bytes
    address: str
    port: int = 0
    host: bytes | None = None
    helo: bytes | None = None
    login: bytes | None = None
    tls: TlsFacts | None = None

    @property
    def shown_host(self) -> bytes:
        """Its name, or its address in brackets."""
        return self.host or b"[%b]" % self.address.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class MailFacts:
    """One message: `sender` quoted; `parameters` as they stood behind it, upper case.

    `ident` names the message in the logs of all who see it.
    """

    ident: bytes = b""
    sender: bytes = b""
    parameters: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    client: ClientFacts
    mail: MailFacts
    recip: bytes


def _tls(known: _Known) -> TlsFacts:
    return known.client.tls or TlsFacts(version=b"", cipher=b"", bits=0)


_MACROS: Mapping[bytes, Callable[[_Known], bytes | None]] = {
    b"j": lambda known: known.client.server,
    b"_": lambda known: (
        b"%b [%b]" % (known.client.host or b"unknown", known.client.address.encode())
    ),
    b"{daemon_name}": lambda known: known.client.server,
    b"v": lambda _: b"qsend",
    b"{client_addr}": lambda known: known.client.address.encode(),
    b"{client_port}": lambda known: b"%d" % known.client.port,
    b"{client_name}": lambda known: known.client.host or b"unknown",
    b"{client_ptr}": lambda known: known.client.host or b"unknown",
    b"{client_resolve}": lambda known: b"OK" if known.client.host else b"FAIL",
    b"{tls_version}": lambda known: _tls(known).version,
    b"{cipher}": lambda known: _tls(known).cipher,
    b"{cipher_bits}": lambda known: b"%d" % bits if (bits := _tls(known).bits) else b"",
    b"i": lambda known: known.mail.ident,
    b"{auth_authen}": lambda known: known.client.login,
    b"{auth_type}": lambda known: b"PLAIN" if known.client.login else None,
    b"{mail_addr}": lambda known: known.mail.sender,
    b"{mail_host}": lambda known: _host(known.mail.sender),
    b"{rcpt_addr}": lambda known: known.recip,
    b"{rcpt_host}": lambda known: _host(known.recip),
}
_MESSAGE = (b"i",)
_DEFAULTS: Mapping[Stage, tuple[bytes, ...]] = {
    Stage.CONNECT: (
        b"j",
        b"_",
        b"v",
        b"{daemon_name}",
        b"{client_addr}",
        b"{client_port}",
        b"{client_name}",
        b"{client_ptr}",
        b"{client_resolve}",
    ),
    Stage.HELO: (b"{tls_version}", b"{cipher}", b"{cipher_bits}"),
    Stage.MAIL: (
        b"i",
        b"{auth_authen}",
        b"{auth_type}",
        b"{client_addr}",
        b"{mail_addr}",
        b"{mail_host}",
    ),
    Stage.RCPT: (b"i", b"{rcpt_addr}", b"{rcpt_host}"),
    Stage.DATA: _MESSAGE,
    Stage.END_OF_HEADER: _MESSAGE,
    Stage.END: _MESSAGE,
}


def macros(
    stage: Stage,
    client: ClientFacts,
    mail: MailFacts,
    recip: bytes,
    wanted: Set[bytes] | None,
) -> dict[bytes, bytes]:
    """The macros of a stage that say something.

    Args:
        recip: that of RCPT, quoted.
        wanted: what the filter asked for, None when it did not.
    """
    names = _DEFAULTS.get(stage, ())
    if wanted is not None and names:
        names = tuple(name for name in _MACROS if name in wanted)
    known = _Known(client, mail, recip)
    found = {name: _MACROS[name](known) for name in names}
    return {name: value for name, value in found.items() if value}


def _host(address: bytes) -> bytes:
    return address.rpartition(b"@")[2] if b"@" in address else b""
