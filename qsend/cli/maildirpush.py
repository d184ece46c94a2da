"""maildirpush: push the mail of a tree of directories, each to its own host.

`maildirpush [ -d ] [ -g seconds ] [ -t lifetime ] [ -p port ] [ -H helohost ] base`
For each directory in base with a RELAYHOST file that nobody has locked and mail in
its Maildir, a transfer is started, `seconds` after the one before. Exit codes: 0 all
went; 111 mail is left somewhere, or a failure; 100 wrong usage.
Source: docs/SERIALMAIL.md; maildirsmtp(1).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qsend.cli import outcome
from qsend.cli.maildirsmtp import parse_port
from qsend.cli.options import CommandLine, UsageError
from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.formats.controllines import one_line
from qsend.sysio import maildirpusher, relaydirs
from qsend.sysio.fork import fork_child
from qsend.sysio.home import find_home, read_control
from qsend.sysio.maildirpusher import Pusher, Pushing
from qsend.sysio.privilege import drop
from qsend.sysio.smtppusher import LIFETIME_S, PORT, UNREACHABLE, SmtpPusher, Target

_HELP = """\
usage: maildirpush [ -d ] [ -g grace ] [ -t lifetime ] [ -p port ] [ -H helohost ] base

For hosts that are connected only now and then. Each directory in base has
  RELAYHOST    one line, host or host:port; locked while a transfer runs
  Maildir/     the mail, for example from a `./Maildir/` line in .qmail-default
  PREFIX       what its Delivered-To lines begin with; without this file the name
               of the directory and `-`, as virtualdomains gives it
Directories that have no RELAYHOST, are locked or have no mail are passed over. The
others are pushed as maildirsmtp does, at the same time, each by the owner of its
Maildir when root calls.

  -d           do not wait for the transfers
  -g grace     seconds between the start of two transfers (1)
  -t lifetime  seconds after which a message that is not accepted is returned
               (1209600, two weeks)
  -p port      where RELAYHOST names none (25)
  -H helohost  our name (control/helohost, or control/me)

  */2 * * * *  root  /var/qmail/bin/maildirpush /home/serialmail

Exit codes: 0; 111 mail is left somewhere; 100 wrong usage.
"""
_LEFT = 111


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    home: str
    base: str
    detaches: bool
    grace: float
    lifetime: int
    port: int
    helo: bytes


def main(argv: Sequence[str]) -> int:
    """Start what there is to transfer."""
    return outcome.run("maildirpush", _HELP, _run, argv)


def _run(argv: Sequence[str]) -> int:
    options = _options(argv)
    try:
        found = relaydirs.names(options.base)
    except OSError as exc:
        raise TempFail(f"unable to read {options.base}: {exc.strerror}") from exc
    pids: list[int] = []
    has_failed = False
    for name in found:
        pid = _push(options, name, waits=bool(pids))
        if pid is None:
            has_failed = True
        elif pid:
            pids.append(pid)
    if not options.detaches:
        for pid in pids:
            _, status = os.waitpid(pid, 0)
            has_failed |= status != 0
    return _LEFT if has_failed else 0


def _options(argv: Sequence[str]) -> _Options:
    line = CommandLine(argv, "d", "gtpH")
    given = dict(line.options())
    if len(line.arguments) != 1:
        raise UsageError
    home = find_home(None, os.environ)
    try:
        lifetime = maildirpusher.parse_lifetime(given.get("t", str(LIFETIME_S)))
        grace = float(given.get("g", "1"))
    except (PermFail, ValueError) as exc:
        raise UsageError(str(exc)) from exc
    if not 0 <= grace <= 3600:
        raise UsageError("-g: expected 0 to 3600 seconds")
    helo = os.fsencode(given["H"]) if "H" in given else _own_name(home)
    return _Options(
        home=home,
        base=os.path.abspath(line.arguments[0]),
        detaches="d" in given,
        grace=grace,
        lifetime=lifetime,
        port=parse_port(given.get("p", str(PORT))),
        helo=helo,
    )


def _own_name(home: str) -> bytes:
    """Raises: TempFail when there is none."""
    for name in ("helohost", "me"):
        content = read_control(home, name)
        if content is not None and one_line(content):
            return one_line(content)
    raise TempFail("there is neither control/helohost nor control/me")


def _push(options: _Options, name: str, *, waits: bool) -> int | None:
    """Start the transfer of one directory; its pid, 0 if there is none to make.

    None when the directory cannot be used, which is told.
    """
    say = _sayer(name)
    try:
        claim = relaydirs.claim(f"{options.base}/{name}")
    except (OSError, PermFail) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        where = f" {exc.filename}:" if isinstance(exc, OSError) and exc.filename else ""
        say(f"warning:{where} {why}")
        return None
    if claim is None:
        return 0
    try:
        if os.geteuid() == 0 and claim.owner.uid == 0:
            say("warning: Maildir belongs to root, which never gets mail")
            return None
        if waits:
            time.sleep(options.grace)
        os.set_inheritable(claim.lock, True)
        return fork_child(
            lambda: _transfer(options, claim, say), (claim.lock,), "maildirpush"
        )
    finally:
        os.close(claim.lock)


def _transfer(
    options: _Options, claim: relaydirs.Claim, say: Callable[[str], None]
) -> int:
    """In the child: one run over the Maildir, as its owner; the exit code."""
    if os.geteuid() == 0:
        drop(claim.owner)
    how = Pushing(
        prefix=claim.prefix,
        lifetime=options.lifetime,
        bounces=True,
        home=options.home,
        environ=os.environ,
        last_code=UNREACHABLE,
    )
    port = options.port if claim.relay.port is None else claim.relay.port
    client = SmtpPusher(
        home=options.home,
        target=Target(host=claim.relay.host, port=port, helo=options.helo),
        prefix=claim.prefix,
        lifetime=options.lifetime,
        say=say,
    )
    try:
        maildirpusher.enter(f"{claim.path}/{relaydirs.MAILDIR}")
        return Pusher(how, client.start, say).run()
    except QsendError as exc:
        say(f"fatal: {exc}")
        return _LEFT


def _sayer(name: str) -> Callable[[str], None]:
    """Says whose transfer a line is about."""
    return lambda words: outcome.say(f"maildirpush: {name}: {words}")
