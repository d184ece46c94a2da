"""A database that dies, hangs, comes back and drops connections, under load.

Whatever it does: no message bounces, none is lost, and mail goes on within seconds.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsend.sysio import clock
from tests.mariadb import Database, MariaDb
from tests.tree.harness import Tree, until
from tests.tree.virtualmail import VirtualMail

pytestmark = pytest.mark.root

NAMES = [f"user{n}" for n in range(20)]
BATCH = 40
"""Messages sent at each stage, to every user in turn."""
RESUMES_S = 20.0
"""Some seconds, on a machine that is busy with other tests."""


class Load:
    """Mail for virtual users, sent again and again while the server suffers."""

    def __init__(self, virtual: VirtualMail) -> None:
        self.virtual = virtual
        self.tree = virtual.tree
        self.sent = 0

    def send(self, count: int = BATCH) -> None:
        """Half to virtual addresses, half to mailboxes of the local domain."""
        for _ in range(count):
            name = NAMES[self.sent % len(NAMES)].encode()
            host = b"virtual.example" if self.sent % 2 else b"here.example"
            self.tree.queue([name + b"@" + host])
            self.sent += 1

    @contextmanager
    def during(self) -> Iterator[None]:
        """Sends while something happens, a third of it before."""
        self.send(BATCH // 3)
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(self.send)
            yield
            sending.result()

    def wait_all(self) -> None:
        """Everything sent so far arrives, soon."""
        deadline_mono = clock.mono() + RESUMES_S
        while self.virtual.count(NAMES) < self.sent:
            assert clock.mono() < deadline_mono, self.tree.log.decode()
            self.tree.watch(0.05)
        self.tree.wait_empty()
        assert self.virtual.count(NAMES) == self.sent
        assert b"bounce msg" not in self.tree.log
        assert b": failure: " not in self.tree.log


@pytest.fixture
def load(tree: Tree, own_database: Database, open_tmp: Path) -> Iterator[Load]:
    """A running tree whose mail has begun to flow."""
    virtual = VirtualMail(tree, own_database, open_tmp / "mail")
    virtual.add(*NAMES)
    rows = [(name, "", name, "virtual.example") for name in NAMES]
    own_database.insert("virtual", *rows)
    tree.control("concurrencylocal", "40")
    tree.start("--default-delivery", "./Maildir/")
    made = Load(virtual)
    made.send()
    made.wait_all()
    yield made
    assert tree.stop() == 0


def only_pid(tree: Tree, title: str) -> int:
    """Of the one process with that title, which may just be starting."""
    until(lambda: len(tree.pids(title)) == 1)
    return tree.pids(title)[0]


def forget(tree: Tree) -> None:
    """Have lookup ask the database again, not its memory."""
    tree.run("reload")
    tree.wait_for(rb"reread controls: generation \d+\n")


def test_killed_server(load: Load, own_mariadb: MariaDb) -> None:
    load.send(10)
    own_mariadb.kill()
    forget(load.tree)
    load.send()
    load.tree.find(rb"warning: new mail waits in todo: the database does not answer")
    own_mariadb.start()
    load.send(10)
    load.wait_all()
    load.tree.find(rb"qmail-lookup: the database answers again\n")
    assert load.tree.log.count(b"warning: new mail waits in todo") == 1
    assert load.tree.log.count(b"qmail-lookup: the database does not answer") == 1
    assert load.tree.log.count(b"qmail-lookup: the database answers again\n") == 1


def test_server_killed_and_started_again_and_again(
    load: Load, own_mariadb: MariaDb
) -> None:
    for _ in range(3):
        load.send(10)
        own_mariadb.kill()
        forget(load.tree)
        load.send(10)
        own_mariadb.start()
    load.wait_all()


def test_paused_server_stops_nobody_whose_answer_is_known(
    load: Load, own_mariadb: MariaDb
) -> None:
    # Both answers about this one are in lookup's memory.
    load.tree.queue([b"user0@here.example"])
    load.sent += 1
    load.wait_all()
    own_mariadb.pause()
    begun_mono = clock.mono()
    load.tree.queue([b"user0@here.example"])
    load.sent += 1
    until(lambda: load.virtual.count(NAMES) == load.sent)
    assert clock.mono() - begun_mono < 4
    forget(load.tree)
    load.send()
    load.tree.find(rb"warning: new mail waits in todo: the database does not answer")
    own_mariadb.resume()
    load.wait_all()


def test_server_that_drops_idle_connections(load: Load, own_mariadb: MariaDb) -> None:
    for _ in range(5):
        own_mariadb.drop_connections(load.virtual.database.login)
        forget(load.tree)
        load.send(10)
    load.wait_all()
    assert b"does not answer" not in load.tree.log


def test_server_stopped_in_order_and_restarted(
    load: Load, own_mariadb: MariaDb
) -> None:
    own_mariadb.stop()
    forget(load.tree)
    load.send(10)
    own_mariadb.start("--wait-timeout=1", "--max-connections=3")
    load.wait_all()


def test_send_and_lookup_die_while_the_server_is_down(
    load: Load, own_mariadb: MariaDb
) -> None:
    own_mariadb.kill()
    forget(load.tree)
    load.send(10)
    for title in ("qmail-lookup", "qmail-send", "qmail-lspawn"):
        pid = only_pid(load.tree, title)
        os.kill(pid, signal.SIGKILL)
        load.send(5)
    own_mariadb.start()
    load.wait_all()


@pytest.fixture
def twin(load: Load, own_mariadb: MariaDb) -> Iterator[MariaDb]:
    """A second server with the same tables; lookup uses the first."""
    with own_mariadb.twin("127.0.0.2") as server:
        database = load.virtual.database
        both = database.control({"port": str(server.port)}, server=server.address)
        load.virtual.use(b"server %b\n" % own_mariadb.address.encode() + both)
        forget(load.tree)
        load.send(5)
        load.wait_all()
        assert connections(load, own_mariadb)
        assert not connections(load, server)
        yield server


def connections(load: Load, server: MariaDb) -> int:
    """How many lookup has to that server."""
    rows = server.execute(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s",
        (load.virtual.database.login,),
    )
    assert isinstance(rows[0][0], int)
    return rows[0][0]


def test_second_server_takes_over_when_the_first_is_killed_and_back(
    load: Load, own_mariadb: MariaDb, twin: MariaDb
) -> None:
    for dying, other in ((own_mariadb, twin), (twin, own_mariadb)):
        with load.during():
            dying.kill()
            forget(load.tree)
        load.send(10)
        load.wait_all()
        assert connections(load, other)
        dying.start()
    # Nobody had to wait: the other one was asked at once.
    assert load.tree.stop() == 0
    assert b"does not answer" not in load.tree.log


def test_second_server_takes_over_when_the_first_hangs_and_back(
    load: Load, own_mariadb: MariaDb, twin: MariaDb
) -> None:
    for hanging, other in ((own_mariadb, twin), (twin, own_mariadb)):
        with load.during():
            hanging.pause()
            forget(load.tree)
        load.send(10)
        load.wait_all()
        load.tree.wait_for(rb"qmail-lookup: the database answers again\n")
        assert connections(load, other)
        hanging.resume()
