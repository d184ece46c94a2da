"""The service of the unit, started as systemd starts it, by what the unit says.

No systemd runs: the test lends the sockets that the socket units name, takes away the
capabilities that the service does not have, and hears what it is told.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from qsend.formats.systemdunits import NETWORK, SERVICE, SOCKET
from tests.pop.conftest import PASSWORD, mailbox
from tests.ports import free_ports
from tests.servicemanager import ServiceManager, listening_unix
from tests.smtpdtree import Raw
from tests.tree.harness import HOST, Tree

__all__ = ["mailbox"]
pytestmark = pytest.mark.root

# The service's process is the one that has the descriptors and is told so.
_BECOME = """
import fcntl, json, os, sys
fds, command = json.loads(sys.argv[1])
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execvp(command[0], command)
"""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A tree with units, and the sockets that systemd would hold."""

    tree: Tree
    directory: Path
    manager: ServiceManager
    sockets: Sequence[socket.socket]
    smtp: int
    pop3: int

    def said(self, name: str, unit: str = SERVICE) -> list[str]:
        """What a setting of the unit is, line by line."""
        text = (self.directory / unit).read_text()
        return re.findall(rf"(?m)^{name}=(.*)$", text)

    def start(self, watchdog_s: float = 120.0) -> None:
        """Run ExecStart=."""
        kept = " ".join(self.said("CapabilityBoundingSet")).split()
        names = ",".join(f"+{each.removeprefix('CAP_').lower()}" for each in kept)
        command = ["setpriv", "--bounding-set", f"-all,{names}"]
        command += shlex.split(self.said("ExecStart")[0])
        fds = [sock.fileno() for sock in self.sockets]
        self.tree.kill(strays=False)
        self.tree.process = subprocess.Popen(
            [sys.executable, "-c", _BECOME, json.dumps([fds, command])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
            env={
                "PATH": os.environ["PATH"],
                **self.manager.environ(watchdog_s),
            },
        )
        self.manager.wait("READY")


def listening_at(address: str) -> socket.socket:
    """What ListenStream= of a unit makes."""
    host, port = address.rsplit(":", 1)
    return socket.create_server((host, int(port)), backlog=128)


@pytest.fixture
def unit(tree: Tree, open_tmp: Path) -> Iterator[Unit]:
    smtp, pop3 = free_ports(2)
    tree.control("smtplisten", f"127.0.0.1:{smtp}\n")
    tree.control("pop3listen", f"127.0.0.1:{pop3}\n")
    tree.control("systemlogins", "1\n")
    directory = open_tmp / "units"
    words = ("--supervise", "systemd", "--into", str(directory))
    tree.run("setup", "--me", HOST, *words)
    with ExitStack() as stack:
        manager = stack.enter_context(ServiceManager(open_tmp / "notify"))
        made = Unit(
            tree=tree, directory=directory, manager=manager, sockets=[], smtp=smtp,
            pop3=pop3,
        )  # fmt: skip
        [path] = made.said("ListenSequentialPacket", SOCKET)
        sockets = [listening_unix(Path(path))]
        sockets += map(listening_at, made.said("ListenStream", NETWORK))
        for sock in sockets:
            stack.enter_context(sock)
        yield Unit(
            tree=tree, directory=directory, manager=manager, sockets=sockets,
            smtp=smtp, pop3=pop3,
        )  # fmt: skip


def test_mail_goes_through_with_what_the_unit_leaves(unit: Unit, mailbox: str) -> None:
    tree = unit.tree
    unit.start()
    user = f"{mailbox}@here.example".encode()
    # By the injection socket, as any user, to a user and a program of theirs.
    home = Path(f"~{mailbox}").expanduser()
    (home / ".qmail-run").write_text('|id -u >"$HOME/ran"\n')
    tree.send([user, b"%b-run@here.example" % mailbox.encode()], uid=64520)
    assert tree.reports(user)[0] == b"success: did_1+0+0/"
    tree.reports(b"%b-run@here.example" % mailbox.encode())
    uid = home.stat().st_uid
    assert (home / "ran").read_text() == f"{uid}\n"
    # By SMTP, and out again by POP3.
    with Raw(unit.smtp) as client:
        client.ask(b"EHLO c.example")
        client.ask(b"MAIL FROM:<a@b.example>")
        client.ask(b"RCPT TO:<%b>" % user)
        client.ask(b"DATA")
        assert client.ask(b"Subject: lent\r\n\r\nby SMTP\r\n.")[:4] == b"250 "
    tree.wait_for(rb"end msg \d+\n")
    with Raw(unit.pop3) as client:
        assert client.ask(b"USER " + mailbox.encode())[:3] == b"+OK"
        secret = PASSWORD.encode()
        assert client.ask(b"PASS " + secret)[:3] == b"+OK", tree.log
        assert client.ask(b"STAT")[:5] == b"+OK 2"
    assert unit.manager.wait("WATCHDOG")["STATUS"].startswith("local 0/10 remote 0/20;")
    # ExecReload=
    tree.signal(signal.SIGHUP)
    unit.manager.wait("RELOADING")
    unit.manager.wait("READY")
    assert b"warning" not in tree.log
    tree.signal(signal.SIGTERM)
    assert unit.manager.wait("STOPPING")
    assert tree.wait() == 0


def test_clients_wait_while_the_service_is_restarted(unit: Unit) -> None:
    tree = unit.tree
    maildir = tree.maildir()
    tree.alias("box", "./Maildir/\n")
    unit.start()
    assert tree.stop() == 0
    # The names of the sockets are systemd's: who comes now is served later.
    inject = subprocess.Popen(
        [str(tree.home / "bin/qmail-inject"), "-a", "box@here.example"],
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "QSEND_HOME": str(tree.home)},
    )
    with socket.create_connection(("127.0.0.1", unit.smtp), 30) as client:
        unit.start()
        assert client.recv(4) == b"220 "
    assert inject.wait(60) == 0
    tree.wait_for(rb"end msg \d+\n")
    assert len(list((maildir / "new").iterdir())) == 1
    assert tree.stop() == 0


def test_hanging_children_are_ended_and_the_watchdog_is_not_fed(unit: Unit) -> None:
    tree = unit.tree
    unit.start(watchdog_s=0.8)
    unit.manager.wait("WATCHDOG")
    [send] = tree.pids("qmail-send")
    os.kill(send, signal.SIGSTOP)
    unit.manager.silence(2.0)
    os.kill(send, signal.SIGCONT)
    unit.manager.wait("WATCHDOG")
    # One of another account, which root needs CAP_KILL to end.
    [lookup] = tree.pids("qmail-lookup")
    os.kill(lookup, signal.SIGSTOP)
    assert tree.stop() == 0
    assert b"warning: qmail-lookup does not end, killing it\n" in tree.log
