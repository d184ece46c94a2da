"""start does what operators ask: stop, reload, alarm; by signal and through send."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.procs.family import ORDER, Opener, by_role, gone


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


def test_child_that_ends_by_itself_during_a_stop_is_no_loss(
    tree: Opener, home: Path
) -> None:
    (home / "send.hangs").touch()
    made = tree()
    pids = made.up()
    os.kill(made.pid, signal.SIGTERM)
    made.wait("signal", word="term")
    # As clean does when send has closed its line; start has not reaped send yet.
    os.kill(pids["clean"], signal.SIGUSR2)
    os.kill(pids["lookup"], signal.SIGKILL)
    made.wait_log(b"warning: lost qmail-lookup (killed by signal 9)\n")
    assert gone(pids["clean"])
    os.kill(pids["send"], signal.SIGUSR2)
    assert made.end() == 0
    assert made.log == b"warning: lost qmail-lookup (killed by signal 9)\n"


def test_good_controls_reach_everybody_who_may_know_them(
    tree: Opener, home: Path
) -> None:
    made = tree()
    pids = made.up()
    (home / "control/timeoutremote").write_text("7\n")
    (home / "control/virtualdomains").write_text("v.example:joe\n")
    secret = home / "control/sqlserver"
    secret.write_text("server localhost\nlogin q\npassword = a#b\ndb qmail\n")
    secret.chmod(0o600)
    os.kill(made.pid, signal.SIGHUP)
    told = by_role(made.wait("controls", 7))
    assert set(told) == set(ORDER)
    assert {event["generation"] for event in told.values()} == {2}
    assert told["clean"]["files"] == ["me"]
    assert told["remote0"]["files"] == ["me", "timeoutremote"]
    assert told["send"]["files"] == [".sqlserver", "me", "virtualdomains"]
    assert told["lookup"]["files"] == ["me", "sqlserver", "virtualdomains"]
    os.kill(pids["remote0"], signal.SIGKILL)
    [boot] = made.wait("boot", role="remote0")
    assert (boot["generation"], boot["limit"]) == (2, 7)


BAD_SQL = [
    (
        "sqlserver",
        "server a\nport 1\nsocket /s\n",
        "control/sqlserver:0: no login line",
    ),
    ("sqlserver", "server a\nhost b\n", "control/sqlserver:2: expected one of"),
    ("sqlqueries", "\nmailbox=DROP\n", "control/sqlqueries:2: mailbox is no SELECT"),
    ("sqlminuid", "many\n", "control/sqlminuid:1: expected a number"),
]


@pytest.mark.parametrize(("name", "content", "fault"), BAD_SQL)
def test_bad_words_of_the_database_are_told_by_file_and_line(
    tree: Opener, home: Path, name: str, content: str, fault: str
) -> None:
    made = tree()
    made.up()
    (home / "control" / name).write_text(content)
    os.kill(made.pid, signal.SIGHUP)
    said = f"alert: unable to reread controls: {fault.replace(':0:', ':')}"
    made.wait_log(said.encode())


def test_a_readable_password_is_warned_of(tree: Opener, home: Path) -> None:
    made = tree()
    made.up()
    secret = home / "control/sqlserver"
    secret.write_text("server localhost\nlogin q\npassword p\ndb qmail\n")
    secret.chmod(0o640)
    os.kill(made.pid, signal.SIGHUP)
    made.wait_log(b"warning: control/sqlserver is secret and can be read")


def test_bad_controls_change_nothing(tree: Opener, home: Path) -> None:
    made = tree()
    pids = made.up()
    (home / "control/timeoutremote").write_text("7\n")
    (home / "control/virtualdomains").write_text("a:b\n\nbad\n")
    os.kill(made.pid, signal.SIGHUP)
    made.wait_log(
        b"alert: unable to reread controls: control/virtualdomains:3: "
        b"expected key:value, found no colon\n"
    )
    os.kill(pids["remote0"], signal.SIGKILL)
    [boot] = made.wait("boot", role="remote0")
    assert (boot["generation"], boot["limit"]) == (1, 1200)
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
    made = tree(pace=0.2)
    pids = made.up()
    os.kill(made.pid, signal.SIGTERM)
    assert made.end() == 0
    assert made.log.splitlines() == [
        b"warning: qmail-send does not end, killing it",
        b"warning: qmail-lookup does not end, killing it",
    ]
    assert all(map(gone, pids.values()))
