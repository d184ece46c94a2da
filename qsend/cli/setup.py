"""qsend setup: make everything that a mail system needs; run it again at will.

Source: docs/ARCHITECTURE.md; qmail INSTALL, config-fast, hier.c.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence

from qsend.cli.parser import EXIT_USAGE, Parser, complain, home_of
from qsend.cli.supervise import KINDS, LOGS, set_up
from qsend.core.firstcontrols import check_host_name, first_controls
from qsend.core.model import Account
from qsend.formats.controllines import one_line
from qsend.sysio import homemaker, launchers, manpages, queuemaker
from qsend.sysio.accountmaker import make_accounts
from qsend.sysio.accounts import load_accounts
from qsend.sysio.home import read_control

_TEACHING = """\
Makes the accounts and groups of qmail (as root), the directories control, queue,
users, alias, run, bin and man, the control files me, defaultdomain, plusdomain,
locals and rcpthosts, the programs in bin, their manual pages in man, and the aliases
root, postmaster and mailer-daemon (empty .qmail files: their mail goes to the alias
directory; write `&you@example.org` into one to have it sent on; none if there is a
.qmail-default).

What exists is kept: no control file and no mail is ever changed, and programs of
another mail system stay beside ours as bin/NAME.before-qsend. Owners and modes of
directories are mended.

--supervise writes what daemontools or systemd need to run the mail system, and says
what to run next; it starts and enables nothing. A file there that is not from here
stays as it is:
  daemontools   rc, and supervise/qmail-send, qmail-smtpd and qmail-pop3d (under
                tcpserver), with logs by multilog
  systemd       qsend.service, qsend.socket, and qsend-network.socket for what
                control/smtplisten and the like name; run it again after a change
                of these"""


def main(argv: Sequence[str]) -> int:
    """Make what is missing, and say what was made."""
    parser = Parser(argv[0], "Make everything a mail system needs.", _TEACHING)
    parser.add_home()
    parser.add_argument(
        "--me",
        metavar="FQDN",
        help="this machine's full name; default: what the system calls itself",
    )
    parser.add_argument(
        "--single-user",
        action="store_true",
        help="all belongs to the calling user; implied unless root calls",
    )
    _add_supervise(parser)
    args = parser.parse_args(argv[1:])
    is_root = os.getuid() == 0
    if is_root and args.single_user:
        complain(argv[0], "--single-user is not for root, which never receives mail")
        return EXIT_USAGE
    if not is_root and args.supervise:
        complain(argv[0], "--supervise is for root, whose supervisor it is")
        return EXIT_USAGE
    home = home_of(args)
    me = _host_name(home, args.me)
    os.umask(0o022)
    if is_root:
        for what in make_accounts():
            _say(f"added {what}")
    accounts = load_accounts(single_user=not is_root)
    homemaker.make_directories(home, accounts)
    queuemaker.create(home, accounts)
    if me is not None:
        _make(home, "control", first_controls(me), accounts.root)
    _make(home, "alias", homemaker.alias_files(home), accounts.alias)
    if kept := launchers.make_launchers(home, accounts.root):
        _say(f"kept as bin/NAME{launchers.KEPT}: {' '.join(kept)}")
    pages = manpages.install_pages(home, accounts.root)
    _say(f"made man/: {len(pages)} pages" if pages else "made no man/: none came along")
    _say(f"{home} is ready")
    if args.supervise:
        said = set_up(
            args.supervise,
            home,
            accounts,
            into=args.into and os.path.abspath(args.into),
            logs=os.path.abspath(args.logs),
            default_delivery=args.default_delivery,
        )
        for line in said:
            _say(line)
    return 0


def _add_supervise(parser: Parser) -> None:
    parser.add_argument(
        "--supervise",
        choices=KINDS,
        help="write the files by which one of these runs the mail system",
    )
    parser.add_argument(
        "--into",
        metavar="DIR",
        help="where they go; default: supervise in the home, or /etc/systemd/system",
    )
    parser.add_argument(
        "--logs",
        metavar="DIR",
        default=LOGS,
        help="where daemontools' services log; default: %(default)s",
    )
    parser.add_argument(
        "--default-delivery",
        metavar="TEXT",
        default="./Maildir/",
        help="as of `qsend start`; default: %(default)s",
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _make(
    home: str, directory: str, files: Mapping[str, bytes], owner: Account
) -> None:
    made, kept = homemaker.make_files(f"{home}/{directory}", files, owner)
    if made:
        _say(f"made {directory}/: {' '.join(made)}")
    if kept:
        _say(f"kept {directory}/: {' '.join(kept)}")


def _host_name(home: str, given: str | None) -> bytes | None:
    """The name for the first controls.

    None when control/me exists: it stays, and files that the operator has removed
    since stay away too.
    """
    wanted = None if given is None else check_host_name(given)
    present = read_control(home, "me")
    if present is None:
        return wanted or check_host_name(socket.getfqdn())
    if wanted not in (None, one_line(present).lower()):
        _say("kept control/me, which names another host; edit it to change the name")
    return None
