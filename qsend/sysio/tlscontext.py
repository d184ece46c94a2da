"""TLS contexts of clients, made of what control files hold.

Source: RFC 9325; the ssl module's SSLContext.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.tlspolicy import Level
from qsend.formats.controllines import FILE_MAX
from qsend.formats.tlscontrols import TlsControls, parse_tls
from qsend.sysio.boundedread import read_most
from qsend.sysio.tls import load_cert, reason_of

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems keep their certificate authorities, besides where OpenSSL looks."""


def system_ca() -> bytes:
    """This machine's certificate authorities in PEM; b"" when it has none."""
    for path in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        try:
            with open(path or "", "rb") as file:
                return read_most(file.fileno(), FILE_MAX)
        except OSError:
            continue
    return b""


def client_context(level: Level, controls: TlsControls, ca: bytes) -> ssl.SSLContext:
    """A context for sessions of one level, TLS 1.2 up.

    Names are not checked by it: core.tlspolicy does that.

    Args:
        ca: used by VERIFY where control/tlscafile is absent.
    Raises: OSError, of which ssl.SSLError is one, when the PEM cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if level is Level.VERIFY:
        trust(context, controls.ca or ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    if level is Level.MAY:
        # Old keys are better than none: the alternative is to send in clear.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if controls.cert:
        load_cert(context, controls.cert)
    return context


def trust(context: ssl.SSLContext, ca: bytes) -> None:
    """Verify peers by these certificates, any of which may be an end of the chain.

    Raises: ssl.SSLError.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca:
        context.load_verify_locations(cadata=ca.decode("ascii", "replace"))


def check_tls(files: Mapping[str, bytes]) -> None:
    """Try what every process would do with the files.

    Raises: ConfigError with every fault.
    """
    controls = parse_tls(files)
    faults = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        trust(context, controls.ca)
    except ssl.SSLError as exc:
        faults.append(_fault("tlscafile", exc))
    if controls.cert:
        try:
            load_cert(context, controls.cert)
        except OSError as exc:
            faults.append(_fault("clientcert.pem", exc))
    if faults:
        raise ConfigError(faults)


def _fault(name: str, exc: OSError) -> ConfigFault:
    problem = f"TLS cannot use it: {reason_of(exc)}"
    return ConfigFault(file=f"control/{name}", line=0, problem=problem)
