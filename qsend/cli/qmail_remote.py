r"""qmail-remote: send one message over SMTP, `qmail-remote host sender recip...`.

The message is on descriptor 0. Whatever happens is said on standard output, one
item per recipient that was asked (`r`, `h` or `s`), then one for the message
(`K`, `Z` or `D`), each ended by NUL; the exit code is always 0.
Controls: helohost (or me), smtproutes, timeoutconnect, timeoutremote, resolvers,
tlspolicy, tlscafile, clientcert.pem, and for relays smtpauth.
Source: qmail-remote(8).
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, PermFail, QsendError, TempFail
from qsend.core.mx import Host, route
from qsend.core.smtptypes import Envelope, Outcome
from qsend.formats.control import Controls, Route, parse_controls
from qsend.formats.tlscontrols import parse_tls
from qsend.sysio.dns import Dns
from qsend.sysio.home import find_home, read_control
from qsend.sysio.localaddrs import own_addresses
from qsend.sysio.smtpcontent import Content
from qsend.sysio.smtpdial import deliver, unsendable
from qsend.sysio.smtpsession import Settings
from qsend.sysio.tcptotable import TcptoTable
from qsend.sysio.tlsclient import TlsClient
from qsend.sysio.tlscontext import system_ca

_HELP = """\
usage: qmail-remote host sender recip ... < message

Sends a message by SMTP to the relay or mail exchangers of host. Prints items, each with
a NUL after it: r, h or s for each recipient (accepted, refused, refused for now), then
K, Z or D for the message (sent, try again, failed). The exit code is always 0.
"""

PORT = 25
_CONTROLS = (
    "me",
    "helohost",
    "resolvers",
    "smtproutes",
    "timeoutconnect",
    "timeoutremote",
)
_TLS_CONTROLS = ("tlspolicy", "tlscafile", "clientcert.pem")
_COPY_BYTES = 1 << 17


def main(argv: Sequence[str]) -> int:
    """Deliver, and say how it went; 0."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        items = _run([os.fsencode(word) for word in argv])
    except PermFail as exc:
        items = _item(b"D", str(exc))
    except QsendError as exc:
        items = _item(b"Z", str(exc))
    except Exception as exc:  # noqa: BLE001 - outermost: the unknown is temporary
        items = _item(b"Z", f"qmail-remote broke down: {exc!r}. (#4.3.0)")
    _write_all(items)
    return 0


def _run(operands: Sequence[bytes]) -> bytes:
    if len(operands) < 3:
        raise PermFail("I (qmail-remote) was invoked improperly. (#5.3.5)")
    host, sender, *recips = operands
    try:
        errand = _prepare(find_home(None, os.environ), host)
    except (ConfigError, TempFail) as exc:
        raise TempFail(f"Unable to use the controls: {exc}. (#4.3.0)") from exc
    refusal = unsendable(sender, recips)
    if refusal is not None:
        return refusal.letter.value + refusal.text + b"\0"
    content = Content(_message())
    try:
        envelope = Envelope(
            sender=sender,
            recips=recips,
            size=content.size,
            eight_bit=content.is_eight_bit,
        )
        return asyncio.run(_send(errand, envelope, content)).items()
    finally:
        content.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """Where to go, and what is known of the way."""

    home: str
    controls: Controls
    host: bytes
    relay: Route | None
    tls: TlsClient


def _prepare(home: str, host: bytes) -> _Errand:
    """Read the controls. Raises: TempFail or ConfigError without a code."""
    controls = _read_controls(home)
    relay = route(host, controls.smtproutes)
    # Passwords are for relays; nothing else has to wait if they cannot be read.
    secrets = () if relay is None else ("smtpauth",)
    tls = TlsClient(parse_tls(_read(home, (*_TLS_CONTROLS, *secrets))), system_ca)
    return _Errand(home=home, controls=controls, host=host, relay=relay, tls=tls)


def _read(home: str, names: Iterable[str]) -> dict[str, bytes]:
    found = {name: read_control(home, name) for name in names}
    return {name: content for name, content in found.items() if content is not None}


def _read_controls(home: str) -> Controls:
    """What qmail-remote needs. Raises: TempFail or ConfigError without a code."""
    files = _read(home, _CONTROLS)
    # Which domains are local is nobody's business here.
    controls = parse_controls({"locals": b"", **files})
    if not controls.helohost:
        raise TempFail("there is neither control/helohost nor control/me")
    return controls


def _message() -> int:
    """A descriptor of a regular file that holds the message from its start.

    Descriptor 0 is one below a spawner; from a pipe, or from the middle of a
    file, the message is copied first.
    Raises: TempFail.
    """
    try:
        is_file = stat.S_ISREG(os.fstat(0).st_mode)
        if is_file and os.lseek(0, 0, os.SEEK_CUR) == 0:
            return os.dup(0)
        with tempfile.TemporaryFile() as file:
            while piece := os.read(0, _COPY_BYTES):
                file.write(piece)
            file.flush()
            return os.dup(file.fileno())
    except OSError as exc:
        raise TempFail(f"Unable to read message: {exc.strerror}. (#4.3.0)") from exc


async def _send(errand: _Errand, envelope: Envelope, content: Content) -> Outcome:
    """One transaction. Raises: TempFail, PermFail when there is nobody to ask."""
    relay, controls = errand.relay, errand.controls
    hosts = await _find(errand)
    destination = errand.host if relay is None else relay.host
    settings = Settings(
        helo=controls.helohost,
        timeout_connect=controls.timeoutconnect,
        timeout_remote=controls.timeoutremote,
        tls=errand.tls,
    )
    health = TcptoTable(os.path.join(errand.home, "queue/lock/tcpto"), os.getpid())
    return await deliver(
        hosts,
        PORT if relay is None else relay.port or PORT,
        errand.tls.demand(destination, is_relay=relay is not None),
        envelope,
        content,
        settings,
        health,
    )


async def _find(errand: _Errand) -> list[Host]:
    dns = Dns(errand.controls.resolvers)
    try:
        if errand.relay is not None:
            return await dns.relay_hosts(errand.relay.host)
        return await dns.hosts(errand.host, own_addresses())
    finally:
        await dns.close()


def _item(letter: bytes, text: str) -> bytes:
    return letter + text.encode("ascii", "replace").replace(b"\0", b"?") + b"\n\0"


def _write_all(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        return  # nobody listens; qmail-remote has no other way to say so
