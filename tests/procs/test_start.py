"""start over real forks with fake children: order, descriptors, restarts, ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qsend.sysio.unixsocket import connect_to
from tests.procs.family import FAKES, Event, Tree, gone, make_home, until

ORDER = ["enqueue", "lookup", "clean", "lspawn", "remote0", "remote1", "send"]
Opener = Callable[..., Tree]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path)
    return tmp_path


@pytest.fixture
def tree(home: Path) -> Iterator[Opener]:
    opened: list[Tree] = []

    def start(**options: object) -> Tree:
        made = Tree(home, **options)  # type: ignore[arg-type]
        opened.append(made)
        return made

    yield start
    for made in opened:
        made.close()


def by_role(events: list[Event]) -> dict[object, Event]:
    return {event["role"]: event for event in events}


def test_children_are_forked_in_order_with_their_own_descriptors(tree: Opener) -> None:
    boots = tree().wait("boot", 7)
    assert [boot["role"] for boot in sorted(boots, key=Tree.pid_of)] == ORDER
    socks = {boot["role"]: boot["socks"] for boot in boots}
    assert socks == {
        "enqueue": ["listen", "send", "start"],
        "lookup": ["lspawn", "start"],
        "clean": ["send", "start"],
        "lspawn": ["lookup", "send", "start"],
        "remote0": ["send", "start"],
        "remote1": ["send", "start"],
        "send": [
            "clean", "control", "enqueue", "lspawn", "remote0", "remote1", "start",
        ],
    }  # fmt: skip
    for boot in boots:
        want, found = boot["want"], boot["fds"]
        assert isinstance(want, list)
        assert isinstance(found, list)
        # send and clean hold the queue's lock, and nobody anything else.
        extra = set(found) - {0, 1, 2, *want}
        assert len(extra) == (1 if boot["role"] in ("send", "clean") else 0), boot
        assert set(want) < set(found)
        assert boot["cwd"] == "/"
        assert boot["null"] == "/dev/null"
        assert boot["same_log"]
        assert boot["leads"]
        assert boot["generation"] == 1


def test_every_pair_of_peers_is_joined(tree: Opener) -> None:
    met = tree().wait("met", 12)
    assert {(event["role"], event["name"], event["says"]) for event in met} == {
        pair
        for one, other in (
            ("send", "enqueue"), ("send", "clean"), ("send", "lspawn"),
            ("send", "remote0"), ("send", "remote1"), ("lspawn", "lookup"),
        )
        for pair in ((one, other, other), (other, one, one))
    }  # fmt: skip


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stop_ends_send_first_and_everybody(tree: Opener, signum: int) -> None:
    made = tree()
    pids = made.up()
    os.kill(made.pid, signum)
    assert made.wait("signal", word="term")[0]["role"] == "send"
    closed = made.wait("closed", 6)
    assert {event["role"] for event in closed} == set(ORDER) - {"send"}
    assert made.end() == 0
    assert made.log == b""
    assert all(map(gone, pids.values()))
    run = made.home / "run"
    assert os.listdir(run) == []


def test_killed_child_is_replaced_and_its_peers_meet_it_anew(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    for role, name in (
        ("remote1", b"qmail-remote"),
        ("enqueue", b"qmail-queue"),
        ("lookup", b"qmail-lookup"),
        ("lspawn", b"qmail-lspawn"),
    ):
        os.kill(pids[role], signal.SIGKILL)
        made.wait("boot", role=role)
        wanted = {(peer, role) for peer in PEERS[role]}
        while wanted:
            event = next(made.events())
            if event["what"] == "met" and event["pid"] in pids.values():
                wanted.discard((event["role"], event["says"]))
        made.wait_log(
            b"warning: lost %b (killed by signal 9), starting it again\n" % name
        )


PEERS = {
    "remote1": ["send"],
    "enqueue": ["send"],
    "lookup": ["lspawn"],
    "lspawn": ["send"],
}
"""Who was there all the time; lspawn's other peer has been replaced by then."""


@pytest.mark.parametrize("victim", ["send", "clean"])
def test_send_and_clean_restart_as_a_pair(tree: Opener, victim: str) -> None:
    made = tree()
    pids = made.up()
    other = "clean" if victim == "send" else "send"
    os.kill(pids[victim], signal.SIGKILL)
    told = "closed" if other == "clean" else "signal"
    [event] = made.wait(told)
    assert event["role"] == other
    boots = made.wait("boot", 2)
    assert [boot["role"] for boot in sorted(boots, key=Tree.pid_of)] == [
        "clean",
        "send",
    ]
    # Both old ones had ended before a new one began.
    assert gone(pids["clean"])
    assert gone(pids["send"])
    met = made.wait("met", 10)
    assert {("clean", "send"), ("send", "clean"), ("remote0", "send")} <= {
        (event["role"], event["name"]) for event in met
    }


def test_new_pair_waits_for_an_old_one_that_hangs(tree: Opener, home: Path) -> None:
    (home / "clean.hangs").touch()
    made = tree()
    pids = made.up()
    os.kill(pids["send"], signal.SIGKILL)
    made.wait("closed", role="clean")
    made.wait_log(b"warning: qmail-clean does not end, killing it\n")
    assert {boot["role"] for boot in made.wait("boot", 2)} == {"clean", "send"}
    assert gone(pids["clean"])
    (home / "clean.hangs").unlink()


def test_restarts_are_braked(tree: Opener) -> None:
    made = tree(pace=0.1)
    pids = made.up()
    pid = pids["lookup"]
    stamps = []
    for _ in range(4):
        os.kill(pid, signal.SIGKILL)
        ended = os.times().elapsed
        [event] = made.wait("ready", role="lookup")
        stamps.append(os.times().elapsed - ended)
        pid = made.pid_of(event)
    # 0, 1, 2, 4 seconds at a tenth of the pace.
    for waited, delay in zip(stamps, (0.0, 0.1, 0.2, 0.4), strict=True):
        assert waited >= delay - 0.02


def test_child_that_never_boots_stops_the_tree(tree: Opener, home: Path) -> None:
    (home / "lookup.fails").touch()
    made = tree(pace=0.02)
    assert made.end() == 111
    lines = made.log.splitlines()
    assert lines.count(b"alert: qmail-lookup: cannot boot") == 5
    assert lines[-1] == (
        b"alert: cannot start: qmail-lookup ended before it was ready, again and again;"
        b" giving up"
    )


def test_second_start_refuses_and_leaves_the_first_alone(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made_home = made.home
    (made_home / "events").rename(made_home / "first")
    second = tree()
    assert second.end() == 111
    assert second.log == b"alert: cannot start: qmail-send is already running\n"
    (made_home / "events").unlink()
    (made_home / "first").rename(made_home / "events")
    os.kill(pids["send"], 0)
    connect_to(str(made_home / "run/control.sock")).close()


def test_lock_outlives_a_killed_start_until_its_heirs_end(
    tree: Opener, home: Path
) -> None:
    (home / "clean.hangs").touch()
    made = tree()
    pids = made.up()
    os.kill(made.pid, signal.SIGKILL)
    made.wait("closed", 7)
    second = subprocess.run(
        [sys.executable, "-c", LOCK, str(home)], capture_output=True, check=False
    )
    assert second.stdout == b"cannot start: qmail-send is already running\n"
    os.kill(pids["clean"], signal.SIGKILL)
    assert made.end() == -signal.SIGKILL
    assert gone(pids["send"])
    assert gone(pids["clean"])
    third = subprocess.run(
        [sys.executable, "-c", LOCK, str(home)], capture_output=True, check=False
    )
    assert third.stdout == b"locked\n"


LOCK = """
import sys
from qsend.core.errors import Fatal
from qsend.sysio.runlock import lock_queue
try:
    lock_queue(sys.argv[1] + "/queue")
    print("locked")
except Fatal as exc:
    print(exc)
"""


def test_good_controls_reach_everybody_who_may_know_them(
    tree: Opener, home: Path
) -> None:
    made = tree()
    pids = made.up()
    (home / "control/timeoutterm").write_text("7\n")
    (home / "control/virtualdomains").write_text("v.example:joe\n")
    (home / "control/sqlserver").write_text("secret\n")
    os.kill(made.pid, signal.SIGHUP)
    told = by_role(made.wait("controls", 7))
    assert set(told) == set(ORDER)
    assert {event["generation"] for event in told.values()} == {2}
    assert told["clean"]["files"] == ["me"]
    assert told["remote0"]["files"] == ["me", "timeoutterm"]
    assert told["send"]["files"] == ["me", "timeoutterm", "virtualdomains"]
    os.kill(pids["remote0"], signal.SIGKILL)
    [boot] = made.wait("boot", role="remote0")
    assert (boot["generation"], boot["term"]) == (2, 7)


def test_bad_controls_change_nothing(tree: Opener, home: Path) -> None:
    made = tree()
    pids = made.up()
    (home / "control/timeoutterm").write_text("7\n")
    (home / "control/virtualdomains").write_text("a:b\n\nbad\n")
    os.kill(made.pid, signal.SIGHUP)
    made.wait_log(
        b"alert: unable to reread controls: control/virtualdomains:3: "
        b"expected key:value, found no colon\n"
    )
    os.kill(pids["remote0"], signal.SIGKILL)
    [boot] = made.wait("boot", role="remote0")
    assert (boot["generation"], boot["term"]) == (1, 60)
    assert not [event for event in made.seen if event["what"] == "controls"]


def test_send_may_ask_for_a_reload(tree: Opener) -> None:
    made = tree()
    made.ask(made.up()["send"], b"reload")
    assert {event["generation"] for event in made.wait("controls", 7)} == {2}
    made.wait_log(b"reread controls: generation 2\n")


def test_alarm_is_passed_to_send(tree: Opener) -> None:
    made = tree()
    made.up()
    os.kill(made.pid, signal.SIGALRM)
    assert made.wait("signal")[0]["word"] == "alrm"


def test_stop_leaves_enqueue_running_and_stop_all_does_not(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"stop")
    made.wait("detached", role="enqueue")
    # Its log line is still open: only the others have ended.
    assert made.wait("closed", role="enqueue")
    code = os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1])
    made.code = code
    assert code == 0
    assert all(gone(pid) for role, pid in pids.items() if role != "enqueue")
    os.kill(pids["enqueue"], 0)
    assert os.listdir(made.home / "run") == ["enqueue.sock"]
    os.kill(pids["enqueue"], signal.SIGKILL)
    assert gone(pids["enqueue"])


def test_send_may_ask_to_stop_all(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"stop-all")
    assert made.end() == 0
    assert all(map(gone, pids.values()))


def test_stragglers_are_killed_after_their_grace(tree: Opener, home: Path) -> None:
    (home / "control/timeoutterm").write_text("0\n")
    for role in ("send", "lookup"):
        (home / f"{role}.hangs").touch()
    made = tree(pace=0.02)
    pids = made.up()
    os.kill(made.pid, signal.SIGTERM)
    assert made.end() == 0
    assert made.log.splitlines() == [
        b"warning: qmail-send does not end, killing it",
        b"warning: qmail-lookup does not end, killing it",
    ]
    assert all(map(gone, pids.values()))


def test_isolated_remote_is_given_to_send_and_not_started_again(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"isolated")
    [boot] = made.wait("boot", role="isolated")
    assert boot["socks"] == ["send", "start"]
    met = made.wait("met", 2)
    assert {(event["role"], event["name"]) for event in met} == {
        ("isolated", "send"), ("send", "isolated"),
    }  # fmt: skip
    os.kill(made.pid_of(boot), signal.SIGKILL)
    made.wait("lost", role="send", name="isolated")
    made.ask(pids["send"], b"stop-all")
    assert made.end() == 0
    assert b"lost" not in made.log


def test_isolated_remote_ends_with_the_send_that_asked_for_it(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"isolated")
    [boot] = made.wait("boot", role="isolated")
    made.wait("ready", role="isolated")
    os.kill(pids["send"], signal.SIGKILL)
    made.wait("closed", role="isolated")
    assert gone(made.pid_of(boot))


def test_wish_of_a_child_other_than_send_is_ignored(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["remote0"], b"stop-all")
    made.wait_log(b"warning: unexpected b'a' from qmail-remote, ignored\n")
    os.kill(pids["send"], 0)


def test_sockets_have_the_modes_of_the_design(tree: Opener, home: Path) -> None:
    tree().up()
    modes = {
        name: stat.S_IMODE(os.stat(home / "run" / name).st_mode)
        for name in ("enqueue.sock", "control.sock")
    }
    assert modes == {"enqueue.sock": 0o666, "control.sock": 0o600}


def test_listening_socket_survives_enqueue(tree: Opener, home: Path) -> None:
    made = tree()
    pids = made.up()
    client = connect_to(str(home / "run/enqueue.sock"))
    os.kill(pids["enqueue"], signal.SIGKILL)
    made.wait("ready", role="enqueue")
    with client, connect_to(str(home / "run/enqueue.sock")):
        client.setblocking(False)
        # In the backlog still, and not reset.
        with pytest.raises(BlockingIOError):
            client.recv(1)


@pytest.mark.parametrize(
    ("spoil", "code", "line"),
    [
        (
            lambda home: (home / "control/patrn").write_text("x"),
            100,
            "alert: cannot start: control/patrn:1: expected an octal number",
        ),
        (
            lambda home: (home / "control/me").unlink(),
            100,
            "alert: cannot start: control/me: missing, and no control/locals",
        ),
        (
            lambda home: (home / "queue/todo").rmdir(),
            111,
            "alert: cannot start: HOME/queue/todo: expected a directory: No such file",
        ),
        (
            lambda home: (home / "queue/lock/sendmutex").unlink(),
            111,
            "alert: cannot start: HOME/queue/lock/sendmutex: expected a file: No such",
        ),
        (
            lambda home: (home / "queue/intd").chmod(0o777),
            111,
            "alert: cannot start: HOME/queue/intd: expected mode 0700, found 0777",
        ),
        (
            lambda home: (home / "run").rmdir(),
            111,
            "alert: cannot listen at HOME/run/control.sock: No such file",
        ),
    ],
)
def test_wrong_ground_is_one_clear_line(
    tree: Opener, home: Path, spoil: Callable[[Path], object], code: int, line: str
) -> None:
    spoil(home)
    made = tree()
    assert made.end() == code
    assert made.log.count(b"\n") == 1
    assert made.log.decode().startswith(line.replace("HOME", str(home)))


CAT = """#!/bin/sh
echo started $$ >>"{log}"
exec cat
"""


def test_classic_programs_are_given_to_send_and_replaced(
    tree: Opener, home: Path
) -> None:
    program, log = home / "program", home / "program.log"
    program.write_text(CAT.format(log=log))
    program.chmod(0o755)
    made = tree(lspawn=str(program))
    boots = by_role(made.wait("boot", 5))
    assert "lookup" not in boots
    socks = boots["send"]["socks"]
    assert isinstance(socks, list)
    assert "classic-lspawn" in socks
    # The fake send closes its end at once, cat ends, and send gets another.
    made.wait("met", role="send", name="classic-lspawn")
    made.wait("met", role="send", name="classic-lspawn")
    made.wait_log(b"warning: lost qmail-lspawn (exit 0), starting it again\n")
    assert until(lambda: len(log.read_text().splitlines()) >= 2)


@pytest.mark.parametrize("kind", ["clean", "lspawn", "rspawn"])
def test_new_send_waits_for_the_classic_program_of_the_old(
    tree: Opener, home: Path, kind: str
) -> None:
    program = home / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    (home / "control/timeoutterm").write_text("0\n")
    made = tree(**{kind: str(program)}, pace=0.02)
    pids = made.up({"clean": 6, "lspawn": 5, "rspawn": 5}[kind])
    os.kill(pids["send"], signal.SIGKILL)
    made.wait_log(b"warning: qmail-%b does not end, killing it\n" % kind.encode())
    [boot] = made.wait("boot", role="send")
    socks = boot["socks"]
    assert isinstance(socks, list)
    assert f"classic-{kind}" in socks


def test_all_kinds_have_a_fake() -> None:
    assert set(FAKES) == {role.rstrip("0123456789") for role in ORDER}
