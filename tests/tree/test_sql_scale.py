"""A million rows and ten thousand mailboxes of one uid."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.core.lookups import Stored
from qsend.core.model import User
from qsend.sysio.lookupclient import LookupClient
from tests.mariadb import Database, MariaDb
from tests.tree.harness import Installation, Tree, until
from tests.tree.virtualmail import GID, UID, VirtualMail

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.serial]

ROWS = 1_000_000
MAILBOXES = 10_000
PER_USER = ROWS // MAILBOXES
AT_ONCE = 1000
"""Recipients of one message."""


@pytest.fixture
def place(open_tmp: Path) -> Iterator[Path]:
    """A directory in memory, where that may be mounted: homes take long to sync."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4g,nr_inodes=0", "none", str(open_tmp)]
    is_mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    open_tmp.chmod(0o755)
    yield open_tmp
    if is_mounted:
        subprocess.run(["umount", "-l", open_tmp], check=True)


@pytest.fixture
def virtual(
    installation: Installation, place: Path, own_database: Database
) -> Iterator[VirtualMail]:
    """A row for each mailbox; homes and addresses are made by who wants them."""
    with Tree(installation, place / "home") as tree:
        made = VirtualMail(tree, own_database, place / "mail")
        own_database.load(f"""
            INSERT INTO mailbox (username, uid, gid, home)
              SELECT CONCAT('user', seq), {UID}, {GID}, CONCAT('{made.place}/user', seq)
              FROM seq_0_to_{MAILBOXES - 1}
        """)
        yield made


def add_addresses(virtual: VirtualMail, count: int) -> None:
    """Rows of virtual, of 1000 to each host and 100 to each user."""
    # Sorted as the index is, which makes it ten times as quick.
    virtual.database.load(f"""
        INSERT INTO `virtual` SELECT CONCAT('user', seq DIV {PER_USER}), '',
          CONCAT('name', seq), CONCAT('host', seq DIV 1000, '.example')
          FROM seq_0_to_{count - 1} ORDER BY 4, 3
    """)


def address(number: int) -> bytes:
    """The address of row `number` of virtual."""
    return b"name%d@host%d.example" % (number, number // 1000)


def user(number: int) -> bytes:
    """Who gets its mail."""
    return b"user%d" % (number // PER_USER)


def selects(server: MariaDb) -> int:
    """SELECT statements that the server has got."""
    [(_, count)] = server.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
    return int(str(count))


def test_look_up_among_a_million_rows_is_one_round_trip_and_then_none(
    virtual: VirtualMail, own_mariadb: MariaDb
) -> None:
    own_mariadb.stop()
    own_mariadb.start("--innodb-buffer-pool-size=512M")
    add_addresses(virtual, ROWS)
    numbers = range(0, ROWS, ROWS // 200)
    for number in numbers:
        virtual.home(user(number).decode())
    virtual.tree.start("--default-delivery", "./Maildir/")
    with LookupClient(str(virtual.tree.home)) as client:
        client.locality(b"nobody@here.example")  # connects
        before = selects(own_mariadb)
        for number in numbers:
            host = address(number).partition(b"@")[2]
            want = Stored(address=user(number) + b"@" + host)
            assert client.locality(address(number)) == want
        assert selects(own_mariadb) - before == len(numbers)
        for number in numbers:
            assert isinstance(client.user(user(number)), User)
        cold = selects(own_mariadb)
        assert cold - before == 2 * len(numbers)
        for number in numbers:
            client.locality(address(number))
            client.user(user(number))
        assert selects(own_mariadb) == cold


def test_ten_thousand_mailboxes_of_one_uid_need_one_or_two_children(
    virtual: VirtualMail, own_mariadb: MariaDb
) -> None:
    tree = virtual.tree
    names = [f"user{number}" for number in range(MAILBOXES)]
    for name in names:
        virtual.home(name)
    tree.control("concurrencylocal", "100")
    tree.control("concurrencyperuser", "20")
    tree.start("--default-delivery", "./Maildir/")
    before = selects(own_mariadb)
    for begin in range(0, MAILBOXES, AT_ONCE):
        recips = [f"{name}@here.example" for name in names[begin : begin + AT_ONCE]]
        tree.queue([recip.encode() for recip in recips])
    children: set[int] = set()
    ended = 0
    while ended < MAILBOXES // AT_ONCE:
        tree.wait_for(rb"end msg \d+\n", wait_s=300)
        ended += 1
        children.update(tree.pids("qmail-local"))
    until(lambda: virtual.count(names) == MAILBOXES)
    assert all(len(os.listdir(virtual.place / n / "Maildir/new")) == 1 for n in names)
    assert 1 <= len(children) <= 2
    # Where each goes, and whose it is: a round trip each, and often one for many.
    assert selects(own_mariadb) - before <= 2 * MAILBOXES
    assert b"failure" not in tree.log
