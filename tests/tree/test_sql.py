"""Virtual users end to end: the documentation's tables, and who may ask."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from qsend.core.errors import TempFail
from qsend.core.lookups import Login, Proof, Verdict
from qsend.core.users import Trouble
from qsend.sysio.accounts import load_accounts
from qsend.sysio.lookupclient import LookupClient
from tests.mariadb import Database, MariaDb
from tests.smtppeer import LOCKSTEP, Peer
from tests.tree.harness import HOST, Tree, until
from tests.tree.virtualmail import GID, UID, VirtualMail

pytestmark = pytest.mark.root

SENDER = b"postmaster@here.example"


@pytest.fixture
def virtual(tree: Tree, database: Database, open_tmp: Path) -> VirtualMail:
    """A tree with empty tables, not started."""
    return VirtualMail(tree, database, open_tmp / "mail")


def start(virtual: VirtualMail) -> Tree:
    virtual.tree.start("--default-delivery", "./Maildir/")
    return virtual.tree


def test_virtual_addresses_of_the_documentation_arrive(virtual: VirtualMail) -> None:
    tree, database = virtual.tree, virtual.database
    virtual.add("dmp", "iain", "hancocaj", "hancocah")
    database.insert(
        "virtual",
        ("dmp", "", "diane.p", "tterson.net"),
        ("iain", "", "iain.p", "tterson.net"),
        ("iain", "legacy", "geocities", "babasse.com"),
        ("iain", "@", "", "iain.cx"),
        ("hancocaj", "", "", "ncock.net"),
        ("hancocah", "", "miss.h", "ncock.net"),
    )
    database.insert("alias", ("iain", "@", ".", "/Maildir/"))
    maildir = tree.maildir()
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        start(virtual)
        recips = [
            b"diane.p@tterson.net",
            b"Iain.P@Tterson.NET",
            b"geocities@babasse.com",
            b"xxx@iain.cx",
            b"anything@ncock.net",
            b"miss.h@ncock.net",
            b"bogus.p@tterson.net",
        ]
        tree.queue(recips, sender=SENDER)
        tree.wait_for(rb"bounce msg \d+ qp \d+\n")
        tree.wait_for(rb"end msg \d+\n", count=2)
        assert peer.contents == []
    assert virtual.delivered_to("dmp") == [b"dmp@tterson.net"]
    assert virtual.delivered_to("iain") == [
        b"iain-legacy@babasse.com",
        b"iain-xxx@iain.cx",
        b"iain@Tterson.NET",
    ]
    assert virtual.delivered_to("hancocaj") == [b"hancocaj@ncock.net"]
    assert virtual.delivered_to("hancocah") == [b"hancocah@ncock.net"]
    [bounce] = [path.read_bytes() for path in (maildir / "new").iterdir()]
    assert b"<bogus.p@tterson.net>:\nSorry" in bounce
    assert bounce.count(b"#5.1.1") == 1


def test_bounce_shows_the_address_that_was_written(virtual: VirtualMail) -> None:
    tree = virtual.tree
    virtual.add("dmp")
    virtual.database.insert("virtual", ("dmp", "none", "sad", "tterson.net"))
    maildir = tree.maildir()
    start(virtual)
    tree.queue([b"sad@tterson.net"], sender=SENDER)
    assert tree.reports(b"dmp-none@tterson.net")[0].startswith(b"failure")
    tree.wait_for(rb"end msg \d+\n", count=2)
    [bounce] = [path.read_bytes() for path in (maildir / "new").iterdir()]
    assert b"<sad@tterson.net>:\n" in bounce
    assert b"dmp-none" not in bounce.partition(b"--- Below")[0]


def test_alias_rows_of_the_documentation_are_carried_out(virtual: VirtualMail) -> None:
    tree, database = virtual.tree, virtual.database
    virtual.add("dmp", "iain", "njp")
    test = virtual.place / "iain/test"
    for each in (test, test / "tmp", test / "new", test / "cur"):
        each.mkdir()
        os.chown(each, UID, GID)
    spam = virtual.place / "njp/Spam"
    spam.mkdir()
    for each in (spam, *(spam / part for part in ("tmp", "new", "cur"))):
        each.mkdir(exist_ok=True)
        os.chown(each, UID, GID)
    database.insert(
        "alias",
        ("dmp", "", "dmp", "nigelj.force9.co.uk"),
        ("iain", "test", "/", f"{str(test)[1:]}/"),
        ("iain", "", "|", "cat >program.out"),
        ("njp", "spam", ".", "/Spam/"),
        ("alias", "bogus", "iain", ""),
    )
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        start(virtual)
        locals_ = [b"dmp", b"iain-test", b"njp-spam", b"bogus"]
        tree.queue([local + b"@here.example" for local in locals_])
        # iain's own mail comes by way of bogus; dmp's goes on to his other address.
        tree.reports(b"iain@here.example", b"dmp@nigelj.force9.co.uk")
        tree.wait_empty()
        assert len(peer.contents) == 1
    assert virtual.delivered_to("iain", "test") == [b"iain-test@here.example"]
    assert virtual.delivered_to("njp", "Spam") == [b"njp-spam@here.example"]
    program = (virtual.place / "iain/program.out").read_bytes()
    assert b"Delivered-To: bogus@here.example\n" in program
    assert (virtual.place / "iain/program.out").stat().st_uid == UID


def test_home_of_another_group_is_alias_mail_and_said(virtual: VirtualMail) -> None:
    tree = virtual.tree
    virtual.add("dmp", "hid")
    os.chown(virtual.place / "dmp", UID, GID + 1)
    alias = tree.maildir()
    tree.alias("dmp", "./Maildir/\n")
    start(virtual)
    tree.queue([b"dmp@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert len(list((alias / "new").iterdir())) == 1
    tree.find(rb"warning: qmail-lookup: mailbox row 'dmp': home .* belongs to")
    # A home that lookup may not see says nothing: the mail waits.
    virtual.place.chmod(0o700)
    tree.queue([b"hid@here.example"])
    [report] = tree.reports(b"hid@here.example")
    assert report.startswith(b"deferral: ")
    assert b"Permission_denied" in report


def test_uids_that_never_get_mail_are_refused_with_an_alert(
    virtual: VirtualMail,
) -> None:
    tree = virtual.tree
    home = virtual.home("x")
    accounts = load_accounts(single_user=False)
    uids = {"root": 0, "queue": accounts.qmailq.uid, "low": 7, "al": accounts.alias.uid}
    rows = [(name, uid, 0, str(home), "", "", "N") for name, uid in uids.items()]
    virtual.database.insert("mailbox", *rows)
    tree.alias("default", "./Maildir/\n")
    start(virtual)
    recips = [name.encode() + b"@here.example" for name in uids]
    tree.queue(recips)
    assert all(each.startswith(b"deferral: ") for each in tree.reports(*recips))
    for name in uids:
        tree.find(rf"alert: qmail-lookup: mailbox row '{name}': uid ".encode())


def test_without_sqlserver_nobody_is_asked(tree: Tree, database: Database) -> None:
    before = questions(database.server)
    tree.maildir()
    tree.start("--default-delivery", "./Maildir/")
    tree.queue([b"postmaster@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert questions(database.server) - before <= 3


def questions(server: MariaDb) -> int:
    """Statements that the server has got so far, this one included."""
    [(_, count)] = server.execute("SHOW GLOBAL STATUS LIKE 'Questions'")
    assert isinstance(count, str)
    return int(count)


def test_sqlserver_comes_and_goes_by_hup(virtual: VirtualMail) -> None:
    tree = virtual.tree
    virtual.add("dmp")
    virtual.database.insert("virtual", ("dmp", "", "", "virtual.example"))
    content = (tree.home / "control/sqlserver").read_bytes()
    with Peer(LOCKSTEP) as peer:
        tree.control("smtproutes", f":127.0.0.1:{peer.port}\n")
        tree.control("sqlserver", None)
        start(virtual)
        tree.queue([b"a@virtual.example"])
        tree.reports(b"a@virtual.example")
        assert len(peer.contents) == 1
        virtual.use(content)
        tree.run("reload")
        tree.wait_for(rb"reread controls: generation 2\n")
        tree.queue([b"b@virtual.example"])
        tree.reports(b"dmp@virtual.example")
        # One that cannot be used changes nothing.
        virtual.use(content + b"port 1\n")
        tree.signal(signal.SIGHUP)
        tree.wait_for(rb"alert: unable to reread controls: control/sqlserver:\d: port")
        tree.queue([b"c@virtual.example"])
        tree.wait_for(rb"end msg \d+\n", count=1)
        tree.wait_empty()
        assert len(peer.contents) == 1
    assert virtual.delivered_to("dmp") == [b"dmp@virtual.example"] * 2


def test_server_is_reached_by_its_socket_too(virtual: VirtualMail) -> None:
    server = virtual.database.server
    virtual.use(virtual.database.control({"socket": str(server.socket_path)}))
    virtual.add("dmp")
    tree = start(virtual)
    tree.queue([b"dmp@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert virtual.delivered_to("dmp") == [b"dmp@here.example"]


def test_password_is_known_to_lookup_alone(virtual: VirtualMail) -> None:
    tree = start(virtual)
    secret = virtual.database.password.encode()
    for process in tree.family():
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        cmdline = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert secret not in environ + cmdline
    assert secret not in tree.log


def ask_as(tree: Tree, uid: int, question: str) -> str:
    """The outcome of `client.QUESTION` in a process with that uid."""
    program = (
        "import sys\n"
        "from qsend.core.lookups import Login, Proof\n"
        "from qsend.sysio.lookupclient import LookupClient\n"
        "login = Login(proof=Proof.PASS, name=b'dmp', secret=b'flibble')\n"
        f"with LookupClient({str(tree.home)!r}) as client:\n"
        "    try:\n"
        f"        print(client.{question})\n"
        "    except Exception as exc:\n"
        "        print(type(exc).__name__, exc)\n"
    )
    done = tree.call([str(tree.installation.python), "-c", program], uid=uid)
    return done.stdout.decode()


def test_uid_of_a_program_decides_what_it_may_ask(virtual: VirtualMail) -> None:
    tree, database = virtual.tree, virtual.database
    virtual.add("dmp")
    database.insert("virtual", ("dmp", "", "diane.p", "tterson.net"))
    database.insert("rcpthosts", ("tterson.net",))
    start(virtual)
    accounts = load_accounts(single_user=False)
    asked = {
        "user(b'dmp')": "User(",
        "locality(b'diane.p@tterson.net')": "dmp@tterson.net",
        "rcpthost(b'tterson.net')": "True",
        "exists(b'diane.p@tterson.net')": "True",
        "explain(b'diane.p@tterson.net')": "fate",
        "verify(login)": "Verdict.OK",
    }
    listening = {"rcpthost", "exists", "verify"}
    may_ask = {
        0: {question.partition("(")[0] for question in asked},
        accounts.qmaild.uid: listening,
        accounts.qmailp.uid: {"user"},
        accounts.qmails.uid: set[str](),
        64900: set[str](),
    }
    for uid, allowed in may_ask.items():
        for question, want in asked.items():
            answer = ask_as(tree, uid, question)
            if question.partition("(")[0] in allowed:
                assert want in answer, (uid, question, answer)
            else:
                assert "LookupRefused" in answer, (uid, question, answer)
    # A listener learns yes or no, root also whose mailbox it is; nobody the hash.
    assert "user=None" in ask_as(tree, accounts.qmaild.uid, "verify(login)")
    told = ask_as(tree, 0, "verify(login)")
    assert f"uid={UID}" in told
    assert "flibble" not in told


def test_logins_are_judged_by_the_mailbox_table(virtual: VirtualMail) -> None:
    virtual.add("dmp", "out")
    virtual.database.load("UPDATE mailbox SET suspended='Y' WHERE username='out'")
    tree = start(virtual)
    with LookupClient(str(tree.home)) as client:
        for name, secret, want in (
            (b"dmp", b"flibble", Verdict.OK),
            (b"DMP", b"flibble", Verdict.OK),
            (b"dmp", b"flobble", Verdict.WRONG),
            (b"out", b"flibble", Verdict.SUSPENDED),
            (b"nobody", b"flibble", Verdict.UNKNOWN),
        ):
            login = Login(proof=Proof.PASS, name=name, secret=secret)
            assert client.verify(login).verdict is want, name
    # The suspended one still gets mail.
    tree.queue([b"out@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert virtual.count(["out"]) == 1


def test_explanation_follows_the_way_of_the_mail(virtual: VirtualMail) -> None:
    virtual.add("dmp")
    virtual.database.insert("virtual", ("dmp", "", "diane.p", "tterson.net"))
    tree = start(virtual)
    with LookupClient(str(tree.home)) as client:
        found = json.loads(client.explain(b"diane.p@tterson.net"))
        assert (found["fate"], found["stored"]) == ("local", "dmp@tterson.net")
        assert (found["user"]["name"], found["user"]["uid"]) == ("dmp", UID)
        assert any("virtual row" in step for step in found["steps"])
        found = json.loads(client.explain(b"bogus@tterson.net"))
        assert found["fate"] == "no such recipient"
        found = json.loads(client.explain(b"a@far.example"))
        assert (found["fate"], found["stored"]) == ("remote", "a@far.example")


def test_recipients_exist_as_far_as_can_be_seen(virtual: VirtualMail) -> None:
    virtual.add("dmp")
    virtual.database.insert("virtual", ("dmp", "", "diane.p", "tterson.net"))
    virtual.database.insert("alias", ("dmp", "list", "a", "b.example"))
    tree = virtual.tree
    tree.alias("postmaster", "./Maildir/\n")
    start(virtual)
    with LookupClient(str(tree.home)) as client:
        for address, want in {
            b"diane.p@tterson.net": True,
            b"bogus@tterson.net": False,
            b"dmp@here.example": True,
            b"dmp-list@here.example": True,
            b"postmaster": True,
            b"nobody-like-this@here.example": False,
            b"anybody@far.example": True,
            b"x%dmp@here.example": False,
        }.items():
            assert client.exists(address) is want, address


def test_qmail_getpw_asks_the_database(virtual: VirtualMail) -> None:
    virtual.add("iain", "iain-sanity")
    tree = virtual.tree
    virtual.database.insert("alias", ("iain", "slowlaris", ".", "/Maildir/"))

    def fields(local: str, uid: int | None = None) -> list[str]:
        done = tree.program("qmail-getpw", local, uid=uid)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().split("\0")[:-1]

    # Not started: nobody knows, and nobody says alias.
    before = tree.program("qmail-getpw", "iain")
    assert (before.returncode, before.stdout) == (121, b"")
    start(virtual)
    place = str(virtual.place)
    ids = [str(UID), str(GID)]
    qmailp = load_accounts(single_user=False).qmailp.uid
    assert fields("iain", qmailp) == ["iain", *ids, f"{place}/iain", "", ""]
    assert fields("iain-sanity")[0] == "iain-sanity"
    assert fields("iain-slowlaris")[::4] == ["iain", "-"]
    assert fields("iain-slowlaris")[5] == "slowlaris"
    assert fields("nobody-at-all")[0] == "alias"
    refused = tree.program("qmail-getpw", "iain", uid=64900)
    assert (refused.returncode, refused.stdout) == (121, b"")
    assert b"refuses" in refused.stderr


def test_equal_questions_cost_no_second_round_trip(virtual: VirtualMail) -> None:
    virtual.add("dmp")
    tree = start(virtual)
    server = virtual.database.server
    with LookupClient(str(tree.home)) as client:
        client.user(b"dmp")
        client.locality(b"dmp@here.example")
        before = questions(server)
        for _ in range(500):
            client.user(b"dmp")
            client.locality(b"dmp@here.example")
        # The shared server may be asked by others meanwhile, not that much.
        assert questions(server) - before < 100


def test_many_mailboxes_of_one_uid_share_a_warm_child(virtual: VirtualMail) -> None:
    names = [f"u{n}" for n in range(300)]
    virtual.add(*names)
    tree = virtual.tree
    tree.control("concurrencylocal", "50")
    start(virtual)
    for begin in range(0, 300, 30):
        recips = [
            name.encode() + b"@here.example" for name in names[begin : begin + 30]
        ]
        tree.queue(recips)
    seen: set[int] = set()

    def is_done() -> bool:
        seen.update(tree.pids("qmail-local"))
        return virtual.count(names) == 300

    until(is_done)
    assert 1 <= len(seen) <= 2
    tree.wait_empty()


def test_lookup_that_is_killed_is_asked_again(virtual: VirtualMail) -> None:
    virtual.add("dmp")
    tree = start(virtual)
    for _ in range(3):
        until(lambda: len(tree.pids("qmail-lookup")) == 1)
        [pid] = tree.pids("qmail-lookup")
        os.kill(pid, signal.SIGKILL)
        tree.queue([b"dmp@here.example"])
    until(lambda: virtual.count(["dmp"]) == 3)
    tree.wait_empty()
    assert not re.search(rb"failure", tree.log)


def test_database_that_is_not_there_is_trouble_for_all(
    virtual: VirtualMail,
) -> None:
    tree = virtual.tree
    virtual.use(b"server 127.0.0.1\nport 1\nlogin a\npassword b\ndb c\n")
    start(virtual)
    tree.queue([b"postmaster@here.example"])
    tree.find(rb"warning: new mail waits in todo: the database does not answer")
    with LookupClient(str(tree.home)) as client:
        for answer in (
            client.user(b"postmaster"),
            client.locality(b"a@b"),
            client.exists(b"a@b"),
            client.rcpthost(b"b"),
        ):
            assert isinstance(answer, Trouble)
        login = Login(proof=Proof.PASS, name=b"a", secret=b"b")
        assert client.verify(login).verdict is Verdict.TROUBLE
    done = tree.program("qmail-getpw", "postmaster")
    assert (done.returncode, done.stdout) == (121, b"")
    assert b"does not answer" in done.stderr
    assert tree.ask("status")["unprocessed"] == 1
    assert tree.stop() == 0
    with pytest.raises(TempFail, match="cannot ask"):
        LookupClient(str(tree.home))


def test_local_part_with_many_dashes_is_its_users(virtual: VirtualMail) -> None:
    virtual.add("joe", "joe---------")
    virtual.database.insert("alias", ("joe---------", "@", ".", "/Maildir/"))
    tree = start(virtual)
    dashes = b"-" * 247
    tree.queue([b"joe" + dashes + b"@here.example"], sender=SENDER)
    assert tree.reports(b"joe" + dashes + b"@here.example") == [b"success: did_1+0+0/"]
    # The longest name decides.
    assert len(virtual.mail("joe---------")) == 1


def as_lspawn(virtual: VirtualMail, local: str) -> subprocess.CompletedProcess[bytes]:
    """Deliver a message as a classic qmail-lspawn does."""
    tree = virtual.tree
    fields = tree.program("qmail-getpw", local).stdout.split(b"\0")
    user, uid, _gid, home, dash, ext = map(os.fsdecode, fields[:6])
    with tempfile.TemporaryFile() as message:
        message.write(b"Subject: test\n\nbody\n")
        message.seek(0)
        words = (user, home, local, dash, ext, HOST, "me@x.example", "./Maildir/")
        return subprocess.run(
            [str(tree.home / "bin/qmail-local"), "--", *words],
            stdin=message, capture_output=True, check=False, cwd="/", timeout=60,
            user=int(uid), group=GID, extra_groups=[],
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip


def test_classic_qmail_lspawn_delivers_by_alias_rows(virtual: VirtualMail) -> None:
    virtual.add("dmp", "iain", "njp")
    for name, where in (("iain", "Rows"), ("njp", "File")):
        home = virtual.place / name
        (home / ".qmail-box").write_text("./File/\n")
        os.chown(home / ".qmail-box", UID, GID)
        virtual.tree.maildir(where, home)
    virtual.database.insert(
        "alias", ("dmp", "", "joe", "x.example"), ("iain", "box", ".", "/Rows/")
    )
    start(virtual)
    assert as_lspawn(virtual, "iain-box").stdout == b"did 1+0+0\n"
    assert len(virtual.mail("iain", "Rows")) == 1
    assert as_lspawn(virtual, "njp-box").returncode == 0
    assert len(virtual.mail("njp", "File")) == 1, "no row: the file decides"
    assert b"did 0+1+0" in as_lspawn(virtual, "dmp").stdout
    # No answer means that the mail waits.
    words = (
        "iain",
        str(virtual.place / "iain"),
        "iain-box",
        "-",
        "box",
        HOST,
        "me@x.example",
        "./Maildir/",
    )
    program = str(virtual.tree.home / "bin/qmail-local")
    listed = virtual.tree.call([program, "-n", "--", *words], uid=UID).stdout
    assert b"./Rows/" in listed
    virtual.use(virtual.database.control({"port": "1"}))
    virtual.tree.run("reload")
    done = virtual.tree.call([program, "-n", "--", *words], uid=UID, check=False)
    assert done.returncode == 111
    assert b"cannot be looked up now" in done.stderr
