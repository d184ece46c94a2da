"""sendmail, mailq and newaliases: what other programs call to hand in mail.

Options that mean nothing here are accepted and ignored. Nothing is exec'ed but
qmail-smtpd for -bs. Called newaliases, as by a link of that name, it is that program.
Exit codes: those of the program that does the work; 100 usage, 111 temporary.
Source: sendmail.c of netqmail. Unlike it: -F holds also with -f; -f may have
angle brackets, and a null sender leaves the From field alone; -N, -R and -V
(delivery status notifications) are accepted.
"""

from __future__ import annotations

import posix

from qsend.cli import qmail_inject
from qsend.cli.options import CommandLine, UsageError, teach, wants_help
from qsend.core.errors import QsendError
from qsend.core.light import TYPE_CHECKING, Enum, dataclass
from qsend.sysio.home import find_home
from qsend.sysio.native import read_environ, to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_USAGE = (
    "usage: sendmail [ -t ] [ -fsender ] [ -Fname ] [ -bm | -bp | -bs ] [ arg ... ]"
)
_HELP = f"""\
{_USAGE}

Reads a message, completes its header and queues it for the recipients given.

  -t          for those in the header too     -f sender   envelope sender
  -F name     name in the From line           -bp         list the queue, as mailq
  -bs         speak SMTP on standard input and output

Other options of sendmail that mean nothing here are accepted. Exit codes: 0; 100 wrong
usage or refused for good; 111 it may work later.
"""
_FLAGS = "vimxt"
_VALUED = "befopBFNRV"
_SWALLOWING = "EJ"
_NAMES = ("QMAILNAME", "MAILNAME", "NAME", "QMAILHOST", "MAILHOST")
"""Variables that would contradict the sender given with -f."""

_LOOPBACK = {
    "RELAYCLIENT": "",
    "DATABYTES": "0",
    "PROTO": "TCP",
    "TCPLOCALIP": "127.0.0.1",
    "TCPLOCALHOST": "localhost",
    "TCPREMOTEIP": "127.0.0.1",
    "TCPREMOTEHOST": "localhost",
    "TCPREMOTEINFO": "sendmail-bs",
}
"""What qmail-smtpd is told when no network server has called us."""


class _Mode(Enum):
    """What -b asks for."""

    INJECT = "m"
    LIST = "p"
    SMTP = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The command line, without what means nothing here."""

    mode: _Mode
    takes_header_recips: bool
    sender: str | None
    name: str | None
    recips: tuple[str, ...]


def main(argv: Sequence[str], program: str) -> int:
    """Run as `program`; the exit code.

    Args:
        argv: arguments without the program's name.
        program: the base name it was called by: sendmail, mailq or newaliases.
    Raises: nothing.
    """
    if program == "newaliases":
        from qsend.cli import newaliases  # noqa: PLC0415 - sendmail starts fast

        return newaliases.main(argv)
    if wants_help(argv):
        return teach(_HELP)
    try:
        request = _parse_args(argv)
    except UsageError as exc:
        _say(program, str(exc))
        _say(program, _USAGE)
        return 100
    if program == "mailq" or request.mode is _Mode.LIST:
        from qsend.cli import qmail_qread  # noqa: PLC0415 - sendmail starts fast

        return qmail_qread.main([])
    if request.mode is _Mode.SMTP:
        return _exec_smtpd(program)
    return qmail_inject.run(
        inject_args(request), inject_environ(request, read_environ())
    )


def _say(program: str, text: str) -> None:
    prefix = "" if text.startswith("usage") else "fatal: "
    try:
        posix.write(2, to_bytes(f"{program}: {prefix}{text}\n"))
    except OSError:
        return  # nowhere left to complain; the exit code still tells


def _parse_args(argv: Sequence[str]) -> _Request:
    mode = _Mode.INJECT
    takes_header_recips = False
    values: dict[str, str] = {}
    line = CommandLine(argv, _FLAGS, _VALUED, _SWALLOWING)
    for letter, value in line.options():
        if letter == "b":
            mode = _parse_mode(value)
            if mode is not _Mode.INJECT:
                break  # whatever follows is not about a message
        elif letter == "t":
            takes_header_recips = True
        else:
            values[letter] = value
    return _Request(
        mode=mode,
        takes_header_recips=takes_header_recips,
        sender=_bare(values.get("f")),
        name=values.get("F"),
        recips=tuple(line.arguments),
    )


def _bare(sender: str | None) -> str | None:
    """The sender without angle brackets: `-f "<>"` is how many ask for no sender."""
    if sender and sender[0] == "<" and sender[-1] == ">":
        return sender[1:-1]
    return sender


def _parse_mode(value: str) -> _Mode:
    try:
        return _Mode(value[:1])
    except ValueError:
        raise UsageError(f"mode -b{value} is not supported") from None


def inject_args(request: _Request) -> list[str]:
    """The arguments for qmail-inject."""
    args = ["-H" if request.takes_header_recips else "-a"]
    if request.sender is not None:
        args += ["-f", request.sender]
    return [*args, "--", *request.recips]


def inject_environ(request: _Request, environ: dict[str, str]) -> dict[str, str]:
    """The environment for qmail-inject: -f and -F also decide the From field.

    With -f, the From field's address is the sender, and no name from the
    environment goes with it; the name of -F does. The null sender is nobody's
    From address: it changes nothing.
    Source: sendmail.c do_sender().
    """
    if request.sender:
        for variable in _NAMES:
            environ.pop(variable, None)
        user, at, host = request.sender.rpartition("@")
        environ["QMAILUSER"] = user if at else request.sender
        if at:
            environ["QMAILHOST"] = host
    if request.name is not None:
        environ["MAILNAME"] = request.name
    return environ


def _exec_smtpd(program: str) -> int:
    """Become <home>/bin/qmail-smtpd; returns only when that fails."""
    environ: Mapping[str, str] = read_environ()
    if "PROTO" not in environ:
        environ = {**environ, **_LOOPBACK}
    try:
        posix.chdir(find_home(None, environ))
        posix.execve("bin/qmail-smtpd", ["bin/qmail-smtpd"], environ)
    except QsendError as exc:
        _say(program, str(exc))
    except OSError as exc:
        _say(program, f"unable to run qmail-smtpd: {exc.strerror}")
    return 111
