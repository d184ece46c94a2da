"""What is in a secret control file is in the memory of those who may know it alone."""

from __future__ import annotations

import os
import re
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from qsend.core.family import CONTROL_FILES, SECRETS
from tests.certificates import Authority
from tests.mariadb import Database
from tests.ports import free_ports
from tests.tree.harness import Tree, until
from tests.tree.virtualmail import VirtualMail

pytestmark = pytest.mark.root

KNOWERS = {
    "sqlserver": {"lookup"},
    "servercert.pem": {"pop3d", "smtpd"},
    "clientcert.pem": {"remote"},
    "smtpauth": {"remote"},
}
KINDS = {
    "start", "queue", "lookup", "clean", "lspawn", "remote", "send", "login", "pop3d",
    "smtpd", "qmtpd", "local",
}  # fmt: skip
_MAP = re.compile(r"(?m)^([0-9a-f]+)-([0-9a-f]+) r\S* \S+ \S+ \S+ *(.*)$")
_PIECE = 1 << 20


def kind_of(process: psutil.Process) -> str:
    """As "lookup"; "" for one that has ended."""
    try:
        match = re.fullmatch(r"qmail-(\w+): qsend.*", " ".join(process.cmdline()))
    except psutil.NoSuchProcess:
        return ""
    return match[1] if match else ""


def memory_has(pid: int, needles: list[bytes]) -> set[bytes]:
    """Which of `needles` are in any readable page of a process."""
    found: set[bytes] = set()
    longest = max(map(len, needles))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for first, end, name in _MAP.findall(Path(f"/proc/{pid}/maps").read_text()):
            if name.startswith("[v"):
                continue  # the kernel's own pages
            at, last = int(first, 16), int(end, 16)
            tail = b""
            while at < last:
                try:
                    piece = os.pread(memory.fileno(), min(_PIECE, last - at), at)
                except OSError:
                    break  # a mapping past the end of its file
                found.update(each for each in needles if each in tail + piece)
                tail = piece[-longest:]
                at += len(piece)
    return found


class Secrets:
    """The secret control files of a tree, and a needle of each."""

    def __init__(self, tree: Tree, virtual: VirtualMail, place: Path) -> None:
        self.tree = tree
        self._virtual = virtual
        self._authority = Authority(place)
        self.needles: dict[str, bytes] = {}

    def renew(self) -> None:
        """New ones for all."""
        database = self._virtual.database
        database.password = secrets.token_hex(16)
        sql = f"ALTER USER {database.login}@'%%' IDENTIFIED BY %s"
        database.server.execute(sql, (database.password,))
        self._write("sqlserver", database.sqlserver, database.password.encode())
        word = secrets.token_hex(16).encode()
        self._write("smtpauth", b"relay.example:user:%b\n" % word, word)
        for name in ("servercert.pem", "clientcert.pem"):
            pem = self._authority.certify("DNS:localhost")
            key = pem.split(b"PRIVATE KEY-----\n")[1].split(b"\n")[1]
            self._write(name, pem, key)

    def _write(self, name: str, content: bytes, needle: bytes) -> None:
        path = self.tree.home / "control" / name
        path.write_bytes(content)
        path.chmod(0o600)
        self.needles[name] = needle

    def found(self, needles: Mapping[str, bytes]) -> dict[str, set[str]]:
        """Each file, and the kinds of processes that have what is in it."""
        told: dict[str, set[str]] = {name: set() for name in needles}
        seen = set()
        for process in self.tree.family():
            kind = kind_of(process)
            seen.add(kind)
            had = memory_has(process.pid, list(needles.values()))
            for name, needle in needles.items():
                if needle in had:
                    told[name].add(kind)
        assert seen == KINDS
        return told

    def check(self) -> None:
        """Nobody has what is not for him, and no descriptor leads to it."""
        assert self.found(self.needles) == KNOWERS
        for process in self.tree.family():
            fds = Path(f"/proc/{process.pid}/fd")
            links = {os.readlink(link) for link in fds.iterdir()}
            kept = {link for link in links if link.startswith("/memfd:control/")}
            of_start = {f"/memfd:control/{name} (deleted)" for name in SECRETS}
            assert kept == (of_start if kind_of(process) == "start" else set())

    def deliver(self) -> None:
        """Wait until all serve, and have a local child."""
        self.tree.queue([b"dmp@here.example"])
        self.tree.wait_for(rb"delivery \d+: success: ")
        until(lambda: self.are_there(KINDS))

    def are_there(self, kinds: set[str]) -> bool:
        """Whether these are, and none of them has only just been forked."""
        found = [kind_of(each) for each in self.tree.family()]
        return set(found) == kinds and found.count("start") == 1


@pytest.fixture
def kept(tree: Tree, database: Database, open_tmp: Path) -> Secrets:
    """A running tree with every kind of process, and every secret."""
    virtual = VirtualMail(tree, database, open_tmp / "mail")
    virtual.add("dmp")
    place = open_tmp / "authority"
    place.mkdir()
    made = Secrets(tree, virtual, place)
    made.renew()
    for name, port in zip(
        ("pop3listen", "smtplisten", "qmtplisten"), free_ports(3), strict=True
    ):
        tree.control(name, f"127.0.0.1:{port}\n")
    tree.start("--default-delivery", "./Maildir/")
    made.deliver()
    return made


def test_every_secret_is_looked_for() -> None:
    for name in SECRETS:
        knowers = {kind for kind, files in CONTROL_FILES.items() if name in files}
        assert knowers == KNOWERS[name]


def test_secrets_are_in_nobody_elses_memory(kept: Secrets) -> None:
    kept.check()
    old = dict(kept.needles)
    kept.renew()
    kept.tree.run("reload")
    kept.deliver()
    kept.check()
    for name, kinds in kept.found(old).items():
        assert kinds <= KNOWERS[name]
    before = {each.pid for each in kept.tree.family()[1:]}
    for process in kept.tree.family()[1:]:
        if process.is_running() and kind_of(process) != "local":
            os.kill(process.pid, signal.SIGKILL)
    until(
        lambda: (
            not before & {each.pid for each in kept.tree.family()}
            and kept.are_there(KINDS - {"local"})
        )
    )
    kept.deliver()
    kept.check()


def test_new_secrets_that_are_wrong_reach_nobody(kept: Secrets) -> None:
    old = dict(kept.needles)
    kept.renew()
    kept.tree.control("smtpauth", "no colon\n")
    wrong = {name: each for name, each in kept.needles.items() if name != "smtpauth"}
    kept.tree.signal(signal.SIGHUP)
    kept.tree.find(rb"alert: unable to reread controls: control/smtpauth:1: ")
    assert kept.found(old) == KNOWERS
    assert kept.found(wrong) == {name: set() for name in wrong}
