r"""qmail-remote: send one message over SMTP, `qmail-remote host sender recip...`.

The message is on descriptor 0. Whatever happens is said on standard output, one
item per recipient that was asked (`r`, `h` or `s`), then one for the message
(`K`, `Z` or `D`), each ended by NUL; the exit code is always 0.
Controls: helohost (or me), smtproutes, timeoutconnect, timeoutremote, resolvers.
Source: qmail-remote(8).
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Sequence

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, PermFail, QsendError, TempFail
from qsend.core.mx import Host, route
from qsend.core.smtptypes import Envelope, Outcome
from qsend.formats.control import Controls, parse_controls
from qsend.sysio.dns import Dns
from qsend.sysio.home import find_home, read_control
from qsend.sysio.localaddrs import own_addresses
from qsend.sysio.smtpcontent import Content
from qsend.sysio.smtpdial import deliver, unsendable
from qsend.sysio.smtpsession import Settings
from qsend.sysio.tcptotable import TcptoTable

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
        home = find_home(None, os.environ)
        controls = _read_controls(home)
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
        return asyncio.run(_send(home, controls, host, envelope, content)).items()
    finally:
        content.close()


def _read_controls(home: str) -> Controls:
    """What qmail-remote needs. Raises: TempFail or ConfigError without a code."""
    found = {name: read_control(home, name) for name in _CONTROLS}
    files = {name: content for name, content in found.items() if content is not None}
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


async def _send(
    home: str, controls: Controls, host: bytes, envelope: Envelope, content: Content
) -> Outcome:
    """One transaction. Raises: TempFail, PermFail when there is nobody to ask."""
    hosts, port = await _find(controls, host)
    settings = Settings(
        helo=controls.helohost,
        timeout_connect=controls.timeoutconnect,
        timeout_remote=controls.timeoutremote,
    )
    health = TcptoTable(os.path.join(home, "queue/lock/tcpto"), os.getpid())
    addresses = [found.address for found in hosts]
    return await deliver(addresses, port, envelope, content, settings, health)


async def _find(controls: Controls, host: bytes) -> tuple[list[Host], int]:
    dns = Dns(controls.resolvers)
    try:
        relay = route(host, controls.smtproutes)
        if relay is not None:
            return await dns.relay_hosts(relay.host), relay.port or PORT
        return await dns.hosts(host, own_addresses()), PORT
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
