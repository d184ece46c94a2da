"""qmail-lspawn: the classic local spawner, one qmail-local per delivery.

`qmail-lspawn defaultdelivery`, started as root by a classic qmail-start; as an
ordinary user it serves that user alone. A child of qmailp finds out whose mail it
is, then bin/qmail-local of the home runs as that user. Exit codes: 0 after the end
of the commands and of the last delivery, 100 without an argument, 111 when the
queue or the accounts are not there.
Source: qmail-lspawn.c, spawn.c. Unlike qmail's, a qmail-local that
cannot be run defers the mail and does not bounce it, qsend's own accounts get no
mail, and the user lookup tells why it failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from qsend.cli.options import teach, wants_help
from qsend.core import spawncheck
from qsend.core.errors import ConfigError, Fatal, RemoteProtocolError, TempFail
from qsend.core.lspawnreport import Exit, judge
from qsend.core.model import Account, Accounts, Letter, User
from qsend.core.users import NoUser, Outcome, Trouble, refusal
from qsend.formats import lookupwire
from qsend.formats.classic import SLOTS_DEFAULT, SLOTS_MAX
from qsend.formats.control import parse_controls
from qsend.formats.delivery import REPORT_LOCAL_MAX
from qsend.formats.frames import PACKET_MAX, split
from qsend.formats.lookupwire import Answer
from qsend.sysio.accounts import load_accounts
from qsend.sysio.classicspawner import Job, serve
from qsend.sysio.fork import exec_program, fork_child
from qsend.sysio.home import find_home, read_control
from qsend.sysio.privilege import drop
from qsend.sysio.stderr import ensure_stderr
from qsend.sysio.userdb import UserDb

_HELP = """\
usage: qmail-lspawn defaultdelivery

Runs qmail-local, as the user whose mail it is, for each delivery that a classic
qmail-send asks for on descriptor 0, and reports on descriptor 1. qmail-start of qmail
starts it; so does `qsend start --lspawn`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalHooks:
    """Starts a child that becomes the recipient's qmail-local."""

    home: str
    accounts: Accounts
    single_user: bool
    default_delivery: bytes

    def start(self, job: Job, message: int, output: int) -> int:
        """Start it. Raises: TempFail when the system has no room."""

        def run() -> int:
            os.dup2(message, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            return self._deliver(job)

        try:
            return fork_child(run, [message, output], "qmail-lspawn")
        except TempFail as exc:
            text = spawncheck.CANNOT_FORK[1].decode().rstrip("\n")
            raise TempFail(text) from exc

    def report(self, status: int, output: bytes) -> tuple[Letter, bytes]:
        """See `judge`."""
        return judge(status, output)

    def _deliver(self, job: Job) -> int:
        """In the child: find the user, become it, run qmail-local."""
        local = job.recip[: job.at]
        if not local:
            return 0
        try:
            outcome = self._look_up(local)
        except (TempFail, RemoteProtocolError, OSError):
            return Exit.NO_LOOKUP
        match outcome:
            case User() as user:
                return self._become(user, job)
            case NoUser():
                return Exit.NO_ALIAS
            case Trouble(text=text):
                os.write(2, spawncheck.lookup_trouble(text)[1])
                return Exit.DEFER

    def _look_up(self, local: bytes) -> Outcome:
        """Have a child of qmailp find out whose mail it is.

        Raises: TempFail, OSError when there is no room for it, RemoteProtocolError
            when it does not answer.
        """
        answers, writes = os.pipe2(os.O_CLOEXEC)
        pid = fork_child(
            lambda: self._answer(local, writes), [writes], "qmail-lspawn lookup"
        )
        os.close(writes)
        with open(answers, "rb") as file:
            packet = file.read(PACKET_MAX)
        os.waitpid(pid, 0)
        for kind, body in split(packet):
            if kind == lookupwire.ANSWER:
                return lookupwire.parse_answer(body).outcome
        raise RemoteProtocolError("no answer")

    def _answer(self, local: bytes, writes: int) -> int:
        drop(self.accounts.qmailp)
        db = UserDb(self.home, self.accounts, single_user=self.single_user)
        answer = Answer(number=0, outcome=db.find(local))
        # A pipe takes that much at once, and the reader only has to read.
        os.write(writes, lookupwire.render_answer(answer))
        return 0

    def _become(self, user: User, job: Job) -> int:
        if refusal(user.uid, self.accounts, single_user=self.single_user) is not None:
            return Exit.REFUSED
        try:
            drop(Account(uid=user.uid, gid=user.gid))
        except Fatal:
            return Exit.NOT_DROPPED
        words = (
            user.name,
            user.home,
            job.recip[: job.at],
            user.dash,
            user.ext,
            job.recip[job.at + 1 :],
            job.sender,
            self.default_delivery,
        )
        try:
            os.chdir(self.home)
            exec_program(
                f"{self.home}/bin/qmail-local",
                [b"bin/qmail-local", b"--", *words],
                os.environb,
            )
        except (OSError, ValueError):
            return Exit.NOT_RUN


def slots(home: str) -> int:
    """How many deliveries to take at once: concurrencylocal, from 120 to 255.

    qmail fixes the number at build time; send takes the smaller of its own and
    this one. An unusable control counts as absent: send says what is wrong.
    """
    try:
        content = read_control(home, "concurrencylocal")
        files = {"locals": b"", "concurrencylocal": content or b"10"}
        wanted = parse_controls(files).concurrencylocal
    except (ConfigError, TempFail):
        return SLOTS_DEFAULT
    return max(SLOTS_DEFAULT, min(SLOTS_MAX, wanted))


def main(argv: Sequence[str]) -> int:
    """Serve the send on descriptors 0 and 1, delivering by `argv[0]`."""
    if wants_help(argv):
        return teach(_HELP)
    ensure_stderr()
    if not argv:
        sys.stderr.write("qmail-lspawn: usage: qmail-lspawn defaultdelivery\n")
        return 100
    single_user = os.getuid() != 0
    try:
        home = os.path.abspath(find_home(None, os.environ))
        accounts = load_accounts(single_user)
        os.chdir(f"{home}/queue/mess")
    except (OSError, TempFail, ConfigError) as exc:
        sys.stderr.write(f"qmail-lspawn: fatal: unable to start: {exc}\n")
        return 111
    hooks = LocalHooks(
        home=home,
        accounts=accounts,
        single_user=single_user,
        default_delivery=os.fsencode(argv[0]),
    )
    return serve(hooks, limit=slots(home), output_max=REPORT_LOCAL_MAX)
