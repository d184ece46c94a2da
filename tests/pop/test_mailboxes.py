"""Mailboxes of the database by POP3: in the tree, and under tcpserver."""

from __future__ import annotations

import json
import os
import poplib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsend.core.loginbrake import FREE
from qsend.core.lookups import Login, Proof
from qsend.formats.turnwire import Stage
from qsend.sysio.lookupclient import LookupClient
from tests.mariadb import Database, MariaDb
from tests.pop.conftest import PASSWORD, PopTree, Raw, own
from tests.tree.harness import until

pytestmark = pytest.mark.root

UID = 64881
REFUSED = "-ERR [AUTH] authorization failed"
TEMPORARY = "-ERR [SYS/TEMP] unable to check logins now; try again later"
CRYPT = "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"
MYSQL = "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7"
YESCRYPT = "$y$j9T$k2XAnEHBqQ1Ct2aMXFKNa/$wlUhTDUqAryQnsZkFoU5UZ6UStBlZ4Z8j4gtdFPQVn4"
USERS = {
    "plain@virt.example": ("secret", "Password", "N"),
    "crypt@virt.example": (CRYPT, "Crypt-Password", "N"),
    "yes@virt.example": (YESCRYPT, "Crypt-Password", "N"),
    "new@virt.example": (MYSQL, "MySQL-Password", "N"),
    "old": ("428567f408994404", "MySQL-Password", "N"),
    "gone": ("secret", "Password", "Y"),
    "none": ("", "Password", "N"),
    "odd": ("$unknown$x", "Crypt-Password", "N"),
}
USABLE = [name for name in USERS if name not in ("gone", "none", "odd")]


def add_mailboxes(database: Database, top: Path) -> None:
    for name, (password, kind, suspended) in USERS.items():
        home = top / name.partition("@")[0]
        for part in ("tmp", "new", "cur"):
            (home / "Maildir" / part).mkdir(parents=True)
        (home / "Maildir/new/1.a").write_text(f"Subject: to {name}\n\n")
        for path in (home, *home.rglob("*")):
            os.chown(path, UID, UID)
        row = (name, UID, UID, str(home), password, kind, suspended)
        database.insert("mailbox", row)


@pytest.fixture
def world(unstarted: PopTree, database: Database, open_tmp: Path) -> PopTree:
    """A running tree with mailboxes in a database."""
    (open_tmp / "virtual").mkdir()
    (open_tmp / "virtual").chmod(0o755)
    add_mailboxes(database, open_tmp / "virtual")
    connect(unstarted, database)
    unstarted.tree.start()
    return unstarted


def connect(pop: PopTree, database: Database) -> None:
    path = pop.tree.home / "control/sqlserver"
    path.write_bytes(database.sqlserver)
    path.chmod(0o600)


def answer(pop: PopTree, name: str, secret: str = "secret") -> str:
    """What the server says to a password."""
    with Raw(pop.port) as raw:
        raw.ask(f"USER {name}".encode())
        return raw.ask(f"PASS {secret}".encode()).decode().rstrip()


@pytest.mark.parametrize("name", USABLE)
def test_every_kind_of_password_opens_its_mailbox(world: PopTree, name: str) -> None:
    with world.session(name, "secret") as client:
        assert client.retr(1)[1] == [b"Subject: to " + name.encode(), b""]
        [pid] = world.tree.pids("qmail-popsession")
        status = Path(f"/proc/{pid}/status").read_text()
        for kind in ("Uid", "Gid"):
            assert f"{kind}:\t" + "\t".join([str(UID)] * 4) in status
        assert f"\nGroups:\t{UID} \n" in status
        client.dele(1)
        client.quit()
    assert answer(world, name, "Secret") == REFUSED
    world.tree.find(rb"login: %b from 127.0.0.1: refused: wrong" % name.encode())


def test_apop_needs_a_password_in_plain_text(world: PopTree) -> None:
    with world.client() as client:
        with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
            client.apop("plain@virt.example", "wrong")
        with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
            client.apop("crypt@virt.example", "secret")
        client.apop("plain@virt.example", "secret")
        assert client.stat()[0] == 1
        client.quit()


def test_suspended_mailbox_and_one_without_a_password_are_refused(
    world: PopTree,
) -> None:
    assert answer(world, "gone") == REFUSED
    assert answer(world, "none", "x") == REFUSED
    world.tree.find(rb"login: gone from 127.0.0.1: refused: suspended\n")


def test_hash_that_nobody_knows_is_a_temporary_failure(world: PopTree) -> None:
    assert answer(world, "odd") == TEMPORARY
    world.tree.find(rb"login: odd from 127.0.0.1: deferred: system error \(crypt")


def test_mailbox_row_comes_before_the_account_of_that_name(
    world: PopTree, mailbox: str, database: Database, open_tmp: Path
) -> None:
    assert answer(world, mailbox, PASSWORD) == "+OK"
    home = str(open_tmp / "virtual/plain")
    row = (mailbox, UID, UID, home, "other", "Password", "N")
    database.insert("mailbox", row)
    world.tree.signal(signal.SIGHUP)  # forget what is known
    world.tree.wait_for(b"reread controls")
    until(lambda: answer(world, mailbox, "other") == "+OK")
    assert answer(world, mailbox, PASSWORD) == REFUSED


def test_row_whose_uid_is_not_the_owner_opens_nothing(
    world: PopTree, database: Database, open_tmp: Path
) -> None:
    home = open_tmp / "virtual/stolen"
    shutil.copytree(open_tmp / "virtual/plain", home)
    for path in (home, *home.rglob("*")):
        os.chown(path, UID + 1, UID + 1)
        path.chmod(0o700)
    row = ("thief", UID, UID, str(home), "secret", "Password", "N")
    database.insert("mailbox", row)
    assert answer(world, "thief") == "-ERR this user has no $HOME/Maildir"


@pytest.mark.parametrize("uid", [0, 99])
def test_row_with_a_forbidden_uid_opens_nothing(
    world: PopTree, database: Database, uid: int, open_tmp: Path
) -> None:
    home = str(open_tmp / "virtual/plain")
    row = ("boss", uid, uid, home, "secret", "Password", "N")
    database.insert("mailbox", row)
    assert answer(world, "boss") == TEMPORARY
    assert world.tree.pids("qmail-popsession") == []


def test_silent_database_is_a_temporary_failure_and_comes_back(
    own_mariadb: MariaDb,
    own_database: Database,
    unstarted: PopTree,
    mailbox: str,
    open_tmp: Path,
) -> None:
    (open_tmp / "virtual").mkdir()
    (open_tmp / "virtual").chmod(0o755)
    add_mailboxes(own_database, open_tmp / "virtual")
    connect(unstarted, own_database)
    unstarted.tree.start()
    assert answer(unstarted, "plain@virt.example") == "+OK"
    own_mariadb.kill()
    # Accounts of the machine as well: the database might have a row.
    assert answer(unstarted, mailbox, PASSWORD) == TEMPORARY
    assert answer(unstarted, "yes@virt.example") == TEMPORARY
    own_mariadb.start()
    until(lambda: answer(unstarted, "yes@virt.example") == "+OK")


# Under tcpserver


@contextmanager
def tcpserver(pop: PopTree, *environ: str) -> Iterator[PopTree]:
    """qmail-popup, checkpassword and qmail-pop3d of the home, as a howto has them."""
    programs = pop.tree.home / "bin"
    with subprocess.Popen(
        [
            "tcpserver", "-HRl0", "-1", "127.0.0.1", "0",
            programs / "qmail-popup", "pop.example",
            programs / "checkpassword", programs / "qmail-pop3d", "Maildir",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
        cwd="/",
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield PopTree(
                tree=pop.tree, port=port, tls_port=0, certificate=pop.certificate
            )
        finally:
            process.terminate()


def test_tcpserver_runs_the_programs(
    world: PopTree, mailbox: str, open_tmp: Path
) -> None:
    add = open_tmp / mailbox / "Maildir/new/2.b"
    add.write_text("Subject: account\n\n.dot\n")
    own(open_tmp / mailbox, mailbox)
    with tcpserver(world) as served:
        for name in ("yes@virt.example", "plain@virt.example"):
            with served.session(name, "secret") as client:
                assert client.stat()[0] == 1
                assert client.retr(1)[1] == [b"Subject: to " + name.encode(), b""]
                client.dele(1)
                client.quit()
        with served.session(mailbox) as client:
            assert client.retr(1)[1] == [b"Subject: account", b"", b".dot"]
            assert client.uidl(1) == b"+OK 1 2.b"
            client.quit()
        assert answer(served, mailbox, "wrong") == REFUSED
        assert answer(served, "gone") == REFUSED
        assert answer(served, "odd") == TEMPORARY
    assert not list((open_tmp / "virtual/yes").glob("Maildir/*/*"))
    assert [p.name for p in (open_tmp / mailbox).glob("Maildir/*/*")] == ["2.b:2,"]


def test_tcpserver_serves_apop(world: PopTree) -> None:
    with tcpserver(world) as served, served.client() as client:
        client.apop("plain@virt.example", "secret")
        assert client.stat()[0] == 1
        client.quit()


def test_tcpserver_without_a_tree_says_try_again(world: PopTree) -> None:
    assert world.tree.stop() == 0
    with tcpserver(world) as served:
        assert answer(served, "plain@virt.example") == TEMPORARY


def test_program_of_a_mailbox_has_its_uid_alone(world: PopTree, open_tmp: Path) -> None:
    told = b"plain@virt.example\0secret\0<1@x>\0"
    read, write = os.pipe()
    os.write(write, told)
    os.close(write)
    script = "import os,json;print(json.dumps([os.getresuid(),os.getresgid(),"
    script += "os.getgroups(),os.getcwd(),dict(os.environ)]))"
    command = f'exec 3<&{read}; exec "$@"'
    done = subprocess.run(
        [
            "bash", "-c", command, "bash", world.tree.home / "bin/checkpassword",
            "/usr/bin/python3", "-c", script,
        ],
        pass_fds=[read], capture_output=True, check=True, cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    os.close(read)
    uids, gids, groups, cwd, environ = json.loads(done.stdout)
    home = str(open_tmp / "virtual/plain")
    assert (uids, gids, groups, cwd) == ([UID] * 3, [UID] * 3, [UID], home)
    assert environ["USER"] == "plain@virt.example"
    assert (environ["HOME"], environ["SHELL"]) == (home, "/bin/sh")


def attempt(world: PopTree, secret: bytes, client: str) -> subprocess.Popen[bytes]:
    """checkpassword for plain@virt.example as a server of that client runs it."""
    read, write = os.pipe()
    os.write(write, b"plain@virt.example\0%b\0\0" % secret)
    os.close(write)
    command = f'exec 3<&{read}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", world.tree.home / "bin/checkpassword", "true"],
        pass_fds=[read], cwd="/", env={"PATH": "/usr/bin:/bin", "TCPREMOTEIP": client},
    )  # fmt: skip
    os.close(read)
    return process


def test_attempts_by_checkpassword_have_to_wait_where_lookup_runs(
    world: PopTree,
) -> None:
    guessing, known, third = "192.0.2.7", "192.0.2.8", "192.0.2.9"
    assert attempt(world, b"secret", known).wait(30) == 0
    # More than are free, at once.
    wrong = [attempt(world, b"wrong", guessing) for _ in range(FREE + 2)]
    assert [each.wait(60) for each in wrong] == [1] * len(wrong)

    def wait_s(client: str, name: bytes = b"plain@virt.example") -> float | None:
        login = Login(proof=Proof.PASS, name=name, secret=b"", client=client.encode())
        with LookupClient(str(world.tree.home)) as lookup:
            return lookup.turn(login, Stage.BEGINS)

    # The pauses may be over by now on a slow machine, the count is not.
    turns = [wait_s(guessing) for _ in range(3)]
    assert turns[2]
    assert wait_s(guessing, b"nobody"), "the address counts, whoever is tried"
    assert [wait_s(third) for _ in range(3)][2], "the user counts, whoever tries"
    assert wait_s(third, b"yes@virt.example") == 0
    assert [wait_s(known) for _ in range(3)] == [0, 0, 0]
    assert attempt(world, b"secret", known).wait(30) == 0
    assert wait_s(third) == 0, "a right password frees the user"


# Debian's clients


def test_fetchmail_takes_mail_and_knows_it_again(
    world: PopTree, open_tmp: Path, mailbox: str
) -> None:
    def run() -> tuple[int, str]:
        return fetchmail(
            open_tmp,
            f"poll 127.0.0.1 protocol POP3 port {world.port} uidl auth password\n"
            'user "plain@virt.example" password "secret" keep no rewrite sslproto ""',
        )

    assert run()[0] == 0
    assert run()[0] == 1  # no new mail
    got = (open_tmp / "got").read_text()
    assert got.count("Subject: to plain@virt.example") == 1


def fetchmail(place: Path, config: str) -> tuple[int, str]:
    """Exit code and output; mail goes to the file `got`."""
    file = place / "fetchmailrc"
    file.write_text(f'{config}\nmda "cat >>{place}/got"\n')
    file.chmod(0o600)
    run = ["fetchmail", "-f", str(file), "--nosyslog", "-N", "-v"]
    run += ["--idfile", f"{place}/ids"]
    done = subprocess.run(
        run, capture_output=True, cwd="/", check=False, timeout=60, text=True,
        env={"HOME": str(place), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_fetchmail_goes_by_stls_and_removes(world: PopTree, open_tmp: Path) -> None:
    code, output = fetchmail(
        open_tmp,
        f"poll localhost protocol POP3 port {world.port} auth password\n"
        'user "yes@virt.example" password "secret" no keep no rewrite\n'
        f'sslproto "TLS1.2+" sslcertck sslcertfile "{world.certificate}"',
    )
    assert code == 0, output
    assert "STLS" in output
    assert (open_tmp / "got").read_text().count("Subject: to yes@virt.example") == 1
    assert not list((open_tmp / "virtual/yes").glob("Maildir/*/*"))


@pytest.mark.parametrize("tls", ["plain", "starttls", "tls"])
def test_mpop_delivers_into_a_maildir(world: PopTree, open_tmp: Path, tls: str) -> None:
    box = open_tmp / "box"
    for part in ("tmp", "new", "cur"):
        (box / part).mkdir(parents=True)
    port = world.tls_port if tls == "tls" else world.port
    config = open_tmp / "mpoprc"
    config.write_text(
        f"account default\nhost localhost\nport {port}\nuser plain@virt.example\n"
        f"password secret\nauth user\nkeep off\ndelivery maildir {box}\n"
        f"uidls_file {open_tmp}/uidls\n"
        f"tls {'off' if tls == 'plain' else 'on'}\n"
        f"tls_starttls {'on' if tls == 'starttls' else 'off'}\n"
        + ("" if tls == "plain" else f"tls_trust_file {world.certificate}\n")
    )
    config.chmod(0o600)
    done = subprocess.run(
        ["mpop", "-C", config], capture_output=True, cwd="/", check=False,
        env={"HOME": str(open_tmp), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [message] = (box / "new").iterdir()
    assert "Subject: to plain@virt.example" in message.read_text()
    assert not list((open_tmp / "virtual/plain").glob("Maildir/*/*"))


def test_curl_reads_by_apop_and_by_tls(world: PopTree) -> None:
    def curl(url: str, *options: str | Path) -> bytes:
        user = ("-u", "plain@virt.example:secret")
        return subprocess.run(
            ["curl", "-sS", *user, *options, url], capture_output=True, check=True
        ).stdout

    apop = curl(f"pop3://127.0.0.1:{world.port}/1", "--login-options", "AUTH=+APOP")
    assert apop.startswith(b"Subject: to plain")
    ca = ("--cacert", world.certificate)
    assert b"1 1.a" in curl(f"pop3s://localhost:{world.tls_port}/", "-X", "UIDL", *ca)
    listed = curl(f"pop3://localhost:{world.port}/", "--ssl-reqd", *ca)
    assert listed.split() == [
        b"1",
        str(len("Subject: to plain@virt.example\n\n")).encode(),
    ]
