"""Injecting from our own programs: the enqueue process, $QMAILQUEUE, and neither."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.core.errors import PermFail, TempFail
from qsend.formats import injection
from qsend.sysio import directqueue, mailqueue, queueclient
from tests.injecthome import (
    DEADLINE_S,
    EMPTY,
    ROOT,
    EnqueueHome,
    make_queue,
    many_accounts,
    one_account,
    queue_files,
)

MESSAGE = [b"Subject: x\n", b"", b"\nbody\n"]


@pytest.fixture
def served(open_tmp: Path) -> Iterator[EnqueueHome]:
    home = EnqueueHome(open_tmp, one_account())
    home.start()
    yield home
    home.close()


@pytest.fixture
def unserved(open_tmp: Path) -> Path:
    make_queue(open_tmp, one_account().qmailq)
    return open_tmp


def stored(queue: Path) -> tuple[bytes, bytes]:
    """The one message in the queue, less its Received line, and its envelope."""
    (messid,) = queue_files(queue)["todo"]
    mess = (queue / f"mess/{messid % 23}/{messid}").read_bytes()
    return mess.partition(b"\n")[2], (queue / f"todo/{messid}").read_bytes()


def test_inject_speaks_to_enqueue_and_returns_qp(served: EnqueueHome) -> None:
    qp = mailqueue.inject(str(served.home), MESSAGE, b"a@b", [b"c@d", b"e@f"], {})
    assert qp == os.getpid()
    want = b"u%d\0p%d\0Fa@b\0Tc@d\0Te@f\0" % (os.getuid(), qp)
    assert stored(served.queue) == (b"".join(MESSAGE), want)


def test_inject_long_message_and_envelope_arrive_whole(served: EnqueueHome) -> None:
    chunks = [bytes([n]) * 100_003 for n in range(30)]
    recips = [b"user%d@example.org" % n for n in range(20000)]
    mailqueue.inject(str(served.home), chunks, b"", recips, {})
    message, envelope = stored(served.queue)
    assert message == b"".join(chunks)
    assert envelope.split(b"\0")[3:-1] == [b"T" + recip for recip in recips]


def classic_queue(home: Path, mode: int) -> None:
    """A bin/qmail-queue that keeps the message it is given."""
    (home / "bin").mkdir()
    program = home / "bin/qmail-queue"
    program.write_text("#!/bin/sh\ncat >taken; cat <&1 >>taken\n")
    program.chmod(mode)


def test_inject_runs_a_setuid_qmail_queue_when_nobody_listens(unserved: Path) -> None:
    classic_queue(unserved, 0o4755)
    mailqueue.inject(str(unserved), MESSAGE, b"a@b", [b"c@d"], {})
    want = b"".join(MESSAGE) + b"Fa@b\0Tc@d\0\0"
    assert (unserved / "taken").read_bytes() == want
    assert queue_files(unserved / "queue") == EMPTY


def test_inject_after_a_lost_listener_runs_a_setuid_qmail_queue(
    unserved: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(unserved / "run/enqueue.sock"))
    classic_queue(unserved, 0o4755)
    mailqueue.inject(str(unserved), MESSAGE, b"a@b", [b"c@d"], {})
    assert (unserved / "taken").exists()


def test_inject_runs_no_qmail_queue_of_ours(unserved: Path) -> None:
    classic_queue(unserved, 0o755)
    mailqueue.inject(str(unserved), MESSAGE, b"a@b", [b"c@d"], {})
    assert not (unserved / "taken").exists()
    assert stored(unserved / "queue")[0] == b"".join(MESSAGE)


def test_inject_prefers_enqueue_to_a_setuid_qmail_queue(served: EnqueueHome) -> None:
    classic_queue(served.home, 0o4755)
    mailqueue.inject(str(served.home), MESSAGE, b"a@b", [b"c@d"], {})
    assert not (served.home / "taken").exists()
    assert stored(served.queue)[0] == b"".join(MESSAGE)


@pytest.mark.parametrize(
    ("sender", "recip", "error", "status"),
    [
        (b"x" * 1003, b"a", PermFail, "#5.1.3"),
        (b"a", b"x" * 1003, PermFail, "#5.1.3"),
        (b"a\0b", b"x", PermFail, "#5.1.3"),
    ],
)
def test_inject_bad_address_fails_for_good(
    served: EnqueueHome, sender: bytes, recip: bytes, error: type, status: str
) -> None:
    with pytest.raises(error, match=status):
        mailqueue.inject(str(served.home), MESSAGE, sender, [recip], {})
    assert queue_files(served.queue) == EMPTY


def test_inject_failing_source_queues_nothing(served: EnqueueHome) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 200_000
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mailqueue.inject(str(served.home), chunks(), b"a", [b"b"], {})
    mailqueue.inject(str(served.home), MESSAGE, b"a", [b"b"], {})
    assert len(queue_files(served.queue)["mess"]) == 1


def test_inject_full_disk_is_temporary_and_said_early(open_tmp: Path) -> None:
    home = EnqueueHome(open_tmp, one_account(), {"queueminfree": str(1 << 62)})
    home.start()
    sent = []

    def chunks() -> Iterator[bytes]:
        for _ in range(100_000):
            sent.append(1)
            yield b"x" * 60_000

    with pytest.raises(TempFail, match=r"disk full.*#4\.3\.0"):
        mailqueue.inject(str(home.home), chunks(), b"a", [b"b"], {})
    assert len(sent) < 1000
    home.close()


def test_inject_server_dying_is_temporary(open_tmp: Path) -> None:
    home = EnqueueHome(open_tmp, one_account())
    process = home.start()

    def chunks() -> Iterator[bytes]:
        yield b"x" * 200_000
        process.kill()
        process.wait(DEADLINE_S)
        # As long as start holds the socket, a client not yet accepted would wait
        # for the next enqueue, and rightly so.
        home.listen.close()
        yield b"x" * 200_000

    with pytest.raises(TempFail, match=r"#4\.4\.2"):
        mailqueue.inject(str(home.home), chunks(), b"a", [b"b"], {})
    home.close()


@pytest.mark.parametrize("missing", ["", "queue"])
def test_inject_missing_directory_is_temporary(tmp_path: Path, missing: str) -> None:
    home = tmp_path / "home"
    if missing:
        home.mkdir()
    with pytest.raises(TempFail, match=missing or "home"):
        mailqueue.inject(str(home), MESSAGE, b"a", [b"b"], {})


def test_inject_waits_for_a_listener_to_come(
    open_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_queue(open_tmp, one_account().qmailq)
    monkeypatch.setattr(queueclient, "_may_write", lambda _home: False)
    tries: list[float] = []
    homes: list[EnqueueHome] = []

    def sleep(delay_s: float) -> None:
        tries.append(delay_s)
        if len(tries) == 3:
            homes.append(EnqueueHome(open_tmp, one_account(), has_queue=True))
            homes[0].start()

    monkeypatch.setattr(time, "sleep", sleep)
    mailqueue.inject(str(open_tmp), MESSAGE, b"a", [b"b"], {}, connect_s=30)
    assert len(tries) == 3
    homes[0].close()


def test_inject_without_a_listener_gives_up_with_71(
    unserved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueclient, "_may_write", lambda _home: False)
    with pytest.raises(TempFail, match=r"#4\.3\.0"):
        mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b"], {}, connect_s=0.2)
    client = queueclient.QueueClient(str(unserved), 0)
    with pytest.raises(queueclient.QueueStopped) as caught:
        client.commit()
    assert caught.value.code == 71


def test_owner_without_a_listener_writes_and_pulls_the_trigger(unserved: Path) -> None:
    queue = unserved / "queue"
    fifo = os.open(queue / "lock/trigger", os.O_RDONLY | os.O_NONBLOCK)
    qp = mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b"], {})
    assert qp == os.getpid()
    want = b"u%d\0p%d\0Fa\0Tb\0" % (os.getuid(), qp)
    assert stored(queue) == (b"".join(MESSAGE), want)
    assert select.select([fifo], [], [], DEADLINE_S)[0]
    assert os.read(fifo, 9) == b"\0"
    os.close(fifo)


def test_direct_write_respects_controls_and_limits(unserved: Path) -> None:
    (unserved / "control").mkdir()
    minfree = unserved / "control/queueminfree"
    minfree.write_text(str(1 << 62))
    with pytest.raises(TempFail, match="disk full"):
        mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b"], {})
    minfree.write_text("many")
    with pytest.raises(TempFail, match="configuration"):
        mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b"], {})
    minfree.unlink()
    with pytest.raises(PermFail, match=r"#5\.1\.3"):
        mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b" * 1003], {})
    (unserved / "queue/intd").rmdir()
    with pytest.raises(TempFail, match="creating files in queue"):
        mailqueue.inject(str(unserved), MESSAGE, b"a", [b"b"], {})


@pytest.mark.root
def test_root_without_a_listener_writes_as_the_queues_owner(open_tmp: Path) -> None:
    account = many_accounts().qmailq
    queue = make_queue(open_tmp, account)
    mailqueue.inject(str(open_tmp), MESSAGE, b"a", [b"b"], {})
    assert stored(queue)[1].startswith(b"u0\0")
    for path in [*queue.glob("mess/*/*"), *queue.glob("intd/*"), *queue.glob("todo/*")]:
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (account.uid, account.gid)
        assert found.st_mode & 0o7777 == 0o644
    assert os.geteuid() == 0


@pytest.mark.root
def test_single_user_writes_his_own_queue_and_nobody_elses(open_tmp: Path) -> None:
    account = many_accounts().alias
    queue = make_queue(open_tmp, account)
    code = (
        "import sys; from qsend.sysio.mailqueue import inject\n"
        f"inject({str(open_tmp)!r}, [b'x'], b'a', [b'b'], {{}}, connect_s=0.1)"
    )

    def run(uid: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            user=uid,
            group=account.gid,
            extra_groups=[],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode

    assert run(account.uid + 1) == 1
    assert queue_files(queue) == EMPTY
    assert run(account.uid) == 0
    (messid,) = queue_files(queue)["todo"]
    assert (queue / f"todo/{messid}").stat().st_uid == account.uid


def test_writer_whose_parent_dies_leaves_nothing(unserved: Path) -> None:
    sock, pid = directqueue.open_writer(str(unserved))
    (piece, *_) = mailqueue_frames(b"x" * 50000)
    sock.send(piece)
    sock.close()
    assert os.waitpid(pid, 0)[1] == 0
    assert queue_files(unserved / "queue") == EMPTY


def mailqueue_frames(data: bytes) -> list[bytes]:
    return list(injection.render_chunks(injection.MESSAGE, 0, data))


def test_long_home_path_can_be_connected(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    listen = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.open(folder, os.O_PATH)
    listen.bind(f"/proc/self/fd/{fd}/s")
    os.close(fd)
    listen.listen()
    with listen:
        queueclient.connect(str(folder / "s"), 1).close()
    with pytest.raises(ConnectionRefusedError):
        queueclient.connect(str(folder / "s"), 1)


def test_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listen:
        listen.bind(path)
        listen.listen(0)
        waiting = [queueclient.connect(path, 1)]
        with pytest.raises(BlockingIOError):
            queueclient.connect(path, 1)
        thread = threading.Thread(
            target=lambda: waiting.append(queueclient.connect(path, 10))
        )
        thread.start()
        accepted = [listen.accept()[0], listen.accept()[0]]
        thread.join()
        for sock in (*waiting, *accepted):
            sock.close()


# $QMAILQUEUE

Program = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(script: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def inject_by(program: str, home: Path, chunks: list[bytes] | None = None) -> int:
    environ = {"QMAILQUEUE": program, "PATH": os.environ["PATH"], "MARK": "m"}
    return mailqueue.inject(str(home), chunks or MESSAGE, b"a@b", [b"c@d"], environ)


def test_program_gets_message_envelope_and_environment(
    program: Program, tmp_path: Path
) -> None:
    path = program(
        "cat >message; cat <&1 >envelope 3>&1 || exit 54\n"
        'echo "$0 $# $MARK $$ $(pwd)" >args'
    )
    # Descriptor 1 is an input here; cat <&1 reads it.
    qp = inject_by(path, tmp_path)
    assert (tmp_path / "message").read_bytes() == b"".join(MESSAGE)
    assert (tmp_path / "envelope").read_bytes() == b"Fa@b\0Tc@d\0\0"
    assert (tmp_path / "args").read_text() == f"{path} 0 m {qp} {tmp_path}\n"


READ_ALL = "cat >/dev/null; cat <&1 >/dev/null; "
CODES = [
    (READ_ALL + "exit 0", None, ""),
    ("exit 0", TempFail, "#4.3.0"),
    (READ_ALL + "exit 11", PermFail, "#5.1.3"),
    (READ_ALL + "exit 115", PermFail, "#5.1.3"),
    (READ_ALL + "exit 31", PermFail, "#5.3.0"),
    (READ_ALL + "exit 40", PermFail, "#5.3.0"),
    (READ_ALL + "exit 41", TempFail, "#4.3.0"),
    (READ_ALL + "exit 53", TempFail, "#4.3.0"),
    (READ_ALL + "exit 71", TempFail, "#4.3.0"),
    (READ_ALL + "exit 72", TempFail, "#4.4.1"),
    (READ_ALL + "exit 73", TempFail, "#4.4.1"),
    (READ_ALL + "exit 74", TempFail, "#4.4.2"),
    (READ_ALL + "exit 120", TempFail, "#4.3.0"),
    (READ_ALL + "kill -9 $$", TempFail, "#4.3.0"),
    (READ_ALL + "echo 'Dgo away (#5.7.1)' >&6; exit 82", PermFail, "^go away .#5.7.1"),
    (READ_ALL + "printf 'Zlater' >&6; exit 82", TempFail, "^later$"),
    (READ_ALL + "printf 'D' >&6; exit 82", TempFail, "#4.3.0"),
    (READ_ALL + "printf 'hello' >&6; exit 82", TempFail, "#4.3.0"),
    (READ_ALL + "exit 82", TempFail, "#4.3.0"),
]


@pytest.mark.parametrize(("script", "error", "status"), CODES)
def test_program_exit_codes(
    program: Program,
    tmp_path: Path,
    script: str,
    error: type[Exception] | None,
    status: str,
) -> None:
    path = program(script)
    # More than a pipe holds: a program that does not read cannot look as if.
    chunks = [b"x" * 70_000, b"y" * 70_000]
    if error is None:
        assert inject_by(path, tmp_path, chunks) > 0
        return
    with pytest.raises(error, match=status):
        inject_by(path, tmp_path, chunks)


def test_program_custom_text_is_cut_at_255(program: Program, tmp_path: Path) -> None:
    path = program(READ_ALL + "head -c 100000 /dev/zero | tr '\\0' D >&6; exit 82")
    with pytest.raises(PermFail) as caught:
        inject_by(path, tmp_path)
    assert str(caught.value) == "D" * 254


def test_program_that_cannot_run_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for name in ("none", "text"):
        with pytest.raises(TempFail, match="unable to exec qq"):
            inject_by(str(tmp_path / name), tmp_path)
    with pytest.raises(TempFail, match="home"):
        inject_by("/bin/true", tmp_path / "none")


def test_program_sees_an_early_end_when_the_source_fails(
    program: Program, tmp_path: Path
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    path = program("cat >message; cat <&1 >envelope")
    with pytest.raises(ZeroDivisionError):
        mailqueue.inject(str(tmp_path), chunks(), b"a", [b"b"], {"QMAILQUEUE": path})
    assert (tmp_path / "message").read_bytes() == b"half"
    assert (tmp_path / "envelope").read_bytes() == b""


def test_program_name_is_relative_to_the_home(program: Program, tmp_path: Path) -> None:
    program(READ_ALL + "exit 0")
    assert inject_by("./program", tmp_path) > 0
