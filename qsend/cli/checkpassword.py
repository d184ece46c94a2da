"""checkpassword: is a password right? If so, run a program as the user.

`checkpassword program ...` reads descriptor 3: name, password and challenge, each
ended by NUL. The mailbox table is asked first, where there is a database, then the
accounts of the machine. Every attempt is logged to syslog. Exit codes: 1 refused, 2
misused, 111 it could not be found out; with a right password that of the program.
Source: checkpassword(8), checkpassword.c of checkpassword-0.90.
"""

from __future__ import annotations

import os
import re
import sys
import syslog
import time
from collections.abc import Mapping, Sequence

from qsend.cli.options import teach, wants_help
from qsend.core import loginlog
from qsend.core.errors import QsendError, TempFail
from qsend.core.lookups import Login, Proof, Verdict, Verification
from qsend.core.model import Account, Ownership, User
from qsend.formats.controllines import one_line
from qsend.formats.turnwire import Stage
from qsend.sysio import childprogram, lookupclient, passwd, systemlogin
from qsend.sysio.home import find_home, read_control
from qsend.sysio.privilege import drop
from qsend.sysio.stderr import ensure_stderr

EXIT_REFUSED = 1
EXIT_MISUSED = 2
EXIT_TEMPORARY = 111
REFUSED_AFTER_S = 2.0
"""How long a refusal takes, besides what lookup says that an attempt has to wait: all
there is without a running tree, since a program that ends counts nothing."""

_TOLD_ON = 3
_TOLD_MAX = 512
_SHELL = b"/bin/sh"
"""Of a mailbox of the database, which has none."""

_HELP = """\
usage: checkpassword program [ argument ... ]

Reads name, password and challenge, each ended by a NUL byte, on descriptor 3. If the
password is right, runs the program as that user, in the user's home:

  printf 'ann\\0secret\\0\\0' | checkpassword id 3<&0

Exit codes: 1 refused, 2 misused, 111 it may work later.
"""


class _Misused(Exception):
    """Descriptor 3 holds no name and password."""


def main(argv: Sequence[str]) -> int:
    """Run with the arguments after the program's name; return the exit code."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    if not argv:
        return EXIT_MISUSED
    try:
        login = _read(os.environ)
    except _Misused:
        return EXIT_MISUSED
    except TempFail as exc:
        return _trouble(exc)
    if login is None:
        return EXIT_REFUSED
    try:
        home = find_home(None, os.environ)
        verification = _judge_in_turn(home, login)
    except Exception as exc:  # noqa: BLE001 - nothing unknown may look like "wrong"
        home, verification = "", _failed(exc)
    _log(home, login, verification)
    if verification.verdict is Verdict.OK and verification.user is not None:
        return _become(verification.user, login, argv)
    if verification.verdict in (Verdict.TROUBLE, Verdict.OK):
        return EXIT_TEMPORARY
    time.sleep(REFUSED_AFTER_S)
    return EXIT_REFUSED


def _read(environ: Mapping[str, str]) -> Login | None:
    """What descriptor 3 says; None when it is longer than any login.

    Raises: _Misused; TempFail when it cannot be read.
    """
    told = b""
    try:
        while len(told) <= _TOLD_MAX:
            piece = os.read(_TOLD_ON, _TOLD_MAX + 1 - len(told))
            if not piece:
                break
            told += piece
        os.close(_TOLD_ON)
    except OSError as exc:
        raise TempFail(f"unable to read descriptor {_TOLD_ON}: {exc.strerror}") from exc
    if len(told) > _TOLD_MAX:
        return None
    parts = told.split(b"\0")
    if len(parts) < 4:
        raise _Misused
    name, secret, challenge = parts[:3]
    client = os.fsencode(environ.get("TCPREMOTEIP", ""))
    return Login(
        proof=Proof.PASS, name=name, secret=secret, challenge=challenge, client=client
    )


def _judge_in_turn(home: str, login: Login) -> Verification:
    """As `_judge`, not sooner than the failures before allow, and counted.

    Raises: TempFail.
    """
    wait_s = _turn(home, login, Stage.BEGINS)
    if wait_s is None:
        text = b"too many failures; not looked at"
        return Verification(verdict=Verdict.TROUBLE, text=text)
    time.sleep(wait_s)
    verification = _judge(home, login)
    if verification.verdict is Verdict.OK:
        _turn(home, login, Stage.RIGHT)
    elif verification.verdict is not Verdict.TROUBLE:
        _turn(home, login, Stage.WRONG)
    return verification


def _turn(home: str, login: Login, stage: Stage) -> float | None:
    """What lookup says; 0.0 where it does not run, or does not answer us."""
    try:
        # Hung up before the wait: the places in line are few.
        with lookupclient.LookupClient(home) as lookup:
            return lookup.turn(login, stage)
    except TempFail:
        return 0.0


def _judge(home: str, login: Login) -> Verification:
    """The verdict of the database, or that of the machine's accounts.

    Raises: TempFail when lookup cannot be asked.
    """
    if lookupclient.is_asked(home):
        with lookupclient.LookupClient(home) as lookup:
            verification = lookup.verify(login)
            if verification.verdict is Verdict.WRONG and _may_be_apop(login):
                verification = lookup.verify(_as_apop(login))
        if verification.verdict is not Verdict.UNKNOWN:
            return verification
    return systemlogin.verify(login)


def _may_be_apop(login: Login) -> bool:
    """Whether the password may be a digest: the interface does not tell."""
    is_digest = re.fullmatch(rb"[0-9A-Fa-f]{32}", login.secret) is not None
    return is_digest and login.challenge != b""


def _as_apop(login: Login) -> Login:
    return Login(
        proof=Proof.APOP,
        name=login.name,
        secret=login.secret,
        challenge=login.challenge,
        client=login.client,
    )


def _failed(exc: Exception) -> Verification:
    words = str(exc) if isinstance(exc, QsendError) else f"{type(exc).__name__}: {exc}"
    text = words.encode("utf-8", "backslashreplace")
    return Verification(verdict=Verdict.TROUBLE, text=text)


def _become(user: User, login: Login, argv: Sequence[str]) -> int:
    """Run the program as the user; returns only when that fails."""
    try:
        shell, groups = _SHELL, [user.gid]
        if user.ownership is Ownership.UID:
            entry = passwd.by_name(user.name)
            shell = b"" if entry is None else entry.shell
            groups = os.getgrouplist(os.fsdecode(user.name), user.gid)
        if user.uid == 0:
            raise TempFail("nobody is served as root")
        drop(Account(uid=user.uid, gid=user.gid), groups)
        os.chdir(user.home)
        os.environb[b"USER"] = user.name or login.name
        os.environb[b"HOME"] = user.home
        os.environb[b"SHELL"] = shell or _SHELL
        childprogram.become(argv)
    except (QsendError, OSError) as exc:
        return _trouble(exc)


def _log(home: str, login: Login, verification: Verification) -> None:
    """One line to syslog, unless control/loglogins is 0."""
    try:
        content = read_control(home, "loglogins") if home else None
    except QsendError:
        content = None  # a switch that cannot be read is not off
    if content is not None and one_line(content) == b"0":
        return
    is_trouble = verification.verdict is Verdict.TROUBLE
    priority = syslog.LOG_WARNING if is_trouble else syslog.LOG_INFO
    _say(priority, loginlog.describe(login, verification).decode("ascii", "replace"))


def _trouble(exc: Exception) -> int:
    words = str(exc).encode("ascii", "backslashreplace").decode()
    _say(syslog.LOG_WARNING, f"warning: {words}")
    return EXIT_TEMPORARY


def _say(priority: int, text: str) -> None:
    syslog.openlog("checkpassword", syslog.LOG_PID, syslog.LOG_MAIL)
    syslog.syslog(priority, text)
    syslog.closelog()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
