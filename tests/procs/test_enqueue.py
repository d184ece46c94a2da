"""The real enqueue process: order on disk, death, controls, drain, handover."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.core.model import Accounts
from qsend.formats import injection, startwire
from qsend.formats.frames import frame
from qsend.sysio.endpoint import pair
from qsend.sysio.handover import take_over
from tests.injecthome import (
    DEADLINE_S,
    DETACH,
    EMPTY,
    ROOT,
    EnqueueHome,
    many_accounts,
    message_frames,
    one_account,
    queue_files,
    receive,
    result,
)

GOOD = b"Fa@b\0Tc@d\0\0"
Make = Callable[..., EnqueueHome]


@pytest.fixture
def make(open_tmp: Path) -> Iterator[Make]:
    made: list[EnqueueHome] = []

    def build(
        accounts: Accounts | None = None, *, has_queue: bool = False, **controls: str
    ) -> EnqueueHome:
        home = EnqueueHome(
            open_tmp, accounts or one_account(), controls, has_queue=has_queue
        )
        made.append(home)
        return home

    yield build
    for home in made:
        home.close()


def inject(sock: socket.socket, stream: int, message: bytes = b"x\n") -> int:
    """Queue one message; returns qp."""
    sock.send(b"".join(message_frames(stream, message, GOOD)))
    answered, code, qp = result(sock)
    assert (answered, code) == (stream, 0)
    return qp


def is_over(process: subprocess.Popen[bytes]) -> int:
    return process.wait(DEADLINE_S)


def test_message_is_queued_and_send_is_told(make: Make) -> None:
    home = make()
    home.start()
    assert inject(home.connect(), 1) == os.getpid()
    (messid,) = home.queued()
    assert queue_files(home.queue)["todo"] == [messid]


def test_bounce_comes_through_the_line_to_send(make: Make) -> None:
    home = make()
    home.start()
    qp = inject_on_send(home)
    assert qp >= 1 << 22
    (messid,) = queue_files(home.queue)["todo"]
    mess = (home.queue / f"mess/{messid % 23}/{messid}").read_bytes()
    assert mess.startswith(b"Received: (qmail %d invoked for bounce); " % qp)


def inject_on_send(home: EnqueueHome) -> int:
    """A bounce from send; QUEUED and RESULT come in one packet."""
    home.send_sock.send(b"".join(message_frames(3, b"bounce\n", GOOD)))
    kinds: dict[bytes, bytes] = {}
    while injection.RESULT not in kinds or injection.QUEUED not in kinds:
        kinds |= dict(receive(home.send_sock))
    assert injection.parse_result(kinds[injection.RESULT])[:2] == (3, 0)
    return injection.parse_result(kinds[injection.RESULT])[2]


STEPS = [
    (r"openat\(\d+<[^>]*/mess/\d+>, \"\.\", .*O_TMPFILE", "unnamed file"),
    (r"linkat\([^)]*/mess/\d+>", "mess name"),
    (r"linkat\(AT_FDCWD[^)]*/intd>", "intd name"),
    (r"fsync\(\d+<[^>]*/mess/\d+(/#?\d+)?[> ]", "data"),
    (r"fsync\(\d+<[^>]*/intd>\)", "data"),
    (r"linkat\(\d+<[^>]*/intd>, \"\d+\", \d+<[^>]*/todo>", "todo name"),
    (r"fsync\(\d+<[^>]*/todo>\)", "todo durable"),
    (r"send(to|msg)\(.*=", "answer"),
]


def steps_of(trace: str) -> list[str]:
    found = []
    for line in trace.splitlines():
        if "ENOENT" in line:
            continue
        found += [name for pattern, name in STEPS if re.search(pattern, line)]
    return found


def test_order_of_durable_steps(make: Make, tmp_path: Path) -> None:
    home = make()
    trace = tmp_path / "trace"
    calls = "linkat,fsync,syncfs,unlinkat,openat,sendmsg,sendto"
    home.start("strace", "-f", "-y", "-o", str(trace), "-e", f"trace={calls}")
    begin = len(trace.read_text())
    client = home.connect()
    inject(client, 1)
    home.queued()
    steps = steps_of(trace.read_text()[begin:])
    # mess data, mess entry, intd data and intd entry, in any order, before todo.
    assert steps[:4] == ["unnamed file", "mess name", "unnamed file", "intd name"]
    assert steps[4:8] == ["data"] * 4
    assert steps[8:10] == ["todo name", "todo durable"]
    assert set(steps[10:]) == {"answer"}


@pytest.mark.parametrize(("level", "files"), [("qmail", 2), ("none", 0)])
def test_levels_below_full_sync_less(
    make: Make, tmp_path: Path, level: str, files: int
) -> None:
    home = make(durability=level)
    trace = tmp_path / "trace"
    home.start("strace", "-f", "-y", "-o", str(trace), "-e", "trace=fsync,syncfs")
    inject(home.connect(), 1)
    synced = re.findall(r"sync(?:fs)?\(\d+<([^>]*)>", trace.read_text())
    # Message and envelope; each shows by where it was made, below mess/.
    assert len(set(synced)) == len(synced) == files
    assert not [path for path in synced if os.path.isdir(path)]


def test_killed_client_leaves_nothing_and_harms_nobody(make: Make) -> None:
    home = make()
    home.start()
    client = home.connect()
    code = (
        "import os, sys; from qsend.sysio.queueclient import QueueClient\n"
        f"c = QueueClient({str(home.home)!r}); c.message(b'x' * 500000)\n"
        "os.write(1, b'.'); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.read(1) == b"."
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    inject(client, 1)
    assert len(queue_files(home.queue)["mess"]) == 1
    assert queue_files(home.queue)["pid"] == []


KILL_POINTS = [
    ("linkat", 1, EMPTY),
    ("linkat", 2, {**EMPTY, "mess": [0]}),
    ("fsync", 1, {**EMPTY, "mess": [0], "intd": [0]}),
    ("fsync", 4, {**EMPTY, "mess": [0], "intd": [0]}),
    ("linkat", 3, {**EMPTY, "mess": [0], "intd": [0]}),
    ("fsync", 5, {**EMPTY, "mess": [0], "intd": [0], "todo": [0]}),
]


@pytest.mark.parametrize(("call", "nth", "want"), KILL_POINTS)
def test_kill_at_a_system_call_leaves_s2_or_s3(
    make: Make, call: str, nth: int, want: dict[str, list[int]]
) -> None:
    """strace delivers SIGKILL at the entry of the nth such call of a message."""
    home = make()
    home.start(
        "strace", "-f", "-o", "/dev/null", "-e", f"trace={call}",
        "-e", f"inject={call}:signal=KILL:when={nth}",
    )  # fmt: skip
    client = home.connect()
    client.send(b"".join(message_frames(1, b"x\n", GOOD)))
    assert receive(client) == []
    files = queue_files(home.queue)
    assert {name: [0] * len(found) for name, found in files.items()} == want
    assert len({number for found in files.values() for number in found}) <= 1


@pytest.mark.root
def test_accounts_modes_and_groups(make: Make) -> None:
    accounts = many_accounts()
    home = make(accounts)
    process = home.start()
    status = Path(f"/proc/{process.pid}/status").read_text()
    ids = {
        name: values.split()
        for name, values in re.findall(r"^(Uid|Gid|Groups):(.*)$", status, re.M)
    }
    assert set(ids["Uid"]) == {str(accounts.qmailq.uid)}
    assert set(ids["Gid"]) == set(ids["Groups"]) == {str(accounts.qmailq.gid)}
    assert "qmail-queue: qsend" in Path(f"/proc/{process.pid}/cmdline").read_text()
    assert home.queue_program(b"Subject: x\n\n", GOOD, uid=65001) == 0
    (messid,) = home.queued()
    for name in (f"mess/{messid % 23}", "intd", "todo"):
        found = (home.queue / name / str(messid)).stat()
        assert (found.st_uid, found.st_gid) == (
            accounts.qmailq.uid,
            accounts.qmailq.gid,
        )
        assert found.st_mode & 0o7777 == 0o644
    todo = (home.queue / f"todo/{messid}").read_bytes()
    assert todo.startswith(b"u65001\0p")
    mess = (home.queue / f"mess/{messid % 23}/{messid}").read_bytes()
    assert b" invoked by uid 65001); " in mess.partition(b"\n")[0]


@pytest.mark.root
def test_stalled_client_of_another_uid_does_not_hold_up_mail(make: Make) -> None:
    home = make(many_accounts())
    home.start()
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.connect({home.path!r}); s.send(bytes.fromhex(sys.argv[1]))\n"
        "print('.', flush=True); sys.stdin.read()"
    )
    (first, *_) = injection.render_chunks(injection.MESSAGE, 1, b"x" * 20000)
    stalled = subprocess.Popen(
        [sys.executable, "-c", code, first.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=65001,
        group=65001,
        extra_groups=[],
        cwd="/",
    )
    assert stalled.stdout is not None
    assert stalled.stdin is not None
    assert stalled.stdout.readline() == b".\n"
    client = home.connect()
    for stream in range(5):
        inject(client, stream)
    assert stalled.poll() is None
    stalled.kill()
    stalled.wait()
    stalled.stdin.close()
    stalled.stdout.close()
    inject(client, 9)
    assert len(queue_files(home.queue)["mess"]) == 6


@pytest.mark.root
def test_only_bounces_and_forwards_may_use_the_last_space(make: Make) -> None:
    home = make(many_accounts(), queueminfree=str(1 << 62))
    home.start()
    assert home.queue_program(b"x", GOOD) == 53
    assert home.queue_program(b"x", GOOD, uid=65001) == 53
    assert home.queue_program(b"x", GOOD, uid=home.accounts.qmaild.uid) == 53
    assert home.queue_program(b"x", GOOD, uid=home.accounts.qmails.uid) == 0
    # A local child is a grandchild of start: here of this test, by way of sh.
    wrapper = ("sh", "-c", '"$@"; exit $?', "sh")
    assert home.queue_program(b"x", GOOD, uid=65001, wrapper=wrapper) == 0
    assert inject_on_send(home) >= 1 << 22


def test_trouble_is_logged_once(make: Make) -> None:
    home = make(queueminfree="1000000000000000")
    process = home.start()
    client = home.connect()
    for stream in range(3):
        client.send(b"".join(message_frames(stream, b"x", GOOD)))
        assert result(client)[1] == 53
    home.start_sock.close()
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    assert is_over(process) == 0
    assert [line for line in lines if b"queueminfree" in line][1:] == []
    assert lines[0].startswith(b"warning: enqueue: ")


def test_new_controls_are_used(make: Make) -> None:
    home = make()
    home.start()
    client = home.connect()
    inject(client, 1)
    files = {"queueminfree": b"1000000000000000\n", "durability": b"none\n"}
    home.tell(*startwire.render_controls(2, files))
    home.tell(*startwire.render_controls(3, files))
    client.send(b"".join(message_frames(2, b"x", GOOD)))
    # The line from start and the client's are read in any order.
    code = result(client)[1]
    if code == 0:
        client.send(b"".join(message_frames(3, b"x", GOOD)))
        code = result(client)[1]
    assert code == 53


def test_without_send_mail_is_accepted_and_the_trigger_pulled(make: Make) -> None:
    home = make()
    home.start()
    path = home.queue / "lock/trigger"
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    home.send_sock.close()
    client = home.connect()
    inject(client, 1)
    assert select.select([fifo], [], [], DEADLINE_S)[0]
    assert os.read(fifo, 10)[:1] == b"\0"
    os.close(fifo)
    # A new send takes the old one's place.
    ours, theirs = pair()
    with ours, theirs:
        socket.send_fds(
            home.start_sock, [frame(startwire.PEER, b"send")], [theirs.fileno()]
        )
        theirs.close()
        ours.send(b"".join(message_frames(1, b"x", GOOD)))
        kinds = [kind for kind, _ in receive(ours)]
        assert set(kinds) <= {injection.QUEUED, injection.RESULT}


def test_listener_on_a_socket_pair_is_from_network(make: Make) -> None:
    home = make()
    home.start()
    ours, theirs = pair()
    with ours:
        ours.settimeout(DEADLINE_S)
        socket.send_fds(
            home.start_sock, [frame(startwire.PEER, b"smtpd")], [theirs.fileno()]
        )
        theirs.close()
        inject(ours, 1)
    (messid,) = home.queued()
    mess = (home.queue / f"mess/{messid % 23}/{messid}").read_bytes()
    assert b" invoked from network); " in mess.partition(b"\n")[0]


def test_end_of_start_finishes_complete_messages_only(make: Make) -> None:
    home = make()
    process = home.start()
    complete, incomplete = home.connect(), home.connect()
    inject(complete, 1)
    (piece, *_) = injection.render_chunks(injection.MESSAGE, 1, b"x" * 20000)
    incomplete.send(piece)
    complete.send(b"".join(message_frames(2, b"x", GOOD)))
    assert result(complete)[:2] == (2, 0)
    home.start_sock.close()
    assert receive(incomplete) == []
    assert is_over(process) == 0
    files = queue_files(home.queue)
    assert len(files["mess"]) == len(files["todo"]) == 2
    assert files["pid"] == []


def test_after_detach_it_serves_until_the_next_start_takes_over(make: Make) -> None:
    home = make()
    process = home.start()
    assert take_over(home.path) is None, "it must not leave its start"
    home.tell(DETACH)
    home.start_sock.close()
    home.send_sock.close()
    client = home.connect()
    inject(client, 1)
    (piece, *_) = injection.render_chunks(injection.MESSAGE, 2, b"half")
    client.send(piece)
    listen = take_over(home.path)
    while listen is None:
        # The detached process may not have seen yet that start is gone.
        listen = take_over(home.path)
    assert listen.getsockname() == home.listen.getsockname()
    home.listen.close()
    # Nobody accepts for the moment, and clients wait in the backlog.
    waiting = home.connect()
    waiting.send(b"".join(message_frames(1, b"x", GOOD)))
    home.start(listen=listen)
    listen.close()
    assert result(waiting)[:2] == (1, 0)
    assert len(home.queued()) == 1
    # The old process still finishes what it had begun, then ends.
    assert process.poll() is None
    pieces = message_frames(2, b"", GOOD)
    client.send(b"".join(pieces))
    assert result(client)[:2] == (2, 0)
    assert receive(client) == []
    assert is_over(process) == 0
    assert len(queue_files(home.queue)["todo"]) == 3


def has_ended_after(process: subprocess.Popen[bytes], signum: int) -> bool:
    process.send_signal(signum)
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        return False
    return True


def test_term_ends_it_only_when_detached(make: Make) -> None:
    home = make()
    process = home.start()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(signum)
    client = home.connect()
    inject(client, 1)
    home.tell(DETACH)
    home.start_sock.close()
    inject(client, 2)
    # A TERM that comes before the close of start was seen counts for nothing.
    while not has_ended_after(process, signal.SIGTERM):
        assert process.poll() is None
    assert process.returncode == 0
    assert receive(client) == []


@pytest.mark.root
def test_handover_is_for_root_and_itself_only(make: Make) -> None:
    home = make(many_accounts())
    home.start()
    home.tell(DETACH)
    home.start_sock.close()
    code = (
        "import sys; from qsend.sysio.handover import take_over\n"
        "sys.exit(take_over(sys.argv[1]) is None)"
    )

    def answer(uid: int) -> int:
        return subprocess.run(
            [sys.executable, "-c", code, home.path],
            cwd=ROOT,
            user=uid,
            group=uid,
            extra_groups=[],
            check=False,
        ).returncode

    inject(home.connect(), 1)
    assert answer(65001) == 1
    assert answer(home.accounts.qmails.uid) == 1
    assert answer(home.accounts.qmailq.uid) == 0


def test_killed_process_is_replaced_on_the_same_socket(make: Make) -> None:
    home = make()
    process = home.start()
    client = home.connect()
    inject(client, 1)
    process.send_signal(signal.SIGKILL)
    is_over(process)
    assert receive(client) == []
    waiting = home.connect()
    waiting.send(b"".join(message_frames(1, b"x", GOOD)))
    home.start()
    assert result(waiting)[:2] == (1, 0)


def test_take_over_without_anybody_is_none(tmp_path: Path) -> None:
    assert take_over(str(tmp_path / "none.sock")) is None
