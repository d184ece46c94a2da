"""QMTP and the rcpthosts table."""

from __future__ import annotations

import pytest

from tests.mariadb import Database, MariaDb
from tests.qmtp.conftest import Client, QmtpTree, package

pytestmark = pytest.mark.root

NOT_LISTED = b"Dsorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
UNSURE = b"Zunable to check whether mail for that domain is taken here (#4.3.0)"


@pytest.mark.parametrize("kind", ["listener", "tcpserver"])
def test_the_table_lists_hosts_and_trouble_is_temporary(
    unstarted: QmtpTree, own_mariadb: MariaDb, own_database: Database, kind: str
) -> None:
    own_database.insert("rcpthosts", ["table.example"], [".below.example"])
    path = unstarted.tree.home / "control/sqlserver"
    path.write_bytes(own_database.sqlserver)
    path.chmod(0o600)
    unstarted.start()
    if kind == "listener":
        check_hosts(unstarted.qmtp, own_mariadb)
        unstarted.rules("qmtp", '127.:allow,RELAYCLIENT=""\n')
        check_relay(unstarted.qmtp)
        return
    with unstarted.tcpserver("qmail-qmtpd") as port:
        check_hosts(port, own_mariadb)
    with unstarted.tcpserver("qmail-qmtpd", RELAYCLIENT="") as port:
        check_relay(port)


def check_hosts(port: int, mariadb: MariaDb) -> None:
    with Client(port) as client:
        recips = [
            b"x@TABLE.example",
            b"x@a.below.example",
            b"x@below.example",
            b"x@f.x",
        ]
        client.send(package(b"\nx\n", b"", *recips))
        answers = [client.answer() for _ in recips]
        assert [answer[:1] for answer in answers] == [b"K", b"K", b"D", b"D"]
        assert answers[2:] == [NOT_LISTED, NOT_LISTED]
        mariadb.stop()
        client.send(package(b"\nx\n", b"", b"x@fresh.example", b"box@here.example"))
        assert client.answer() == UNSURE
        assert client.answer().startswith(b"K")


def check_relay(port: int) -> None:
    """A client with RELAYCLIENT waits for no database."""
    with Client(port) as client:
        client.send(package(b"\nx\n", b"", b"x@fresh.example"))
        assert client.answer().startswith(b"K")
