"""qmail-qmqpc against servers that take, refuse, stall and break off."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.qmqpserver import (
    Scripted,
    answering,
    behaving,
    closed_port,
    read_netstring,
)

ROOT = Path(__file__).parents[2]
ENVELOPE = b"Fa@b\0Tc@d\0Te@f\0\0"
MESSAGE = b"Subject: x\n\ny\n"
REQUEST = b"14:Subject: x\n\ny\n,3:a@b,3:c@d,3:e@f,"
OK = b"Kok 1 qp 2"
ENOUGH = threading.Event()
QUICK = (
    "from qsend.sysio import qmqpclient\n"
    "qmqpclient.CONNECT_S = qmqpclient.STEP_S = 0.3\n"
)


def run(
    home: Path,
    *servers: str | Scripted,
    message: bytes = MESSAGE,
    envelope: bytes = ENVELOPE,
    before: str = "",
    env: dict[str, str] | None = None,
) -> int:
    """Run qmail-qmqpc for these servers; its exit code. It says nothing."""
    (home / "control").mkdir(exist_ok=True)
    lines = [
        each if isinstance(each, str) else f"127.0.0.1:{each.port}" for each in servers
    ]
    (home / "control/qmqpservers").write_text("".join(f"{each}\n" for each in lines))
    return call(home, message, envelope, before, env)


def call(
    home: Path | str,
    message: bytes = MESSAGE,
    envelope: bytes = ENVELOPE,
    before: str = "",
    env: dict[str, str] | None = None,
) -> int:
    main = f"import sys\n{before}\nfrom qsend.cli.qmail_qmqpc import main\n"
    reading, writing = os.pipe()
    if len(envelope) > 65536:
        os.close(reading)
        os.close(writing)
        reading = os.memfd_create("envelope")
        os.write(reading, envelope)
        os.lseek(reading, 0, os.SEEK_SET)
    else:
        os.write(writing, envelope)
        os.close(writing)
    try:
        done = subprocess.run(
            [sys.executable, "-c", main + "sys.exit(main([]))"],
            input=message,
            stdout=reading,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(home), **(env or {})},
            timeout=60,
            check=False,
        )
    finally:
        os.close(reading)
    assert done.stderr == b""
    return done.returncode


def netstring(text: bytes) -> bytes:
    return b"%d:%b," % (len(text), text)


def test_first_server_that_takes_it_gets_it(tmp_path: Path) -> None:
    with answering(netstring(OK)) as first, answering(netstring(OK)) as second:
        assert run(tmp_path, "# ours", first, second) == 0
        assert (first.requests, second.requests) == ([REQUEST], [])


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (netstring(b"Kok"), 0),
        (b"0003:K", 0),
        (netstring(b"Zlater (#4.3.0)"), 71),
        (netstring(b"Dnever (#5.3.0)"), 31),
        (b"", 74),
        (b"1", 74),
        (b"0:,", 74),
        (netstring(b"what"), 74),
        (b"K", 74),
        (b"99999:K", 74),
        (b"\0" * 10_000, 74),
    ],
)
def test_answers(tmp_path: Path, answer: bytes, code: int) -> None:
    with answering(answer) as server:
        assert run(tmp_path, server) == code
        assert server.requests == [REQUEST]


def leave(client: socket.socket) -> None:
    """Hang up at once."""


def leave_midway(client: socket.socket) -> None:
    client.recv(10)


def leave_after_all(client: socket.socket) -> None:
    read_netstring(client)


def stall(client: socket.socket) -> None:
    """Read all, and say nothing until the client leaves."""
    read_netstring(client)
    client.recv(1)


def take_nothing(_client: socket.socket) -> None:
    """Keep the connection open until the test has seen enough."""
    ENOUGH.wait(60)


def is_gone(client: socket.socket) -> bool:
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] != 1  # TCP_ESTABLISHED


def trickle(client: socket.socket) -> None:
    read_netstring(client)
    while not is_gone(client):
        client.sendall(b"0")
        client.settimeout(0.05)
        try:
            client.recv(1)
        except TimeoutError:
            continue


def say_no_at_once(client: socket.socket) -> None:
    client.sendall(netstring(b"Dgo away (#5.7.1)"))
    client.shutdown(socket.SHUT_WR)
    while client.recv(65536):
        pass


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (leave, 74),
        (leave_midway, 74),
        (leave_after_all, 74),
        (stall, 74),
        (take_nothing, 74),
        (trickle, 74),
        (say_no_at_once, 31),
    ],
)
def test_server_that_fails_after_the_connection_makes_way_for_the_next(
    tmp_path: Path, behave: object, code: int
) -> None:
    long = MESSAGE + b"x" * 20_000_000
    ENOUGH.clear()
    with behaving(behave) as bad, answering(netstring(OK)) as good:  # type: ignore[arg-type]
        assert run(tmp_path, bad, message=long, before=QUICK) == code
        assert run(tmp_path, bad, good, message=long, before=QUICK) == (
            31 if code == 31 else 0
        )
        ENOUGH.set()
        assert len(good.requests) == (code != 31)
        for request in good.requests:
            assert request == b"20000014:%b,3:a@b,3:c@d,3:e@f," % long


def test_dead_servers_make_way_for_the_next(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{closed_port()}"
    unknown = "no-such-host.invalid"
    assert run(tmp_path, dead) == 73
    assert run(tmp_path, unknown) == 56
    with answering(netstring(OK)) as good:
        assert run(tmp_path, dead, unknown, "not a host", good) == 0


def test_server_that_is_full_makes_way_and_one_that_refuses_does_not(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(answering(netstring(b"Zfull (#4.3.0)")))
        good = stack.enter_context(answering(netstring(OK)))
        never = stack.enter_context(answering(netstring(b"Dnever (#5.3.0)")))
        assert run(tmp_path, full, good) == 0
        assert run(tmp_path, full, never, good) == 31
        assert run(tmp_path, full, f"127.0.0.1:{closed_port()}") == 71
        assert (len(good.requests), len(never.requests)) == (1, 1)


def test_connection_that_is_never_accepted_times_out(tmp_path: Path) -> None:
    with socket.socket() as sock, ExitStack() as stack:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        for _ in range(3):  # more than the backlog takes
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        assert run(tmp_path, f"127.0.0.1:{port}", before=QUICK) == 72


def test_names_ports_and_ipv6(tmp_path: Path) -> None:
    with answering(netstring(OK), "::1") as six, answering(netstring(OK)) as four:
        assert run(tmp_path, f"[::1]:{six.port}") == 0
        assert run(tmp_path, f"localhost:{four.port}") == 0
        assert (len(six.requests), len(four.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"F\0Ta\0\0", 0),
        (b"Fa\0\0", 0),
        (b"Fa\0Tb\0\0trailing", 0),
        (b"F" + b"x" * 1002 + b"\0Tb\0\0", 0),
        (b"F" + b"x" * 1003 + b"\0Tb\0\0", 11),
        (b"Fa\0T" + b"x" * 5000 + b"\0\0", 11),
        (b"Xa\0Tb\0\0", 91),
        (b"Fa\0Xb\0\0", 91),
        (b"Fa\0Tb\0", 54),
        (b"Fa\0Tb", 54),
        (b"", 54),
    ],
)
def test_envelopes(tmp_path: Path, envelope: bytes, code: int) -> None:
    with answering(netstring(OK)) as server:
        assert run(tmp_path, server, envelope=envelope) == code
        assert len(server.requests) == (code == 0)


def test_many_recipients_are_all_handed_on(tmp_path: Path) -> None:
    recips = [b"user%d@example.org" % number for number in range(20_000)]
    envelope = b"F\0" + b"".join(b"T%b\0" % each for each in recips) + b"\0"
    with answering(netstring(OK)) as server:
        assert run(tmp_path, server, envelope=envelope, message=b"") == 0
        want = b"0:,0:," + b"".join(map(netstring, recips))
        assert server.requests == [want]


def test_long_message_is_not_kept_in_memory(tmp_path: Path) -> None:
    peak = (
        "import atexit, os, re\n"
        "def check():\n"
        "    status = open('/proc/self/status').read()\n"
        "    peak = int(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])\n"
        "    if peak > 40 * 1024: os._exit(99)\n"
        "atexit.register(check)\n"
    )
    with answering(netstring(OK)) as server:
        message = b"x" * (64 << 20)
        assert run(tmp_path, server, message=message, before=peak) == 0


def test_what_is_longer_than_any_server_takes_is_refused(tmp_path: Path) -> None:
    short = "from qsend.cli import qmail_qmqpc\nqmail_qmqpc.LENGTH_MAX = 35\n"
    with answering(netstring(OK)) as server:
        assert run(tmp_path, server, before=short) == 31
        assert server.requests == []


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "a b c\n"])
def test_without_servers_it_says_so(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "control").mkdir()
        (tmp_path / "control/qmqpservers").write_text(content)
    assert call(tmp_path) == 55


def test_other_exit_codes(tmp_path: Path) -> None:
    assert call("/nonexistent") == 61
    (tmp_path / "control/qmqpservers").mkdir(parents=True)
    assert call(tmp_path) == 55
    (tmp_path / "control/qmqpservers").rmdir()
    nowhere = (
        "from qsend.sysio import qmqpclient\n"
        "def fail(place): raise OSError\n"
        "qmqpclient._unnamed_in = fail\n"
    )
    assert run(tmp_path, "127.0.0.1", before=nowhere) == 53


def test_file_system_without_unnamed_files_will_do(tmp_path: Path) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    none = "import os\nos.O_TMPFILE = os.O_DIRECTORY | os.O_CREAT | os.O_EXCL\n"
    with answering(netstring(OK)) as server:
        assert run(tmp_path, server, before=none, env={"TMPDIR": str(place)}) == 0
        assert server.requests == [REQUEST]
    assert list(place.iterdir()) == []
