"""lspawn with a real lookup and real children under real uids."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qsend.core import localpool, spawncheck
from qsend.core.localpool import KEPT_CHILDREN, LocalPool
from qsend.core.model import Cause, Letter
from qsend.core.users import NoUser
from qsend.formats import delivery, frames, lookupwire
from qsend.formats.control import Controls
from qsend.formats.lookupwire import Answer
from qsend.procs import lspawn
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child
from tests.localtree import (
    ALIAS,
    DEADLINE_S,
    QUEUE_GID,
    Told,
    Tree,
    child_main,
    children_of,
    limit_leaving,
    made_accounts,
    reap,
    tree,
    wait_gone,
    write_users,
)

pytestmark = pytest.mark.root

REFUSED = [
    # path, recipient, letter, code
    ("", "ann@h", Letter.FAILURE, b"#5.3.5"),
    ("/5/5", "ann@h", Letter.FAILURE, b"#5.3.5"),
    ("5/../5/5", "ann@h", Letter.FAILURE, b"#5.3.5"),
    ("5/5x", "ann@h", Letter.FAILURE, b"#5.3.5"),
    ("5/" + "5" * 98, "ann@h", Letter.FAILURE, b"#5.3.5"),
    ("5/" + "5" * 97, "ann@h", Letter.DEFERRAL, b"#4.3.0"),
    ("5/5", "ann", Letter.FAILURE, b"#5.1.3"),
    ("5/6", "ann@h", Letter.DEFERRAL, b"#4.3.0"),
    ("5/6", "@h", Letter.DEFERRAL, b"#4.3.0"),
    ("5", "ann@h", Letter.DEFERRAL, b"#4.3.5"),
    ("7/7", "ann@h", Letter.DEFERRAL, b"#4.3.5"),
    ("8/8", "ann@h", Letter.DEFERRAL, b"#4.3.0"),
    ("9/9", "ann@h", Letter.DEFERRAL, b"#4.3.5"),
    ("5/5", "a" * 5000 + "@h", Letter.FAILURE, b"#5.1.3"),
]


def test_commands_that_are_wrong_are_refused(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        running.message(7, b"of another owner", uid=running.accounts.alias.uid)
        mess = open_tmp / "queue/mess"
        (mess / "8/8").symlink_to(mess / "5/5")
        os.mkfifo(mess / "9/9")
        os.chown(mess / "9/9", running.accounts.qmailq.uid, QUEUE_GID)
        for path, recip, letter, code in REFUSED:
            report = running.told(recip, path=path)
            assert (report.letter, code in report.text) == (letter, True), path
            assert report.text.endswith(b"\n")
            assert report.cause is Cause.NORMAL
        assert children_of(running.pids["lspawn"]) == set()
        assert running.told("ann@h").text == b"ok"


def test_empty_local_part_vanishes_with_success(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        report = running.told("@host")
        assert (report.letter, report.text) == (Letter.SUCCESS, b"")
        assert running.told("a@@host").letter is Letter.SUCCESS
        # What precedes the last @ is the local part.
        assert len(children_of(running.pids["lspawn"])) == 1


def test_child_has_exactly_its_account_and_its_descriptors(open_tmp: Path) -> None:
    controls = Controls(patrn=0o22)
    with tree(open_tmp, controls) as running:
        found = running.facts("Ann")
        assert found["uids"] == [67201] * 3
        assert found["gids"] == [67301] * 3
        assert found["groups"] == [67301]
        assert found["fds"] == [0, 1, 2]
        assert found["umask"] == 0o77
        assert found["handlers"] == []
        assert found["parent"] == running.pids["lspawn"]
        # Not dumpable: its files in /proc belong to root. Setuid programs work.
        assert found["proc_owner"] == 0
        assert found["no_new_privs"] == "0"
        assert found["message"] == "Subject: five\n\nbody\n"
        assert found["sender"] == "sender@example.org"
        assert (found["local"], found["domain"]) == ("Ann-facts", "host")
        assert found["home"] == "/home/ann"
        assert found["default_delivery"] == "./Default"
        assert found["qsend_home"] == str(open_tmp)
        assert found["patrn"] == 0o22
        title = Path(f"/proc/{found['pid']}/cmdline").read_bytes()
        assert title.startswith(b"qmail-local: qsend")


def test_later_children_have_no_descriptors_of_earlier_ones(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        for who in ("ann", "bob"):
            running.command(f"{who}-hang@h")
        found = running.facts("cyd")
        assert found["fds"] == [0, 1, 2]
        assert found["uids"] == [67203] * 3
        assert running.facts("cyd", alone=True)["fds"] == [0, 1, 2]


def test_lspawn_itself_is_root_with_the_queues_group(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        pid = running.pids["lspawn"]
        status = Path(f"/proc/{pid}/status").read_text()
        found = dict(line.split(":\t", 1) for line in status.splitlines())
        assert found["Uid"].split() == ["0"] * 4
        assert found["Gid"].split() == [str(QUEUE_GID)] * 4
        assert found["Groups"].split() == [str(QUEUE_GID)]
        assert found["Threads"] == "1"
        assert (
            Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"qmail-lspawn: qsend")
        )


def test_everybody_else_is_alias(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        report = running.told("root@h")
        assert report.text == b"ok"
        (child,) = children_of(running.pids["lspawn"])
        status = Path(f"/proc/{child}/status").read_text()
        assert f"Uid:\t{ALIAS.uid}\t" in status


def test_child_is_kept_and_used_again(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        first = running.facts("ann")["pid"]
        assert running.facts("bob")["pid"] != first
        assert running.facts("ann")["pid"] == first


def test_alone_has_a_child_of_its_own(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        kept = running.facts("ann")["pid"]
        alone = running.facts("ann", alone=True)["pid"]
        assert isinstance(alone, int)
        assert alone != kept
        wait_gone(alone)
        assert running.facts("ann")["pid"] == kept


def test_root_and_own_accounts_from_users_cdb_are_refused(
    open_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tree(open_tmp) as running:
        accounts = running.accounts
        users = {
            "zero": (0, 0),
            "que\nue": (accounts.qmailq.uid, 67301),
            "out": (accounts.qmaild.uid, 67301),
            "ali": (accounts.alias.uid, accounts.alias.gid),
        }
        write_users(open_tmp, users)
        for who in ("zero", "que\nue", "out"):
            report = running.told(f"{who}@h")
            assert (report.letter, report.cause) == (Letter.DEFERRAL, Cause.NORMAL)
            assert b"#4.3.5" in report.text
        assert children_of(running.pids["lspawn"]) == set()
        assert running.told("ali@h").text == b"ok"
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["alert"] * 3
    assert "user zero, uid 0: deliveries as root are refused" in lines[0]
    assert "user que/ue" in lines[1]
    assert "deliveries as qmailq are refused" in lines[1]


def test_missing_alias_and_damaged_users_cdb_defer(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        (open_tmp / "alias").rmdir()
        report = running.told("bill@h")
        assert report.letter is Letter.DEFERRAL
        assert b"alias" in report.text
        assert b"#4.3." in report.text
        (open_tmp / "users/cdb").write_bytes(b"broken")
        report = running.told("ann@h")
        assert report.letter is Letter.DEFERRAL
        assert b"users/cdb" in report.text
        assert b"#4.3.0" in report.text


def test_child_killed_in_mid_delivery_defers_what_it_had(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        victim = running.facts("ann")["pid"]
        assert isinstance(victim, int)
        bystander = running.command("bob-hang@h")
        had = {running.command("ann-hang@h") for _ in range(3)}
        running.command("bob@h")
        assert running.report().text == b"ok"
        os.kill(victim, signal.SIGKILL)
        reports = [running.report() for _ in had]
        assert {report.delid for report in reports} == had
        for report in reports:
            assert (report.letter, report.cause) == (Letter.DEFERRAL, Cause.CHILD_LOST)
            assert b"crashed" in report.text
        assert running.facts("ann")["pid"] != victim
        running.command("bob-release@h")
        assert running.report().delid == bystander


@pytest.mark.parametrize("how", ["crash", "noise", "twice", "long=3001", "forge=99"])
def test_child_that_misbehaves_is_killed_and_its_work_deferred(
    open_tmp: Path, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    with tree(open_tmp) as running:
        pid = running.facts("ann")["pid"]
        assert isinstance(pid, int)
        held = running.command("ann-hang@h")
        bad = running.command(f"ann-bad={how}@h")
        reports = {report.delid: report for report in _reports(running, 2)}
        assert reports.keys() == {held, bad}
        assert reports[held].cause is Cause.CHILD_LOST
        if how == "twice":
            assert reports[bad].text == b"one"
        else:
            assert (reports[bad].letter, reports[bad].cause) == (
                Letter.DEFERRAL,
                Cause.CHILD_LOST,
            )
        wait_gone(pid)
        assert running.facts("ann")["pid"] != pid
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: qmail-local: child {pid} lost (")
    assert line.endswith(f"deliveries deferred: {1 if how == 'twice' else 2}")
    assert ("exit -15" in line) == (how == "crash")


def test_report_for_anothers_delivery_is_refused(open_tmp: Path) -> None:
    """lspawn numbers its deliveries from 1, so the forger knows the number."""
    with tree(open_tmp) as running:
        bobs = running.command("bob-hang@h")
        forger = running.command("ann-bad=forge=1@h")
        report = running.report()
        assert (report.delid, report.cause) == (forger, Cause.CHILD_LOST)
        running.command("bob-release@h")
        released = running.report()
        assert (released.delid, released.text) == (bobs, b"released")
        assert running.report().text == b"done"


def test_longest_report_passes_and_causes_are_not_the_childs_to_say(
    open_tmp: Path,
) -> None:
    with tree(open_tmp) as running:
        assert len(running.told("ann-bad=long=3000@h").text) == 3000
        report = running.told("ann-unreachable@h")
        assert (report.letter, report.cause) == (Letter.SUCCESS, Cause.NORMAL)


def test_last_words_of_a_dying_child_count(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        held = running.command("ann-hang@h")
        dying = running.command("ann-bad=last-words@h")
        first, second = running.report(), running.report()
        assert (first.delid, first.text) == (dying, b"last words")
        assert (second.delid, second.cause) == (held, Cause.CHILD_LOST)


def test_deliveries_of_one_home_are_limited_others_are_not(open_tmp: Path) -> None:
    with tree(open_tmp, Controls(concurrencyperuser=2)) as running:
        users = {"ann": (67201, 67301), "ann2": (67201, 67301), "bob": (67202, 1)}
        write_users(open_tmp, users)
        held = [running.command("ann-hang@h") for _ in range(2)]
        waiting = [running.command("ann@h") for _ in range(5)]
        assert running.told("bob@h").text == b"ok"
        assert running.is_silent()
        # The same account, hence the same child, but another home.
        running.command("ann2-release@h")
        reports = {report.delid: report for report in _reports(running, 8)}
        assert [reports[delid].text for delid in held] == [b"released"] * 2
        assert [reports[delid].text for delid in waiting] == [b"ok"] * 5


def _reports(running: Tree, count: int) -> list[Told]:
    return [running.report() for _ in range(count)]


def test_lookup_killed_defers_its_questions_and_is_replaced(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        child = running.facts("ann")["pid"]
        lookup = running.pids["lookup"]
        os.kill(lookup, signal.SIGSTOP)
        asked = {running.command(f"ann-{n}@h") for n in range(300)}
        assert running.is_silent()
        os.kill(lookup, signal.SIGKILL)
        reap(lookup)
        reports = _reports(running, 300)
        assert {report.delid for report in reports} == asked
        late = running.told("bob@h")
        for report in [*reports, late]:
            assert (report.letter, report.cause) == (
                Letter.DEFERRAL,
                Cause.UNRESOLVED,
            )
            assert b"#4.3.0" in report.text
        running.replace_lookup()
        assert running.facts("ann")["pid"] == child


def test_many_questions_are_all_answered(open_tmp: Path) -> None:
    with tree(open_tmp, Controls(concurrencyperuser=1000)) as running:
        asked = {
            running.command(f"{'annbobcyd'[n % 3 * 3 :][:3]}-{n}@h")
            for n in range(1500)
        }
        reports = _reports(running, 1500)
        assert {report.delid for report in reports} == asked
        assert {report.text for report in reports} == {b"ok"}


def test_lookup_that_answers_what_was_not_asked_is_dropped(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        ours, theirs = pair()
        running.give_peer("lspawn", "lookup", theirs)
        ours.settimeout(DEADLINE_S)
        ((kind, _),) = frames.split(ours.recv(frames.PACKET_MAX))
        assert kind == frames.HELLO
        unasked = Answer(number=77, outcome=NoUser(text=b""))
        ours.send(lookupwire.render_answer(unasked))
        assert ours.recv(100) == b""
        ours.close()
        assert running.told("ann@h").letter is Letter.DEFERRAL


def test_new_send_starts_afresh_while_old_deliveries_run_on(open_tmp: Path) -> None:
    with tree(open_tmp, Controls(concurrencyperuser=1)) as running:
        write_users(
            open_tmp, {"ann": (67201, 1), "ann2": (67201, 1), "bob": (67202, 1)}
        )
        pid = running.facts("ann")["pid"]
        running.command("ann-hang@h", delid=100)
        running.command("ann-bad=crash@h", delid=101)
        assert running.told("bob@h").text == b"ok"
        running.replace_send()
        # Its numbers are its own, also those that the old one had running.
        running.command("bob@h", delid=100)
        report = running.report()
        assert (report.delid, report.text) == (100, b"ok")
        assert running.facts("ann2")["pid"] == pid
        running.command("ann@h", delid=7)
        assert running.is_silent()
        # The old delivery ends unheard and makes room; the one that waited is gone.
        running.command("ann2-release@h", delid=8)
        assert {report.delid for report in _reports(running, 2)} == {7, 8}
        assert running.facts("ann2")["pid"] == pid
        assert running.is_silent()


def test_answer_for_a_send_that_is_gone_starts_nothing(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        pid = running.facts("ann")["pid"]
        os.kill(running.pids["lookup"], signal.SIGSTOP)
        running.command("ann-bad=crash@h")
        # Reports come in order, so this one says that the command has been read.
        assert running.told("ann").letter is Letter.FAILURE
        running.replace_send()
        assert running.told("ann").letter is Letter.FAILURE
        os.kill(running.pids["lookup"], signal.SIGCONT)
        assert running.told("bob@h").text == b"ok"
        assert running.facts("ann")["pid"] == pid


def test_send_that_breaks_the_protocol_is_dropped(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        for noise in (b"x", frames.frame(b"?", b""), frames.frame(delivery.LOCAL, b"")):
            running.send.send(noise)
            running.frames.clear()
            while running.read(running.send):
                pass
            running.replace_send()
        assert running.told("ann@h").text == b"ok"


def test_number_in_use_is_refused(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        running.command("ann-hang@h", delid=100)
        running.command("bob@h", delid=100)
        report = running.report()
        assert (report.delid, report.letter) == (100, Letter.DEFERRAL)
        assert b"#4.3.5" in report.text
        running.command("ann-release@h", delid=101)
        assert [each.text for each in _reports(running, 2)] == [b"released", b"done"]
        assert running.told("bob@h").text == b"ok"


def test_more_than_its_slots_is_refused(open_tmp: Path) -> None:
    with tree(open_tmp, nofile=lambda: 70) as running:
        child = running.facts("ann")["pid"]
        assert isinstance(child, int)
        held = [running.command("ann-hang@h") for _ in range(2)]
        assert running.told("ann@h").text == b"ok"
        running.command("bob-hang@h")
        report = running.told("cyd@h")
        assert (report.letter, b"#4.3.5" in report.text) == (Letter.DEFERRAL, True)
        os.kill(child, signal.SIGKILL)
        assert [each.delid for each in _reports(running, 2)] == held
        assert running.told("cyd@h").text == b"ok"


def test_slots_of_the_greeting_fit_the_descriptors(open_tmp: Path) -> None:
    with tree(open_tmp, nofile=lambda: 70) as running:
        running.told("@h")
        assert running.slots == 3


def test_no_room_for_a_child_defers_and_leaks_nothing(open_tmp: Path) -> None:
    # Poll, its wake-up pipe, mess/, the message, one end of a child's socket.
    with tree(open_tmp, nofile=lambda: limit_leaving(6)) as running:
        for _ in range(3):
            report = running.told("ann@h")
            assert (report.letter, report.text) == spawncheck.CANNOT_FORK
            assert report.cause is Cause.NORMAL
        assert running.told("@h").letter is Letter.SUCCESS


def test_reload_ends_old_children_and_gives_new_ones_the_new_controls(
    open_tmp: Path,
) -> None:
    with tree(open_tmp) as running:
        write_users(
            open_tmp, {"ann": (67201, 1), "ann2": (67201, 1), "bob": (67202, 1)}
        )
        busy, idle = running.facts("ann")["pid"], running.facts("bob")["pid"]
        assert isinstance(busy, int)
        assert isinstance(idle, int)
        held = running.command("ann-hang@h")
        assert running.told("bob@h").text == b"ok"
        running.reload({"me": b"h.example\n", "patrn": b"22\n"})
        wait_gone(idle)
        found = running.facts("ann2")
        assert (found["patrn"], found["pid"] == busy) == (0o22, False)
        assert busy in children_of(running.pids["lspawn"])
        os.kill(busy, signal.SIGKILL)
        assert running.report().delid == held
        assert running.facts("ann")["pid"] == found["pid"]


def test_reload_that_cannot_be_used_changes_nothing(
    open_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with tree(open_tmp, Controls(patrn=0o2)) as running:
        pid = running.facts("ann")["pid"]
        running.reload({"me": b"h.example\n", "patrn": b"nonsense\n"})
        assert running.facts("ann")["pid"] == pid
        assert running.facts("bob")["patrn"] == 0o2
    assert "control/patrn" in capfd.readouterr().err


def test_idle_child_ends_after_a_while(
    open_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localpool, "IDLE_S", 0.05)
    with tree(open_tmp) as running:
        running.command("bob-hang@h")
        pid = running.facts("ann")["pid"]
        assert isinstance(pid, int)
        wait_gone(pid)
        assert len(children_of(running.pids["lspawn"])) == 1
        again = running.facts("ann")["pid"]
        assert isinstance(again, int)
        assert again != pid
        wait_gone(again)


def test_least_recently_used_of_64_makes_room(open_tmp: Path) -> None:
    with tree(open_tmp) as running:
        names = [f"user{n}" for n in range(KEPT_CHILDREN + 2)]
        write_users(open_tmp, {name: (68000 + n, 1) for n, name in enumerate(names)})
        for name in names[:KEPT_CHILDREN]:
            running.command(f"{name}@h")
        _reports(running, KEPT_CHILDREN)
        lspawn = running.pids["lspawn"]
        before = children_of(lspawn)
        assert len(before) == KEPT_CHILDREN
        first, second = (running.facts(name)["pid"] for name in names[:2])
        third = running.facts(names[2])["pid"]
        assert running.told(f"{names[0]}@h").text == b"ok"
        for name in names[3:KEPT_CHILDREN]:
            running.command(f"{name}@h")
        _reports(running, KEPT_CHILDREN - 3)
        running.facts(names[-1])
        assert isinstance(second, int)
        wait_gone(second)
        running.facts(names[-2])
        assert isinstance(third, int)
        wait_gone(third)
        left = children_of(lspawn)
        assert len(left) == KEPT_CHILDREN
        assert first in left


def test_busy_children_are_never_ended_to_make_room(
    open_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localpool, "KEPT_CHILDREN", 2)
    monkeypatch.setattr(LocalPool.__init__, "__defaults__", (2,))
    with tree(open_tmp) as running:
        held = [running.command(f"{who}-hang@h") for who in ("ann", "bob", "cyd")]
        assert running.told("bill@h").text == b"ok"
        assert len(children_of(running.pids["lspawn"])) >= 3
        for who in ("ann", "bob", "cyd"):
            running.command(f"{who}-release@h")
        texts = [(report.delid, report.text) for report in _reports(running, 6)]
        assert {delid for delid, text in texts if text == b"released"} == set(held)


def test_starts_end_ends_lspawn_at_once_and_children_after_their_work(
    open_tmp: Path,
) -> None:
    with tree(open_tmp) as running:
        running.command("ann-hang@h")
        child = running.facts("bob")["pid"]
        assert isinstance(child, int)
        running.start["lspawn"].close()
        assert reap(running.pids.pop("lspawn")) == 0
        wait_gone(child)
        assert running.read(running.send) == []


@pytest.mark.parametrize(
    "signum", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name
)
def test_signals_meant_for_start_end_nothing(
    open_tmp: Path, signum: signal.Signals
) -> None:
    with tree(open_tmp) as running:
        for pid in running.pids.values():
            os.kill(pid, signum)
        assert running.told("ann@h").text == b"ok"


def test_missing_queue_is_one_line_and_exit_111(
    open_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = pair()
    boot = Boot(
        role="lspawn",
        home=str(open_tmp / "none"),
        single_user=False,
        accounts=made_accounts(),
        controls=Controls(),
        default_delivery=b"",
        socks={"start": theirs},
    )
    pid = fork_child(lambda: lspawn.main(boot, child_main), [theirs.fileno()], "lspawn")
    theirs.close()
    assert reap(pid) == 111
    ours.close()
    err = capfd.readouterr().err
    assert err == (
        f"alert: lspawn: unable to open {open_tmp}/none/queue/mess: "
        "No such file or directory\n"
    )
