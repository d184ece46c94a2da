"""start replaces children: with a brake, in pairs, with new sockets for peers."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tests.procs.family import Opener, Tree, by_role, gone, until


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
    new = {boot["role"]: made.pid_of(boot) for boot in boots}
    made.wait_met({(new["clean"], "send"), (new["send"], "clean")})
    # remote0 stayed; it greets the new send over a socket from a PEER frame.
    made.wait_met({(new["send"], "remote0")})


def test_who_crashed_is_named_not_who_ended_for_it(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    os.kill(made.pid, signal.SIGSTOP)
    os.kill(pids["send"], signal.SIGKILL)
    assert gone(pids["send"])
    # As clean does when send's line closes; start was not yet told of either.
    os.kill(pids["clean"], signal.SIGUSR2)
    assert gone(pids["clean"])
    os.kill(made.pid, signal.SIGCONT)
    made.wait("boot", 2)
    os.kill(made.pid, signal.SIGTERM)
    assert made.end() == 0
    assert made.log == (
        b"warning: lost qmail-send (killed by signal 9), starting it again\n"
    )


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


def test_shortage_of_descriptors_in_start_is_waited_out(tree: Opener) -> None:
    made = tree(pace=0.01)
    pids = made.up()
    before = resource.prlimit(made.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    os.kill(pids["lookup"], signal.SIGKILL)
    line = b"warning: unable to start qmail-lookup: no sockets to be had: "
    for times in range(1, 8):
        made.wait_log((line + b"Too many open files\n") * times)
    resource.prlimit(made.pid, resource.RLIMIT_NOFILE, before)
    [again] = made.wait("ready", role="lookup")
    made.wait_met({(made.pid_of(again), "send"), (pids["send"], "lookup")})


def test_isolated_remote_is_given_to_send_and_not_started_again(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"isolated")
    [boot] = made.wait("boot", role="isolated")
    assert boot["socks"] == ["send", "start"]
    made.wait_met({(made.pid_of(boot), "send"), (pids["send"], "isolated")})
    os.kill(made.pid_of(boot), signal.SIGKILL)
    made.wait("lost", role="send", name="isolated")
    made.ask(pids["send"], b"stop-all")
    assert made.end() == 0
    assert b"lost" not in made.log


def test_next_isolated_remote_takes_the_place_of_the_one_before(
    tree: Opener,
) -> None:
    made = tree()
    send = made.up()["send"]
    made.ask(send, b"isolated")
    first = made.pid_of(made.wait("ready", role="isolated")[0])
    made.ask(send, b"isolated")
    second = made.pid_of(made.wait("ready", role="isolated")[0])
    assert second != first
    assert gone(first)
    os.kill(second, 0)


def test_isolated_remote_ends_with_the_send_that_asked_for_it(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["send"], b"isolated")
    [boot] = made.wait("boot", role="isolated")
    made.wait("ready", role="isolated")
    os.kill(pids["send"], signal.SIGKILL)
    made.wait("closed", role="isolated")
    assert gone(made.pid_of(boot))


def test_child_that_wishes_what_only_send_may_is_replaced(tree: Opener) -> None:
    made = tree()
    pids = made.up()
    made.ask(pids["remote0"], b"stop-all")
    made.wait_log(b"warning: unexpected b'a' from qmail-remote: ending it\n")
    made.wait("closed", role="remote0")
    made.wait("ready", role="remote0")
    os.kill(pids["send"], 0)


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
    boots = by_role(made.wait("boot", 6))
    assert "lspawn" not in boots
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
    pids = made.up({"clean": 6, "lspawn": 6, "rspawn": 5}[kind])
    os.kill(pids["send"], signal.SIGKILL)
    made.wait_log(b"warning: qmail-%b does not end, killing it\n" % kind.encode())
    [boot] = made.wait("boot", role="send")
    socks = boot["socks"]
    assert isinstance(socks, list)
    assert f"classic-{kind}" in socks
