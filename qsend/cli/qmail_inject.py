"""qmail-inject: complete the header of a message on stdin, and queue it.

`qmail-inject [-nNaAhH] [-f sender] [recip...]`. Exit codes: 0 queued, 100 usage,
syntax or permanent refusal, 111 temporary. Runs as the caller; writes nothing
but to the queue, stdout with -n, and fd 2. The body is never held in memory.
Source: qmail-inject.c, qmail-inject(8).
"""

from __future__ import annotations

import posix

from qsend.cli.options import CommandLine, teach, wants_help
from qsend.core.address import quote
from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.inject import RecipSource, Stamp, plan_injection
from qsend.core.light import TYPE_CHECKING, dataclass
from qsend.formats.controllines import FILE_MAX
from qsend.formats.injectenv import (
    CONTROL_VARIABLES,
    Options,
    build_request,
    control_value,
    parse_address,
)
from qsend.formats.rfc822 import parse_field, read_header, render_field
from qsend.sysio import clock
from qsend.sysio.boundedread import read_most
from qsend.sysio.home import find_home, read_control
from qsend.sysio.mailqueue import inject
from qsend.sysio.native import is_directory, read_environ, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from qsend.core.inject import HeaderPart, Injection

_HELP = """\
usage: qmail-inject [ -nNaAhH ] [ -f sender ] [ recip ... ] < message

Completes the header of a message, rewrites its addresses and queues it.

  -a  to the recipients given here only    -h  to those in the header only
  -A  to those given, else the header's (default)    -H  to both
  -f sender  envelope sender    -n  print the message, queue nothing

  printf 'To: ann\\nSubject: hello\\n\\nhi\\n' | qmail-inject

Exit codes: 0; 100 wrong usage or refused for good; 111 it may work later.
"""

_CHUNK = 1 << 16
_SOURCES = {
    "a": RecipSource.ARGS,
    "A": RecipSource.DEFAULT,
    "h": RecipSource.HEADER,
    "H": RecipSource.BOTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the command line asks for; `prints` is option -n."""

    options: Options
    prints: bool


def main(argv: Sequence[str]) -> int:
    """Run as a program: arguments without its name, environment of the process."""
    if wants_help(argv):
        return teach(_HELP)
    return run(argv, read_environ())


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Inject the message on fd 0; the exit code.

    Args:
        argv: arguments without the program's name.
        environ: used instead of the process' own environment.
    Raises: nothing: every failure is one line on fd 2 and its exit code.
    """
    try:
        _inject(_parse_args(argv), environ)
    except PermFail as exc:
        return _fail(str(exc), 100)
    except QsendError as exc:
        return _fail(str(exc), 111)
    except MemoryError:
        return _fail("out of memory", 111)
    except KeyboardInterrupt:
        return _fail("interrupted", 111)
    except Exception as exc:  # noqa: BLE001 - outermost: unknown is temporary
        return _fail(f"internal bug: {exc!r}", 111)
    return 0


def _fail(text: str, code: int) -> int:
    _say(f"fatal: {text}")
    return code


def _say(text: str) -> None:
    line = f"qmail-inject: {text}\n".encode("utf-8", "surrogateescape")
    try:
        posix.write(2, line)
    except OSError:
        return  # nowhere left to complain; the exit code still tells


def _parse_args(argv: Sequence[str]) -> _Job:
    source = RecipSource.DEFAULT
    prints = False
    sender = None
    line = CommandLine(argv, "aAhHnN", "f")
    for letter, value in line.options():
        if letter == "f":
            sender = to_bytes(value)
            parse_address(sender)  # the last one counts, but each must be one
        elif letter in "nN":
            prints = letter == "n"
        else:
            source = _SOURCES[letter]
    recips = tuple(to_bytes(recip) for recip in line.arguments)
    options = Options(recip_source=source, sender=sender, recips=recips)
    return _Job(options=options, prints=prints)


def _inject(job: _Job, environ: Mapping[str, str]) -> None:
    home = find_home(None, environ)
    request = build_request(
        job.options,
        {name: to_bytes(value) for name, value in environ.items()},
        _read_controls(home, environ),
        _read_followup_file(environ.get("QMAILMFTFILE")),
    )
    with _open_stdin() as stdin:
        fields, start = read_header(_translated(stdin.readline))
        injection = plan_injection(
            request, (parse_field(raw) for raw in fields), _stamp()
        )
        for warning in injection.warnings:
            _say(f"warning: {warning}")
        content = _content(injection.header, start, stdin)
        if job.prints:
            _print(injection, content)
        else:
            inject(home, content, injection.sender, injection.recips, environ)


def _stamp() -> Stamp:
    unique = posix.urandom(6).hex().encode()
    return Stamp(now=clock.now(), pid=posix.getpid(), unique=unique)


def _read_controls(home: str, environ: Mapping[str, str]) -> dict[str, bytes]:
    """The controls; only files that no variable overrides are read."""
    if not is_directory(home):
        raise TempFail(f"unable to switch to home directory {home}")
    values = {}
    me: bytes | None = None
    is_me_read = False
    for name, variable in CONTROL_VARIABLES.items():
        if variable in environ:
            values[name] = to_bytes(environ[variable])
            continue
        content = read_control(home, name)
        if content is None and not is_me_read:
            me = read_control(home, "me")
            is_me_read = True
        values[name] = control_value(name, content, me)
    return values


def _read_followup_file(path: str | None) -> bytes | None:
    """The list file of $QMAILMFTFILE; None when unset or absent."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            content = read_most(file.fileno(), FILE_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    if len(content) > FILE_MAX:
        raise TempFail(f"{path} is longer than {FILE_MAX} bytes")
    return content


def _open_stdin() -> BinaryIO:
    try:
        return open(0, "rb", buffering=_CHUNK, closefd=False)
    except OSError as exc:
        raise TempFail(f"read error: {exc.strerror}") from exc


def _translated(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """`read` of stdin, raising TempFail for OSError."""

    def reading(limit: int) -> bytes:
        try:
            return read(limit)
        except OSError as exc:
            raise TempFail(f"read error: {exc.strerror}") from exc

    return reading


def _content(
    header: Iterable[HeaderPart], start: bytes, stdin: BinaryIO
) -> Iterator[bytes]:
    """The whole new message in chunks; its last line gets an LF if it has none."""
    yield b"".join(
        part if isinstance(part, bytes) else render_field(part.label, part.tokens)
        for part in header
    )
    if not start:
        return
    yield start
    read = _translated(stdin.read)
    last = start
    while chunk := read(_CHUNK):
        yield chunk
        last = chunk
    if not last.endswith(b"\n"):
        yield b"\n"


def _print(injection: Injection, content: Iterable[bytes]) -> None:
    try:
        with open(1, "wb", buffering=_CHUNK, closefd=False) as stdout:
            stdout.write(b"Return-Path: <" + quote(injection.sender) + b">\n")
            stdout.writelines(content)
    except OSError as exc:
        raise TempFail(f"write error: {exc.strerror}") from exc
