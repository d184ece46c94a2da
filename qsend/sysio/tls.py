"""TLS: a server's context from PEM text, and one connection as bytes in and out.

Source: RFC 8446, RFC 9325; the ssl module's SSLObject and MemoryBIO.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl

from qsend.core.errors import ConfigError, ConfigFault, RemoteProtocolError
from qsend.formats.listeners import CERTIFICATE

_READ_MAX = 65536


def server_context(pem: bytes) -> ssl.SSLContext:
    """TLS 1.2 and later with the certificate, its chain and the private key in `pem`.

    Raises: ConfigError when they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        load_cert(context, pem)
    except OSError as exc:
        problem = f"certificate and key cannot be used: {reason_of(exc)}"
        fault = ConfigFault(file=f"control/{CERTIFICATE}", line=0, problem=problem)
        raise ConfigError([fault]) from exc
    return context


def load_cert(context: ssl.SSLContext, pem: bytes) -> None:
    """Use the certificate, its chain and the private key in `pem`.

    Works in a process that can open no files: the library takes a path only, and
    gets that of an unnamed file in memory.
    Raises: OSError, of which ssl.SSLError is one; see `reason_of`.
    """
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with open(fd, "wb", buffering=0) as file:
        file.write(pem)
        try:
            # A key with a pass phrase must not make the library ask on a terminal.
            context.load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: b"")
        except ValueError as exc:
            raise OSError(errno.EINVAL, str(exc)) from exc


def reason_of(exc: OSError) -> str:
    """What went wrong, in a few plain words."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "broken").replace("_", " ").lower()
    return exc.strerror or "broken"


class TlsBroken(RemoteProtocolError):
    """The peer's bytes are no TLS, or TLS cannot go on; `reason` in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS: {reason}")
        self.reason = reason


class TlsBytes:
    """One connection: what comes in becomes plain, what goes out secret."""

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        is_server: bool = True,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Begin; a client goes on with `feed(b"")`, which makes its hello.

        Args:
            name: what a client tells the server in clear whom it wants (SNI).
            session: one that a client had with this server in the same context.
        """
        self.is_open = False
        """Whether the handshake is done."""
        self.is_ended = False
        """Whether the peer has said that nothing more comes, or TLS broke."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=is_server,
            server_hostname=name,
            session=session,
        )

    def feed(self, data: bytes) -> bytes:
        """The plain text that `data` completes; ask for `output` afterwards.

        Raises: TlsBroken when it is no TLS, or not the right one, and nothing plain
            came before that; what `output` gives then may tell the peer.
        """
        self._incoming.write(data)
        plain = []
        try:
            if not self.is_open:
                self.object.do_handshake()
                self.is_open = True
            while piece := self.object.read(_READ_MAX):
                plain.append(piece)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass  # it takes more bytes
        except ssl.SSLZeroReturnError:  # after our own farewell
            self.is_ended = True
        except ssl.SSLError as exc:
            self.is_ended = True
            if not plain:
                raise TlsBroken(reason_of(exc)) from exc
        return b"".join(plain)

    def send(self, plain: bytes) -> None:
        """Have `plain` sent, after the handshake; ask for `output` afterwards."""
        self.object.write(plain)

    def close(self) -> None:
        """Say that nothing more comes; ask for `output` afterwards."""
        with contextlib.suppress(ssl.SSLError):
            self.object.unwrap()

    def output(self) -> bytes:
        """What is to be sent over the line now."""
        return self._outgoing.read()
