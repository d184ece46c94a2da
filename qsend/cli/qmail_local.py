"""qmail-local: deliver one message as the current user, the classic way.

`qmail-local [-nN] user homedir local dash ext domain sender defaultdelivery`
Descriptor 0 is the message, seekable; programs write to descriptors 1 and 2. With
-n the instructions are printed and nothing is done. Exit codes: 0 delivered, 100
failure, 111 deferral; the reason goes to descriptor 2, the counts to 1. A classic
qmail-lspawn has no place for the instructions of alias rows: with a database, lookup
is asked for those of the current user.
Source: qmail-local(8).
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, PermFail, QsendError, TempFail
from qsend.core.model import DelId, Letter, Ownership, User
from qsend.core.users import NoUser, Trouble
from qsend.formats.control import parse_controls
from qsend.formats.delivery import ChildDelivery
from qsend.sysio import dotqmailfile, lookupclient, mailqueue
from qsend.sysio.home import find_home, read_control
from qsend.sysio.localdelivery import (
    Deliverer,
    Settings,
    choose,
    describe,
    instructions,
)

_HELP = """\
usage: qmail-local [ -nN ] user homedir local dash ext domain sender defaultdelivery

Delivers the message on descriptor 0 as the current user, by the .qmail file that dash
and ext choose in homedir, or by the text defaultdelivery. -n prints what would be done:

  qmail-local -n ann /home/ann ann-list - list here.example me@x ./Mailbox

Exit codes: 0 delivered, 100 failed, 111 it may work later.
"""

_USAGE = (
    b"qmail-local: usage: qmail-local [ -nN ]"
    b" user homedir local dash ext domain sender defaultdelivery\n"
)
_EXIT_CODES = {Letter.SUCCESS: 0, Letter.FAILURE: 100, Letter.DEFERRAL: 111}


def main(argv: Sequence[str]) -> int:
    """Run with the arguments after the program's name; return the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        return _main(argv)
    except Exception as exc:  # noqa: BLE001 - Python's own exit code would bounce
        _write(2, f"Internal trouble: {type(exc).__name__}: {exc}. (#4.3.0)\n".encode())
        return 111


def _main(argv: Sequence[str]) -> int:
    try:
        options, operands = getopt.getopt(list(argv), "nN")
    except getopt.GetoptError:
        operands, options = [], []
    if len(operands) != 8 or not operands[1].startswith("/"):
        _write(2, _USAGE)
        return 100
    words = [os.fsencode(word) for word in operands]
    os.umask(0o077)
    try:
        home = find_home(None, os.environ)
        delivery = _delivery(words, home)
        settings = _settings(home, words[7])
        if options and options[-1][0] == "-n":
            return _list(delivery, settings)
    except QsendError as exc:
        _write(2, _text(exc))
        return 100 if isinstance(exc, PermFail) else 111
    return _deliver(delivery, settings)


def _delivery(words: Sequence[bytes], qsend_home: str) -> ChildDelivery:
    """Raises: TempFail."""
    name, home, local, dash, ext, domain, sender = words[:7]
    user = User(
        name=name,
        uid=os.getuid(),
        gid=os.getgid(),
        home=home,
        dash=dash,
        ext=ext,
        # Whoever starts this program has decided whose home it is.
        ownership=Ownership.TRUSTED,
    )
    user = replace(user, instructions=_instructions(user, local, qsend_home))
    return ChildDelivery(
        delid=DelId(0), user=user, local=local, domain=domain, sender=sender
    )


def _instructions(user: User, local: bytes, qsend_home: str) -> bytes | None:
    """What alias rows say of mail for `local`; None: the .qmail files decide.

    Raises: TempFail when that cannot be found out.
    """
    if not lookupclient.is_asked(qsend_home):
        return None
    with lookupclient.LookupClient(qsend_home) as lookup:
        found = lookup.own(local)
    if isinstance(found, Trouble):
        raise TempFail(found.text.decode("utf-8", "backslashreplace") + " (#4.3.0)")
    if isinstance(found, NoUser):
        return None
    # Whoever calls by hand may name any home and extension: rows are not about them.
    same = (found.name, found.home, found.dash, found.ext) == (
        (user.name, user.home, user.dash, user.ext)
    )
    return found.instructions if same else None


def _settings(home: str, default_delivery: bytes) -> Settings:
    """The two controls that matter here. Raises: TempFail, ConfigError."""
    files = {"me": b"localhost"}  # parse_controls wants one; it is not used
    for name in ("patrn", "durability"):
        content = read_control(home, name)
        if content is not None:
            files[name] = content
    controls = parse_controls(files)
    return Settings(
        patrn=controls.patrn,
        default_delivery=default_delivery,
        durability=controls.durability,
        # Inherited, as programs below a classic qmail-lspawn expect.
        base=dict(os.environb),
        collects=False,
    )


def _deliver(delivery: ChildDelivery, settings: Settings) -> int:
    def inject(
        chunks: Iterable[bytes],
        sender: bytes,
        recips: Sequence[bytes],
        environ: Mapping[str, str],
    ) -> int:
        home = find_home(None, os.environ)
        return mailqueue.inject(home, chunks, sender, recips, environ)

    report = Deliverer(settings, inject).deliver(delivery, 0)
    _write(1 if report.letter is Letter.SUCCESS else 2, report.text)
    return _EXIT_CODES[report.letter]


def _list(delivery: ChildDelivery, settings: Settings) -> int:
    """Print what would be done. Raises: QsendError as a delivery would fail."""
    user = delivery.user
    home_fd = dotqmailfile.open_home(user, settings.patrn, warn=_warn)
    try:
        chosen = choose(home_fd, user, settings.patrn)
    finally:
        os.close(home_fd)
    for line in describe(instructions(chosen, settings.default_delivery)):
        _write(1, line)
    return 0


def _warn(text: str) -> None:
    _write(2, text.encode() + b"\n")


def _text(exc: QsendError) -> bytes:
    words = str(exc)
    if isinstance(exc, ConfigError):
        words += " (#4.3.0)"
    return os.fsencode(words.rstrip("\n") + "\n")


def _write(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        pass  # nobody reads the report; the exit code says what became of it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
