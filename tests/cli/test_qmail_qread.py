"""qmail-qread, qmail-qstat and maildirmake as programs, on real directories."""

from __future__ import annotations

import mailbox
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsend.cli import qmail_qread, qmail_qstat
from qsend.core.model import Account, Channel, MessId
from qsend.sysio.fork import fork_child
from qsend.sysio.fsq import Queue
from qsend.sysio.privilege import drop
from tests.queues import inject, make_queue, separate_accounts

ROOT = Path(__file__).parents[2]
MAINS = {"qmail_qread": qmail_qread.main, "qmail_qstat": qmail_qstat.main}
BIRTH = 951827699


def run(
    program: str, *args: str, home: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    code = f"from qsend.cli.{program} import main\n"
    code += "import sys\nsys.exit(main(sys.argv[1:]))"
    environ = {"PYTHONPATH": str(ROOT), "QSEND_HOME": str(home or "/nonexistent")}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env=environ,
        cwd=cwd or ROOT,
        capture_output=True,
        timeout=30,
        check=False,
    )


def preprocess(
    queue: Path,
    messid: MessId,
    local: bytes | None = None,
    remote: bytes | None = None,
    sender: bytes = b"joe@x",
) -> None:
    """Bring a message of `inject` into S5."""
    opened = Queue(str(queue))
    os.close(opened.create_info(messid, sender, BIRTH * 10**9))
    for channel, data in ((Channel.LOCAL, local), (Channel.REMOTE, remote)):
        if data is not None:
            os.close(opened.create_recips(channel, messid, data, 0))
    opened.close()
    for name in ("intd", "todo"):
        (queue / name / str(messid)).unlink()


def test_qread_prints_done_waiting_and_bouncing_exactly(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue, b"x" * 345)
    preprocess(queue, messid, b"Da@x\0Tb\n@x\0", b"Tc@y\0Dd@y\0")
    (queue / f"bounce/{messid}").write_bytes(b"<a@x>:\n")
    found = run("qmail_qread", home=tmp_path)
    assert found.stdout == (
        b"29 Feb 2000 12:34:59 GMT  #%d  345  <joe@x>  bouncing\n"
        b"  done\tlocal\ta@x\n\tlocal\tb_@x\n\tremote\tc@y\n  done\tremote\td@y\n"
        % messid
    )
    assert (found.returncode, found.stderr) == (0, b"")


def test_qread_shows_preprocessed_messages_only(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    waiting, half, whole = (inject(queue) for _ in range(3))
    preprocess(queue, whole, sender=b"")
    (queue / f"info/{half % 23}/{half}").write_bytes(b"Fhalf@x\0")
    found = run("qmail_qread", home=tmp_path)
    assert found.stdout == b"29 Feb 2000 12:34:59 GMT  #%d  19  <> \n" % whole
    assert str(waiting).encode() not in found.stdout


def test_qread_warns_of_damage_and_goes_on(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    bad, lost, cut, good = (inject(queue) for _ in range(4))
    for messid in (bad, lost, cut, good):
        preprocess(queue, messid, b"Ta@x\0")
    (queue / f"info/{bad % 23}/{bad}").write_bytes(b"garbage")
    (queue / f"mess/{lost % 23}/{lost}").unlink()
    (queue / f"local/{cut % 23}/{cut}").write_bytes(b"Ta@x\0Tb")
    found = run("qmail_qread", home=tmp_path)
    lines = found.stdout.splitlines()
    assert b"warning: trouble with #%d: info: no F record" % bad in lines
    assert b"warning: trouble with #%d: No such file or directory" % lost in lines
    assert (
        b"warning: trouble with #%d: recipients: bad record at offset 5" % cut in lines
    )
    assert sum(b"  #%d  " % messid in found.stdout for messid in (cut, good)) == 2
    assert lines.count(b"\tlocal\ta@x") == 2
    assert found.returncode == 0


def test_qread_of_empty_queue_is_silent(tmp_path: Path) -> None:
    make_queue(tmp_path)
    found = run("qmail_qread", home=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


@pytest.mark.parametrize("spoiled", ["", "queue/info/0"])
def test_qread_of_unreadable_queue_is_one_line_and_111(
    tmp_path: Path, spoiled: str
) -> None:
    queue = make_queue(tmp_path)
    if spoiled:
        (tmp_path / spoiled).rmdir()
    else:
        queue.rename(tmp_path / "elsewhere")
    found = run("qmail_qread", home=tmp_path)
    assert found.returncode == 111
    assert found.stdout.startswith(b"fatal: unable to ")
    assert found.stdout.count(b"\n") == 1


def test_qread_whose_reader_leaves_ends_quietly(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    preprocess(queue, messid, b"".join(b"Tuser%d@x\0" % n for n in range(50000)))
    code = "import sys; from qsend.cli.qmail_qread import main; sys.exit(main([]))"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.root
def test_qread_and_qstat_need_no_more_than_their_accounts(open_tmp: Path) -> None:
    accounts = separate_accounts()
    queue = make_queue(open_tmp, accounts)
    messid = inject(queue, owner=accounts.qmailq)
    preprocess(queue, messid, b"Ta@x\0")
    for name in ("info", "local"):
        path = queue / f"{name}/{messid % 23}/{messid}"
        os.chown(path, accounts.qmails.uid, accounts.qmails.gid)
    stranger = accounts.qmailr
    assert as_account(accounts.qmails, "qmail_qread", open_tmp)[0] == 0
    code, said = as_account(stranger, "qmail_qread", open_tmp)
    assert code == 111
    assert said.startswith(b"fatal: unable to open the queue: Permission denied")
    # Group qmail is enough for the counts.
    assert as_account(accounts.qmails, "qmail_qstat", open_tmp)[0] == 0
    assert as_account(stranger, "qmail_qstat", open_tmp)[0] == 111


def as_account(account: Account, program: str, home: Path) -> tuple[int, bytes]:
    """(exit code, standard output) of a program run as another account."""
    read, write = os.pipe()

    def child() -> int:
        os.dup2(write, 1)
        os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
        os.environ["QSEND_HOME"] = str(home)
        drop(account)
        with open(1, "w") as sys.stdout, open(2, "w") as sys.stderr:
            return MAINS[program]([])

    pid = fork_child(child, [write])
    os.close(write)
    with open(read, "rb") as output:
        said = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def test_qstat_counts_files(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    for _ in range(3):
        inject(queue)
    preprocess(queue, inject(queue))
    inject(queue, envelope=None)
    found = run("qmail_qstat", home=tmp_path)
    assert found.stdout == (
        b"messages in queue: 5\nmessages in queue but not yet preprocessed: 3\n"
    )
    assert (found.returncode, found.stderr) == (0, b"")


def test_qstat_without_queue_says_so(tmp_path: Path) -> None:
    found = run("qmail_qstat", home=tmp_path)
    assert (found.returncode, found.stdout) == (111, b"")
    assert found.stderr.startswith(b"qmail-qstat: fatal: ")


def test_maildirmake_makes_a_maildir_for_the_owner_alone(tmp_path: Path) -> None:
    found = run("maildirmake", "box", cwd=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")
    for path in (tmp_path / "box", *(tmp_path / "box").iterdir()):
        assert path.stat().st_mode & 0o7777 == 0o700
    assert sorted(os.listdir(tmp_path / "box")) == ["cur", "new", "tmp"]
    box = mailbox.Maildir(tmp_path / "box", create=False)
    box.add(b"Subject: x\n\n")
    assert len(box) == 1
    box.close()


@pytest.mark.parametrize("args", [(), ("a", "b"), ("",)])
def test_maildirmake_with_wrong_words_is_usage(
    tmp_path: Path, args: tuple[str, ...]
) -> None:
    found = run("maildirmake", *args, cwd=tmp_path)
    assert found.returncode == 100
    assert b"usage" in found.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["there", "missing/box"])
def test_maildirmake_that_cannot_is_111(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    found = run("maildirmake", name, cwd=tmp_path)
    assert found.returncode == 111
    assert found.stderr.startswith(b"maildirmake: fatal: unable to mkdir ")
    assert name.encode() in found.stderr
