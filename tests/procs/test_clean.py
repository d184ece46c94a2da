"""clean as a real process: what it removes, as whom, and how it ends."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from qsend.core.model import Account, FileIdentity, MessId
from qsend.formats import cleanwire, frames, startwire
from qsend.formats.cleanwire import Answer
from qsend.sysio.fork import fork_child
from qsend.sysio.fsq import Queue
from qsend.sysio.privilege import drop
from tests.fakes import present
from tests.procs.cleanprocess import running
from tests.queues import inject, make_queue, own_accounts, separate_accounts

ME = own_accounts().qmailq


def found(queue: Path, messid: MessId) -> frozenset[str]:
    files = {str(path.relative_to(queue)) for path in queue.rglob("*")}
    return present(files, messid)


def identity(queue: Path, messid: MessId) -> FileIdentity:
    opened = Queue(str(queue))
    try:
        return opened.stat_mess(messid)
    finally:
        opened.close()


def done(op: bytes, messid: MessId) -> Answer:
    return Answer(op=op, messid=messid, errno=0)


def test_clean_answers_each_request_of_a_packet_in_order(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    first, second, third = (inject(queue) for _ in range(3))
    stale = FileIdentity(mtime_ns=1, size=1)
    with running(tmp_path, ME) as clean:
        assert clean.is_ready()
        clean.ask(
            cleanwire.render_foop(first, identity(queue, first)),
            cleanwire.render_todo(second),
            cleanwire.render_aside(third, 7, b"bad\nfile"),
            cleanwire.render_foop(second, stale),
        )
        assert clean.answers(4) == [
            done(cleanwire.FOOP, first),
            done(cleanwire.TODO, second),
            done(cleanwire.ASIDE, third),
            Answer(op=cleanwire.FOOP, messid=second, errno=errno.ESTALE),
        ]
        assert clean.end() == 0
    assert found(queue, first) == set()
    assert found(queue, second) == {"mess"}
    assert found(queue, third) == set()
    assert (queue / f"aside/{third}.7/reason").read_text() == "bad file\n"


def test_clean_finishes_what_it_received_when_send_goes_away(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messids = [inject(queue) for _ in range(50)]
    identities = {messid: identity(queue, messid) for messid in messids}
    with running(tmp_path, ME) as clean:
        for messid in messids:
            clean.ask(cleanwire.render_foop(messid, identities[messid]))
        clean.send.close()
        assert clean.wait() == 0
    assert [messid for messid in messids if found(queue, messid)] == []


def test_clean_ends_when_start_goes_away(tmp_path: Path) -> None:
    make_queue(tmp_path)
    with running(tmp_path, ME) as clean:
        clean.start.close()
        assert clean.wait() == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_clean_survives_signals_meant_for_the_tree(
    tmp_path: Path, signum: signal.Signals
) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    with running(tmp_path, ME) as clean:
        clean.process.send_signal(signum)
        clean.ask(cleanwire.render_foop(messid, identity(queue, messid)))
        assert clean.answers(1) == [done(cleanwire.FOOP, messid)]
        assert clean.end() == 0


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        frames.frame(b"Z", b""),
        frames.frame(cleanwire.TODO, b"1234567"),
        frames.frame(cleanwire.TODO, b"123456789"),
        frames.frame(cleanwire.FOOP, b"\0" * 25),
        frames.frame(cleanwire.ASIDE, b"\0" * 16 + b"\0\0\1\0abc"),
    ],
)
def test_clean_drops_a_send_that_speaks_garbage(tmp_path: Path, packet: bytes) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    with running(tmp_path, ME) as clean:
        clean.send.send(packet)
        assert clean.answers(1) == []
        assert clean.wait() == 0
    assert found(queue, messid) == {"mess", "intd", "todo"}


def test_clean_sweeps_pid_at_its_start(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    (queue / "pid/young").write_bytes(b"")
    # Real files cannot be made 36 hours old: ctime is the kernel's. The sweep's
    # arithmetic is in the contract tests; here: it runs, and spares the young.
    os.utime(queue / "pid/young", (0, 0))
    with running(tmp_path, ME) as clean:
        assert clean.is_ready()
        assert clean.end() == 0
    assert (queue / "pid/young").exists()


def test_clean_without_queue_is_fatal_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path, ME) as clean:
        assert not clean.is_ready()
        assert clean.wait() == 1  # start's fork turns the Fatal into 111
        assert "unable to open" in clean.said()


def test_clean_whose_directory_is_read_only_reports_the_error(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    meant = identity(queue, messid)
    (queue / "todo").rename(queue / "todo.gone")
    with running(tmp_path, ME) as clean:
        clean.ask(cleanwire.render_foop(messid, meant))
        [answer] = clean.answers(1)
        assert answer == Answer(op=cleanwire.FOOP, messid=messid, errno=errno.ENOENT)
        (queue / "todo.gone").rename(queue / "todo")
        clean.ask(cleanwire.render_foop(messid, meant))
        assert clean.answers(1) == [done(cleanwire.FOOP, messid)]
        assert clean.end() == 0
    assert found(queue, messid) == set()


@pytest.mark.root
def test_clean_is_qmailq_and_nothing_else(open_tmp: Path) -> None:
    accounts = separate_accounts()
    queue = make_queue(open_tmp, accounts)
    messid = inject(queue, owner=accounts.qmailq)
    secret = queue / f"info/{messid % 23}/{messid}"
    secret.write_bytes(b"Fa@x\0")
    secret.chmod(0o666)
    with running(open_tmp, accounts.qmailq) as clean:
        clean.ask(cleanwire.render_todo(messid))
        assert clean.answers(1) == [done(cleanwire.TODO, messid)]
        process = psutil.Process(clean.process.pid)
        want = accounts.qmailq
        assert set(process.uids()) == {want.uid}
        assert set(process.gids()) == {want.gid}
        groups = Path(f"/proc/{process.pid}/status").read_text()
        assert f"\nGroups:\t{want.gid} \n" in groups
        assert "\nNoNewPrivs:\t1\n" in groups
        assert "qmail-clean: qsend" in " ".join(process.cmdline())
        clean.ask(cleanwire.render_aside(messid, 3, b"why"))
        assert clean.answers(1) == [done(cleanwire.ASIDE, messid)]
        assert clean.end() == 0
    assert found(queue, messid) == {"info"}
    place = queue / f"aside/{messid}.3"
    stat = place.stat()
    assert (stat.st_uid, stat.st_gid) == (want.uid, want.gid)
    assert stat.st_mode & 0o7777 == 0o770


@pytest.mark.root
def test_send_moves_its_files_to_where_clean_put_the_rest(open_tmp: Path) -> None:
    accounts = separate_accounts()
    queue = make_queue(open_tmp, accounts)
    messid = inject(queue, owner=accounts.qmailq)
    info = queue / f"info/{messid % 23}/{messid}"
    info.write_bytes(b"damaged")
    os.chown(info, accounts.qmails.uid, accounts.qmails.gid)
    with running(open_tmp, accounts.qmailq) as clean:
        clean.ask(cleanwire.render_aside(messid, 3, b"info"))
        assert clean.answers(1) == [done(cleanwire.ASIDE, messid)]
    run_as(accounts.qmails, lambda: move_aside(queue, messid))
    place = queue / f"aside/{messid}.3"
    names = sorted(path.name for path in place.iterdir())
    assert names == ["info", "intd", "mess", "reason", "todo"]
    assert found(queue, messid) == set()


def move_aside(queue: Path, messid: MessId) -> None:
    opened = Queue(str(queue))
    assert opened.move_aside(messid, 3) == {"info"}


def run_as(account: Account, work: Callable[[], None]) -> None:
    """Do `work` in a forked process of another account."""

    def child() -> int:
        drop(account)
        work()
        return 0

    assert os.waitpid(fork_child(child, ()), 0)[1] == 0


def test_clean_takes_new_controls_and_keeps_serving(tmp_path: Path) -> None:
    queue = make_queue(tmp_path)
    messid = inject(queue)
    with running(tmp_path, ME) as clean:
        for frame in startwire.render_controls(2, {"durability": b"none\n"}):
            clean.start.send(frame)
        clean.ask(cleanwire.render_foop(messid, identity(queue, messid)))
        assert clean.answers(1) == [done(cleanwire.FOOP, messid)]
        assert clean.end() == 0
