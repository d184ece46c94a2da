"""qsend tcprules: make, show and try out the rules by which clients are let in.

Exit codes: 0; 100 a rule that cannot be understood, or wrong usage; 111 trouble with
a file. In both cases the old database stays as it was.
Source: ucspi-tcp tcprules.c, tcprulescheck.c; tcprules(1), tcprulescheck(1).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from qsend.cli.parser import EXIT_TEMPORARY, EXIT_USAGE, Parser, complain, home_of
from qsend.core.access import Access, Client
from qsend.core.errors import ConfigError, ConfigFault, TempFail
from qsend.core.mx import canonical
from qsend.formats.tcprules import (
    LENGTHS_KEYS,
    LINE_MAX,
    SERVICES,
    parse_rule,
    records,
    render_line,
    rules_name,
)
from qsend.sysio.accessfile import AccessFile
from qsend.sysio.cdbfile import CdbFile
from qsend.sysio.cdbmaker import make_cdb

_COMMAND = "tcprules"
_SOURCE = "standard input"
_EXPLANATION = """\
  qsend tcprules smtp                  make control/tcp.smtp.cdb of control/tcp.smtp;
                                       qmtp, qmqp and pop3 likewise
  qsend tcprules CDB TMP < RULES       make CDB of rules, by way of the file TMP
  qsend tcprules --check CDB           what a client gets: --ip, --host, --info, or
                                       $TCPREMOTEIP, $TCPREMOTEHOST, $TCPREMOTEINFO
  qsend tcprules --list CDB            the rules in CDB, as text that makes it again

a rule is ADDRESS:allow or ADDRESS:deny, then any number of ,NAME="value":
  127.:allow,RELAYCLIENT=""            addresses that start with 127.
  192.0.2.10-19:allow,DATABYTES="0"    ten addresses
  10.0.0.0/8:allow                     a network (ours; tcpserver passes it over)
  [2001:db8::/32]:deny                 a network or an address of IPv6 (ours)
  =.example.org:allow                  hosts whose name ends so
  :deny                                everybody else

control/tcp.smtp.cdb, tcp.qmtp.cdb, tcp.qmqp.cdb and tcp.pop3.cdb are in force at
once when they change. `qsend tcprules` writes what tcprules writes, byte by byte."""


def main(argv: Sequence[str]) -> int:
    """Run it; `argv` begins with the command's name."""
    args = _parse(argv[1:])
    try:
        if args.check:
            return _check(args)
        if args.list:
            return _list(args.cdb)
        if args.source is None:
            _make(args.cdb, args.tmp, sys.stdin.buffer, _SOURCE)
        else:
            with open(args.source, "rb") as stream:
                _make(args.cdb, args.tmp, stream, args.source)
    except ConfigError as exc:
        complain(_COMMAND, str(exc))
        return EXIT_TEMPORARY if args.check or args.list else EXIT_USAGE
    except OSError as exc:
        where = f"{os.fsdecode(exc.filename)}: " if exc.filename else ""
        complain(_COMMAND, f"{where}{exc.strerror}")
        return EXIT_TEMPORARY
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(_COMMAND, "Make and try out access rules.", _EXPLANATION)
    parser.add_home()
    parser.add_argument("cdb", metavar="CDB", help="the database, or a service")
    parser.add_argument("tmp", metavar="TMP", nargs="?", help="its name until done")
    parser.add_argument("--check", action="store_true", help="say what a client gets")
    parser.add_argument("--list", action="store_true", help="print the rules")
    parser.add_argument("--ip", help="the client's address")
    parser.add_argument("--host", help="its name")
    parser.add_argument("--info", help="what its ident server says")
    args = parser.parse_args(words)
    if args.check and args.list:
        parser.error("--check and --list exclude each other")
    args.source = None
    shows = args.check or args.list
    if args.tmp is None and args.cdb in SERVICES:
        args.cdb = f"{home_of(args)}/control/{rules_name(args.cdb)}"
        args.source = args.cdb.removesuffix(".cdb")
        args.tmp = f"{args.source}.tmp"
    elif (args.tmp is None) != shows:
        parser.error("expected a service, CDB TMP, --check CDB or --list CDB")
    return args


def _make(cdb: str, tmp: str, stream: BinaryIO, shown: str) -> None:
    def warn(number: int, problem: str) -> None:
        complain(_COMMAND, f"warning: {shown}:{number}: {problem}")

    make_cdb(cdb, tmp, records(_lines(stream, shown), shown, warn))


def _lines(stream: BinaryIO, shown: str) -> Iterator[bytes]:
    for number, line in enumerate(
        iter(lambda: stream.readline(LINE_MAX + 1), b""), start=1
    ):
        if len(line) > LINE_MAX:
            problem = f"longer than {LINE_MAX} bytes"
            raise ConfigError([ConfigFault(file=shown, line=number, problem=problem)])
        yield line


def _check(args: argparse.Namespace) -> int:
    try:
        client = _client(args)
    except ValueError:
        complain(_COMMAND, "expected an IP address, by --ip or in $TCPREMOTEIP")
        return EXIT_USAGE
    if not os.path.exists(args.cdb):
        raise FileNotFoundError(2, "No such file or directory", args.cdb)
    rules = AccessFile(args.cdb, args.cdb)
    try:
        access = rules.judge(client)
    except TempFail as exc:
        complain(_COMMAND, str(exc))
        return EXIT_TEMPORARY
    finally:
        rules.close()
    _say(_verdict(access))
    return 0


def _client(args: argparse.Namespace) -> Client:
    """Raises: ValueError without an address."""
    ip = args.ip or os.environ.get("TCPREMOTEIP", "")
    host = args.host or os.environ.get("TCPREMOTEHOST")
    info = args.info or os.environ.get("TCPREMOTEINFO")
    return Client(
        address=canonical(ip),
        host=None if host is None else os.fsencode(host),
        info=None if info is None else os.fsencode(info),
    )


def _verdict(access: Access) -> Iterator[bytes]:
    """The lines of tcprulescheck."""
    yield b"default:" if access.rule is None else b"rule %b:" % access.rule
    if not access.is_allowed:
        yield b"deny connection"
        return
    for name, value in access.variables.items():
        yield b"set environment variable %b=%b" % (name, value)
    yield b"allow connection"


def _list(path: str) -> int:
    cdb = CdbFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
    try:
        _say(
            render_line(key, parse_rule(value))
            for key, value in cdb.records()
            if key not in LENGTHS_KEYS.values()
        )
    except ValueError as exc:
        complain(_COMMAND, f"{path}: {exc}")
        return EXIT_TEMPORARY
    finally:
        cdb.close()
    return 0


def _say(lines: Iterator[bytes]) -> None:
    for line in lines:
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()
