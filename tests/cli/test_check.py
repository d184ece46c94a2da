"""qsend check finds each thing that is planted, and nothing in a good home."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.cli.main import main
from qsend.core import family
from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account, Accounts
from qsend.sysio import homecheck, homemaker, queuemaker, sandbox
from tests.certificates import Authority

QMAIL, NOFILES = 64500, 64501
ACCOUNTS = Accounts(
    alias=Account(uid=64510, gid=NOFILES),
    qmaild=Account(uid=64511, gid=NOFILES),
    qmaill=Account(uid=64512, gid=NOFILES),
    qmailp=Account(uid=64513, gid=NOFILES),
    qmailq=Account(uid=64514, gid=QMAIL),
    qmailr=Account(uid=64515, gid=NOFILES),
    qmails=Account(uid=64516, gid=QMAIL),
    root=Account(uid=0, gid=QMAIL),
)
ME = Account(uid=os.getuid(), gid=os.getgid())
SINGLE = Accounts(
    alias=ME, qmaild=ME, qmaill=ME, qmailp=ME, qmailq=ME, qmailr=ME, qmails=ME, root=ME
)
IS_ROOT = os.getuid() == 0


@pytest.fixture
def home(open_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = open_tmp / "home"
    old_mask = os.umask(0o022)
    accounts = ACCOUNTS if IS_ROOT else SINGLE
    homemaker.make_directories(str(made), accounts)
    (made / "queue").mkdir()
    queuemaker.create(str(made), accounts)
    homemaker.make_files(
        str(made / "control"), {"me": b"mx.example\n", "rcpthosts": b""}, accounts.root
    )
    homemaker.make_files(
        str(made / "alias"), homemaker.alias_files(str(made)), accounts.alias
    )
    monkeypatch.setattr("qsend.cli.check.load_accounts", lambda _single: accounts)
    yield made
    os.umask(old_mask)


Check = Callable[[], tuple[int, list[str]]]


@pytest.fixture
def check(home: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    def check() -> tuple[int, list[str]]:
        code = main(["check", "--home", str(home)])
        return code, capsys.readouterr().out.splitlines()

    return check


def test_good_home_has_no_fault(check: Check, home: Path) -> None:
    code, lines = check()
    assert (code, lines[-1]) == (0, f"{home}: all is well")
    told = [line.split(": ") for line in lines[:-1]]
    assert {word for word, _, _ in told} == {"sandbox"}
    kinds = {kind for kind in family.NAMES if not family.is_classic(kind)}
    named = [name for _, names, _ in told for name in names.split()]
    assert len(named) == len(set(named))
    # start and its users' children, and those that only have a part of a life.
    assert set(named) >= kinds | {"start", "local"}
    assert told[-1][1:] == [
        "start lspawn local runner",
        "none, because others' programs would inherit it",
    ]


@pytest.mark.parametrize("name", ["smtpauth", "clientcert.pem"])
def test_secret_that_others_may_read_is_a_fault(
    check: Check, home: Path, tmp_path: Path, name: str
) -> None:
    secrets = {
        "smtpauth": b"relay.example:ann:hush\n",
        "clientcert.pem": Authority(tmp_path).certify("DNS:me.example"),
    }
    path = home / "control" / name
    path.write_bytes(secrets[name])
    path.chmod(0o640)
    code, lines = check()
    assert code == 1
    assert f"control/{name}: is secret; expected mode 0600" in lines
    path.chmod(0o600)
    assert check()[0] == 0
    if IS_ROOT:
        os.chown(path, ACCOUNTS.qmailr.uid, NOFILES)
        assert check()[0] == 0
        os.chown(path, ACCOUNTS.qmaild.uid, NOFILES)
        assert check()[0] == 1


def test_tls_files_that_cannot_be_used_are_faults(check: Check, home: Path) -> None:
    cert = b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
    key = b"-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n"
    for name, content in {
        "tlspolicy": b"a.example:may\nb.example:perhaps\n",
        "tlscafile": cert,
        "clientcert.pem": cert + key,
    }.items():
        (home / "control" / name).write_bytes(content)
        (home / "control" / name).chmod(0o600 if name[-1] == "m" else 0o644)
    code, lines = check()
    assert code == 1
    told = [line for line in lines if line.startswith("control/")]
    levels = "none, may, encrypt, verify"
    want = f"control/tlspolicy:2: expected one of {levels} after the colon"
    assert told == [want]
    (home / "control/tlspolicy").unlink()
    told = [line for line in check()[1] if line.startswith("control/")]
    assert [line.split(": TLS cannot use it: ")[0] for line in told] == [
        "control/tlscafile",
        "control/clientcert.pem",
    ]


def number_of_one_message(home: Path) -> str:
    path = home / "queue/mess/0/23"
    path.write_text("")
    return f"queue/mess/0/23: expected the inode number, which is {path.stat().st_ino}"


def make(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)


def plant(change: Callable[[Path], object], want: str) -> object:
    return pytest.param(change, want, id=want[:60])


SQLSERVER = "server localhost\nlogin q\npassword secret\ndb qmail\n"
PLANTED = [
    plant(
        lambda home: (home / "control/patrn").write_text("9\n"),
        "control/patrn:1: expected an octal number from 0 to 511, found '9'",
    ),
    plant(
        lambda home: (home / "control/virtualdomains").write_text("a:b\nbad\n"),
        "control/virtualdomains:2: expected key:value, found no colon",
    ),
    plant(
        lambda home: (home / "control/locals").symlink_to("nowhere"),
        "control/locals: unreadable: No such file or directory",
    ),
    plant(
        lambda home: (home / "control/me").unlink(),
        "control/me: missing, and no control/locals",
    ),
    plant(
        lambda home: (home / "control/me").chmod(0o666),
        "control/me: others than its owner may change it",
    ),
    plant(
        lambda home: (home / "control/sqlserver").write_text(SQLSERVER),
        "control/sqlserver: is secret; expected mode 0600",
    ),
    plant(
        lambda home: (home / "run").chmod(0o777),
        "run: expected mode 0755, found 0777",
    ),
    plant(
        lambda home: (home / "users").rmdir(),
        "users: expected a directory: No such file or directory",
    ),
    plant(
        lambda home: ((home / "users").rmdir(), (home / "users").write_text("")),  # type: ignore[func-returns-value]
        "users: expected a directory, found something else",
    ),
    plant(
        lambda home: (home / "alias/.qmail-postmaster").unlink(),
        "alias/.qmail-postmaster: missing: mail for postmaster bounces",
    ),
    plant(
        lambda home: (home / "control").chmod(0o777),
        "control: expected mode 0755, found 0777",
    ),
    plant(
        lambda home: make(home / "bin/qmail-queue", 0o4711),
        "bin/qmail-queue: is setuid or setgid; nothing of qsend's is",
    ),
    plant(
        lambda home: make(home / "alias/.qmail-x", 0o2755),
        "alias/.qmail-x: is setuid or setgid; nothing of qsend's is",
    ),
    plant(
        lambda home: make(home / "bin/sendmail", 0o757),
        "bin/sendmail: anybody may change this program",
    ),
    plant(
        lambda home: (home / "queue/todo").chmod(0o755),
        "queue/todo: expected mode 0750, found 0755",
    ),
    plant(
        lambda home: (home / "queue/lock/trigger").unlink(),
        "queue/lock/trigger: expected a fifo: No such file or directory",
    ),
    plant(
        lambda home: (home / "queue/mess/23").mkdir(),
        "queue/mess/23: expected only 0 to 22 here",
    ),
]


@pytest.mark.parametrize(("change", "want"), PLANTED)
def test_planted_fault_is_found(
    check: Check, home: Path, change: Callable[[Path], object], want: str
) -> None:
    change(home)
    code, lines = check()
    assert code == 1
    assert lines[0] == want
    # Nothing else is blamed but where one thing is wrong in two ways.
    faults = [line for line in lines if not line.startswith(("note: ", "sandbox: "))]
    assert len(faults) <= 2, lines


def test_message_with_a_wrong_number_is_found(check: Check, home: Path) -> None:
    want = number_of_one_message(home)
    assert check() == (1, [want, *check()[1][1:]])


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("me", "a sender of mail (uid 65534) cannot read it: Permission denied"),
        ("rcpthosts", "qmaild (uid 64511) cannot read it: Permission denied"),
        ("smtproutes", "qmailr (uid 64515) cannot read it: Permission denied"),
    ],
)
def test_control_that_its_program_cannot_read_is_found(
    check: Check, home: Path, name: str, want: str
) -> None:
    path = home / "control" / name
    path.touch()
    path.chmod(0o600)
    code, lines = check()
    assert code == 1
    assert f"control/{name}: {want}" in lines


@pytest.mark.root
def test_foreign_owners_are_found(check: Check, home: Path) -> None:
    os.chown(home / "alias", 0, QMAIL)
    os.chown(home / "control/me", 64510, -1)
    os.chown(home / "queue/info", 64514, -1)
    (home / "alias").chmod(0o2755)
    code, lines = check()
    assert code == 1
    assert lines[:3] == [
        "alias: expected owner 64510, found 0",
        "control/me: expected owner 0, found 64510",
        "queue/info: expected owner 64516, found 64514",
    ]


@pytest.mark.root
def test_closed_way_to_the_home_is_found(check: Check, home: Path) -> None:
    home.parent.chmod(0o700)
    code, lines = check()
    assert code == 1
    assert "run: a sender of mail cannot enter it: Permission denied" in lines


def test_missing_queue_is_one_line(check: Check, home: Path) -> None:
    (home / "queue").rename(home / "away")
    code, lines = check()
    assert code == 1
    assert [line for line in lines if line.startswith("queue")] == [
        "queue: expected a directory: No such file or directory"
    ]


def test_missing_home_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--home", str(tmp_path / "no")]) == 1
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{tmp_path}/no: expected a directory; `qsend setup` makes it"
    )


def test_unknown_control_is_a_note_and_no_fault(check: Check, home: Path) -> None:
    (home / "control/local").write_text("a.example\n")
    code, lines = check()
    assert code == 0
    assert lines[0] == "note: control/local is none of qsend's; is the name right?"


def test_program_that_setup_has_put_aside_is_a_note(check: Check, home: Path) -> None:
    make(home / "bin/qmail-queue.before-qsend", 0o4711)
    make(home / "bin/qmail-send.before-qsend", 0o711)
    code, lines = check()
    assert code == 0
    assert lines[0].startswith("note: bin/qmail-queue.before-qsend is setuid, and ")
    assert lines[1].startswith("sandbox: ")


def test_missing_accounts_are_told(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = ConfigFault(file="account qmailr", line=0, problem="missing")

    def load(_single: bool) -> Accounts:
        raise ConfigError([fault])

    monkeypatch.setattr("qsend.cli.check.load_accounts", load)
    (home / "control/patrn").write_text("x")
    assert main(["check", "--home", str(home)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "account qmailr: missing"
    assert lines[1].startswith("control/patrn:1: ")


def test_answer_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "control/patrn").write_text("x")
    assert main(["check", "--json", "--home", str(home)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["home"] == str(home)
    assert [(each["file"], each["line"]) for each in told["faults"]] == [
        ("control/patrn", 1)
    ]
    kinds = {kind for kind in family.NAMES if not family.is_classic(kind)}
    assert set(told["sandbox"]) >= kinds - {"lspawn", "runner"}
    assert told["sandbox"]["remote"] == sandbox.features()


@pytest.mark.root
def test_unreadable_tries_as_the_account(open_tmp: Path) -> None:
    mine, others = open_tmp / "mine", open_tmp / "others"
    for path in (mine, others):
        path.touch(mode=0o600)
    os.chown(mine, 64599, 64599)
    found = homecheck.unreadable(
        [str(mine), str(others)], Account(uid=64599, gid=64599)
    )
    assert found == {str(others): "Permission denied"}


def test_services_that_serve_nobody_are_noted(check: Check, home: Path) -> None:
    control = home / "control"
    (control / "rcpthosts").unlink()
    (control / "smtplisten").write_text("127.0.0.1:25\n")
    (control / "qmqplisten").write_text("127.0.0.1:628\n")
    (control / "tcp.smtp").write_text(":allow\n")
    code, lines = check()
    assert code == 0
    assert [line for line in lines if line.startswith("note: ")] == [
        "note: control/rcpthosts lists nothing: SMTP takes mail with RELAYCLIENT only",
        "note: control/tcp.smtp has changed since `qsend tcprules smtp`",
        "note: control/tcp.qmqp.cdb is missing: QMQP takes nobody's mail",
    ]
    (control / "rcpthosts").write_text("here.example\n")
    (control / "smtplisten").write_text("127.0.0.1:587 submission\n")
    for name in ("tcp.smtp.cdb", "tcp.qmqp.cdb"):
        (control / name).write_bytes(b"")
    _, lines = check()
    assert [line for line in lines if line.startswith("note: ")] == [
        "note: control/smtplisten: nobody can log in without control/servercert.pem"
    ]
