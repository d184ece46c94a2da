"""TLS for servers: a context from PEM text, and one connection as bytes in and out.

Source: RFC 8446, RFC 9325; the ssl module's SSLObject and MemoryBIO.
"""

from __future__ import annotations

import contextlib
import os
import ssl

from qsend.core.errors import ConfigError, ConfigFault, RemoteProtocolError
from qsend.formats.listeners import CERTIFICATE

_READ_MAX = 65536


def server_context(pem: bytes) -> ssl.SSLContext:
    """TLS 1.2 and later with the certificate, its chain and the private key in `pem`.

    Works in a process that can open no files: the library takes a path only, and
    gets that of an unnamed file in memory.
    Raises: ConfigError when they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    fd = os.memfd_create("servercert", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(pem)
        # A key with a pass phrase must not make the library ask on a terminal.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: b"")
    except (OSError, ValueError) as exc:
        words = getattr(exc, "reason", None) or exc.__class__.__name__
        problem = f"certificate and key cannot be used: {words}"
        fault = ConfigFault(file=f"control/{CERTIFICATE}", line=0, problem=problem)
        raise ConfigError([fault]) from exc
    finally:
        os.close(fd)
    return context


class TlsBytes:
    """One connection of a server: what comes in becomes plain, what goes out secret."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.is_open = False
        """Whether the handshake is done."""
        self.is_ended = False
        """Whether the client has said that nothing more comes."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=True
        )

    def feed(self, data: bytes) -> bytes:
        """The plain text that `data` completes; ask for `output` afterwards.

        Raises: RemoteProtocolError when it is no TLS, or not the right one; what
            `output` gives then may tell the client.
        """
        self._incoming.write(data)
        plain = []
        try:
            if not self.is_open:
                self._object.do_handshake()
                self.is_open = True
            while piece := self._object.read(_READ_MAX):
                plain.append(piece)
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass  # it takes more bytes
        except ssl.SSLError as exc:
            raise RemoteProtocolError(f"TLS: {exc.reason}") from exc
        return b"".join(plain)

    def send(self, plain: bytes) -> None:
        """Have `plain` sent, after the handshake; ask for `output` afterwards."""
        self._object.write(plain)

    def close(self) -> None:
        """Say that nothing more comes; ask for `output` afterwards."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()

    def output(self) -> bytes:
        """What is to be sent over the line now."""
        return self._outgoing.read()
