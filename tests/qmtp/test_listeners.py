"""QMTP and QMQP in a running tree, by its own listeners and below tcpserver."""

from __future__ import annotations

import pwd
import re
import signal
from pathlib import Path

import psutil
import pytest

from qsend.sysio import clock
from tests.qmtp.conftest import Client, QmtpTree, package, request
from tests.tree.harness import until

pytestmark = pytest.mark.root

Both = tuple[QmtpTree, int, int]
BOX = b"box@here.example"
ACCEPTED = re.compile(rb"Kok \d{10,} qp \d+")
NOT_LISTED = b"Dsorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
TOO_LARGE = b"Dsorry, that message size exceeds my databytes limit (#5.3.4)"


def is_accepted(answer: bytes) -> bool:
    return ACCEPTED.fullmatch(answer) is not None


def ask_qmtp(port: int, *packages: bytes) -> list[bytes]:
    """All answers to these packages, sent at once."""
    with Client(port) as client:
        client.send(b"".join(packages))
        client.half_close()
        return client.rest()


def ask_qmqp(port: int, wire: bytes) -> list[bytes]:
    with Client(port) as client:
        client.send(wire)
        client.half_close()
        return client.rest()


def test_mail_by_qmtp_is_answered_for_and_delivered(both: Both) -> None:
    tree, port, _ = both
    answers = ask_qmtp(
        port,
        package(b"\nSubject: a\n\nx\n", b"me@far.example", BOX, b"b@no.example"),
        package(b"\rSubject: b\r\n\r\nx\r\n", b"", b"box@HERE.example"),
        package(b"\n", b"me@far.example", b"b@no.example"),
    )
    assert [is_accepted(answer) for answer in answers] == [True, False, True, False]
    assert answers[1] == answers[3] == NOT_LISTED
    tree.tree.wait_for(rb"end msg", 2)
    kept = sorted(each.partition(b"Subject:")[2] for each in tree.kept())
    assert kept == [b" a\n\nx\n", b" b\n\nx\n"]
    for each in tree.kept():
        field = (
            rb"(?m)^Received: from unknown \(127\.0\.0\.1\)\n  by \S+ with QMTP; .*$"
        )
        assert re.search(field, each)
        assert b"invoked from network" in each
    tree.tree.wait_empty()


def test_mail_by_qmqp_is_answered_for_and_delivered(both: Both) -> None:
    tree, _, port = both
    wire = request(b"Subject: a\n\nx\n", b"me@far.example", BOX, b"r@no.example")
    [answer] = ask_qmqp(port, wire)
    assert is_accepted(answer)
    tree.tree.wait_for(rb"to local box@here.example\n(?s:.*)did_1")
    tree.tree.find(rb"starting delivery \d: msg \d+ to remote r@no.example")
    [kept] = tree.kept()
    assert kept.endswith(b"\nSubject: a\n\nx\n")
    assert b" with QMQP; " in kept


def test_qp_of_the_answer_is_that_of_the_log(both: Both) -> None:
    tree, port, _ = both
    [answer] = ask_qmtp(port, package(b"\nx\n", b"me@far.example", BOX))
    uid = tree.tree.wait_for(rb"info msg .* from <me@far.example> qp (\d+) uid \d+")
    assert answer.endswith(b" qp " + uid[1])


def test_many_messages_of_one_connection_are_pipelined(both: Both) -> None:
    tree, port, _ = both
    some = [package(b"\n%d\n" % number, b"", BOX) for number in range(200)]
    answers = ask_qmtp(port, *some)
    assert len(answers) == 200
    assert all(map(is_accepted, answers))
    tree.tree.wait_for(rb"end msg", 200)
    bodies = {int(each.split(b"\n")[-2]) for each in tree.kept()}
    assert bodies == set(range(200))


def test_long_message_arrives_whole_and_is_never_held(both: Both) -> None:
    tree, port, qmqp = both
    line = b"x" * 997 + b"\r\n"
    answers = ask_qmtp(port, package(b"\r" + line * 20_000, b"", BOX))
    assert is_accepted(answers[0])
    [answer] = ask_qmqp(qmqp, request(b"y" * 30_000_000, b"", BOX))
    assert is_accepted(answer)
    tree.tree.wait_for(rb"end msg", 2)
    sizes = sorted(len(each) for each in tree.kept())
    assert [size // 1_000_000 for size in sizes] == [19, 30]
    for process in tree.tree.family():
        if process.cmdline()[:1] == ["qmail-qmtpd: qsend"]:
            assert process.memory_info().rss < 150 << 20


def test_morercpthosts_and_percenthack_have_their_say(both: Both) -> None:
    tree, port, _ = both
    (tree.tree.home / "control/morercpthosts").write_text("more.example\n")
    assert tree.tree.program("qmail-newmrh").returncode == 0
    wire = package(b"\nx\n", b"a@far.example", b"r@more.example", b"r@sub.more.example")
    answers = ask_qmtp(port, wire)
    assert (is_accepted(answers[0]), answers[1]) == (True, NOT_LISTED)


def test_access_rules_of_qmtp(served: QmtpTree) -> None:
    wire = package(b"\n123456789\n", b"a@far.example", b"r@no.example")
    served.rules("qmtp", '127.0.0.1:allow,RELAYCLIENT="@relay.example"\n')
    [answer] = ask_qmtp(served.qmtp, wire)
    assert is_accepted(answer)
    served.tree.wait_for(rb"to remote r@no.example@relay.example\n")
    served.rules("qmtp", '127.:allow,DATABYTES="9",RELAYCLIENT=""\n')
    assert ask_qmtp(served.qmtp, wire) == [TOO_LARGE]
    served.rules("qmtp", "127.:deny\n")
    assert ask_qmtp(served.qmtp, wire) == []


@pytest.mark.parametrize("rules", [None, "10.:allow\n", "127.:deny\n"])
def test_qmqp_takes_nobody_without_a_rule(
    unstarted: QmtpTree, rules: str | None
) -> None:
    if rules is None:
        (unstarted.tree.home / "control/tcp.qmqp.cdb").unlink()
    else:
        unstarted.rules("qmqp", rules)
    unstarted.start()
    assert ask_qmqp(unstarted.qmqp, request(b"x", b"", BOX)) == []
    if rules != "127.:deny\n":
        unstarted.tree.find(rb"qmail-qmqpd: 127.0.0.1 is refused: no rule allows it")
    assert unstarted.queued() == []


def test_environment_of_tcpserver(served: QmtpTree) -> None:
    wire = package(b"\n123456789\n", b"a@far.example", b"r@no.example")
    with served.tcpserver("qmail-qmtpd", RELAYCLIENT="@relay.example") as port:
        assert is_accepted(ask_qmtp(port, wire)[0])
        served.tree.wait_for(rb"to remote r@no.example@relay.example\n")
    with served.tcpserver("qmail-qmtpd", DATABYTES="9", RELAYCLIENT="") as port:
        assert ask_qmtp(port, wire) == [TOO_LARGE]


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("exit 31", b"Dmail server permanently rejected message (#5.3.0)"),
        ("echo Dgo away >&6; exit 82", b"Dgo away\n"),
        ("exit 53", b"Zqq write error or disk full (#4.3.0)"),
        ("kill -9 $$", b"Zqq crashed (#4.3.0)"),
    ],
)
def test_queueing_program_says_why_not(
    served: QmtpTree, program: str, answer: bytes
) -> None:
    path = served.tree.home / "refuse"
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)
    served.rules("qmqp", f'127.:allow,QMAILQUEUE="{path}"\n')
    served.rules("qmtp", f'127.:allow,QMAILQUEUE="{path}"\n')
    with served.tcpserver("qmail-qmqpd", QMAILQUEUE=str(path)) as port:
        for each in (served.qmqp, port):
            assert ask_qmqp(each, request(b"x" * 300_000, b"", BOX)) == [answer]
    with served.tcpserver("qmail-qmtpd", QMAILQUEUE=str(path)) as port:
        wire = package(b"\nx", b"", BOX, b"r@no.example", BOX)
        for each in (served.qmtp, port):
            assert ask_qmtp(each, wire) == [answer, NOT_LISTED, answer]


def test_queueing_program_gets_what_the_client_sent(served: QmtpTree) -> None:
    path = served.tree.home / "keep"
    path.write_text("#!/bin/sh\ncat >/dev/null; exec cat <&1 >&2\n")
    path.chmod(0o755)
    with served.tcpserver("qmail-qmqpd", QMAILQUEUE=str(path)) as port:
        assert is_accepted(ask_qmqp(port, request(b"x", b"s", b"r", b"t"))[0])
    log = (served.tree.home / "tcpserver.log").read_bytes()
    assert b"Fs\0Tr\0Tt\0\0" in log
    served.rules("qmqp", f'127.:allow,QMAILQUEUE="{path}"\n')
    assert is_accepted(ask_qmqp(served.qmqp, request(b"x", b"s", b"r", b"t"))[0])
    served.tree.find(rb"Fs\0Tr\0Tt\0\0")


def test_missing_rcpthosts_is_no_open_relay(unstarted: QmtpTree) -> None:
    unstarted.tree.control("rcpthosts", None)
    unstarted.start()
    wire = package(b"\nx", b"a@far.example", BOX, b"r@no.example")
    assert ask_qmtp(unstarted.qmtp, wire) == [NOT_LISTED, NOT_LISTED]
    unstarted.tree.find(rb"qmail-qmtpd: control/rcpthosts is missing")
    with unstarted.tcpserver("qmail-qmtpd") as port:
        assert ask_qmtp(port, wire) == [NOT_LISTED, NOT_LISTED]


def test_full_disk_is_z_and_said_for_every_recipient(both: Both) -> None:
    tree, port, qmqp = both
    tree.tree.control("queueminfree", str(1 << 62))
    tree.tree.run("reload")
    full = b"Zqq write error or disk full (#4.3.0)"
    wire = package(b"\n" + b"x" * 3_000_000, b"", BOX, b"r@no.example", BOX)
    assert ask_qmtp(port, wire) == [full, NOT_LISTED, full]
    assert ask_qmqp(qmqp, request(b"x" * 3_000_000, b"", BOX)) == [full]
    assert tree.queued() == []


def test_new_controls_count_for_new_connections(served: QmtpTree) -> None:
    wire = package(b"\n123456789\n", b"", BOX, b"r@no.example")
    served.tree.control("databytes", "9\n")
    served.tree.control("rcpthosts", "no.example\n")
    served.tree.control("qmqplisten", "127.0.0.1:1\n")
    served.tree.run("reload")
    served.tree.find(rb"control/qmqplisten has changed; that needs a new start")
    assert ask_qmtp(served.qmtp, wire) == [NOT_LISTED, TOO_LARGE]


def test_ipv6_clients_are_served(served: QmtpTree) -> None:
    with Client(served.qmtp, "::1") as client:
        client.send(package(b"\nx\n", b"", BOX))
        assert is_accepted(client.answer())
    served.tree.wait_for(rb"end msg")
    assert b"from unknown (??1)" in served.kept()[0] or b"(::1)" in served.kept()[0]


# What goes wrong


GARBAGE = {
    "no-length": b"GET / HTTP/1.0\r\n\r\n",
    "no-comma": b"1:\nx",
    "huge": b"200000001:",
    "endless-digits": b"1" * 100_000,
    "endless-zeros": b"0" * 100_000,
    "nul": b"\0" * 100_000,
    "inner-too-long": b"3:\nab,1:s,5:99:a",
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_garbage_is_hung_up_on_after_what_was_good(both: Both, name: str) -> None:
    tree, port, qmqp = both
    good = package(b"\ngood\n", b"", BOX)
    with Client(port) as client:
        client.send(good)
        assert is_accepted(client.answer())
        client.send(good + GARBAGE[name])
        assert all(is_accepted(answer) for answer in client.rest())
    assert ask_qmqp(qmqp, b"9:" + GARBAGE[name]) == []
    # Nothing of it is kept, and the next client is served.
    assert is_accepted(ask_qmtp(port, good)[0])
    tree.tree.wait_for(rb"end msg", 3)
    tree.tree.wait_empty()


def test_exit_codes_below_tcpserver(served: QmtpTree) -> None:
    good = package(b"\nx\n", b"", BOX)
    sent = [b"", good, good[:-1], b"x", b"0:,", b"200000001:", b"3:\nab,1:s,2:x:,"]
    with served.tcpserver("qmail-qmtpd") as port:
        for wire in sent:
            ask_qmtp(port, wire)
        until(lambda: len(served.statuses()) == len(sent))
        assert sorted(served.statuses()) == [0, 0, 0, 100, 100, 100, 111]
    (served.tree.home / "control/databytes").write_text("many\n")
    with served.tcpserver("qmail-qmtpd") as port:
        ask_qmtp(port, good)
        until(lambda: served.statuses() == [111])


@pytest.mark.parametrize("end", range(1, 40, 4))
def test_half_of_anything_queues_nothing(served: QmtpTree, end: int) -> None:
    wire = package(b"\nSubject: x\n\nbody\n", b"a@far.example", BOX)
    assert ask_qmtp(served.qmtp, wire[:end]) == []
    assert ask_qmqp(served.qmqp, request(b"x", b"s", BOX)[: end // 2]) == []
    until(lambda: served.drafts() == 0)
    assert not served.queued()


def test_client_that_leaves_midway_leaves_nothing(both: Both) -> None:
    tree, port, _ = both
    for _ in range(20):
        with Client(port) as client:
            client.send(b"100000000:\n" + b"x" * 1_000_000)
    until(lambda: tree.drafts() == 0)
    assert not tree.queued()


def test_clients_that_trickle_hold_up_nobody(served: QmtpTree) -> None:
    slow = [Client(served.qmtp) for _ in range(15)]
    for client in slow:
        client.send(b"1000000:\nx")
    for number in range(5):
        for client in slow:
            client.send(b"y")
        assert is_accepted(
            ask_qmtp(served.qmtp, package(b"\n%d" % number, b"", BOX))[0]
        )
    for client in slow:
        client.close()


def test_silent_client_is_left(unstarted: QmtpTree) -> None:
    unstarted.tree.control("timeoutqmtpd", "1\n")
    unstarted.start()
    began_mono = clock.mono()
    with Client(unstarted.qmtp) as client:
        client.send(b"10:\nx")
        until(lambda: unstarted.drafts() == 1)
        assert client.rest() == []
    assert 0.9 < clock.mono() - began_mono < 25
    until(lambda: unstarted.drafts() == 0)


def test_client_that_reads_no_answers_is_not_waited_for_in_memory(
    unstarted: QmtpTree,
) -> None:
    unstarted.tree.control("timeoutqmtpd", "2\n")
    unstarted.start()
    recips = b"".join([b"1:x,"] * 50_000)
    wire = b"1:\n,0:,%d:%b," % (len(recips), recips)
    with Client(unstarted.qmtp) as client, pytest.raises(ConnectionError):
        client.sock.sendall(wire * 300)
    [pid] = unstarted.tree.pids("qmail-qmtpd")
    assert psutil.Process(pid).memory_info().rss < 150 << 20


def test_too_many_sessions_are_sent_away(unstarted: QmtpTree) -> None:
    unstarted.tree.control("concurrencyqmtpdperip", "3\n")
    unstarted.start()
    clients = [Client(unstarted.qmtp) for _ in range(3)]
    for client in clients:
        client.send(package(b"\nx", b"", BOX))
        assert is_accepted(client.answer())
    assert ask_qmtp(unstarted.qmtp, package(b"\nx", b"", BOX)) == []
    unstarted.tree.find(rb"control/concurrencyqmtpdperip: clients are sent away")
    clients.pop().close()
    until(lambda: bool(ask_qmtp(unstarted.qmtp, package(b"\nx", b"", BOX))))
    for client in clients:
        client.close()


# What dies


def kill(tree: QmtpTree, title: str) -> None:
    until(lambda: len(tree.tree.pids(title)) == 1)
    [pid] = tree.tree.pids(title)
    psutil.Process(pid).send_signal(signal.SIGKILL)
    tree.tree.wait_for(rb"lost %b" % title.encode())


def test_killed_qmtpd_is_replaced_and_listens_on(served: QmtpTree) -> None:
    with Client(served.qmtp) as client:
        client.send(b"1000:\nx")
        until(lambda: served.drafts() == 1)  # before, its successor could accept it
        kill(served, "qmail-qmtpd")
        assert client.rest() == []
    assert is_accepted(ask_qmtp(served.qmtp, package(b"\nx\n", b"", BOX))[0])
    until(lambda: not served.queued())


def test_lost_enqueue_is_z_and_the_next_one_is_used(served: QmtpTree) -> None:
    with Client(served.qmtp) as client:
        client.send(b"6:\nx")
        until(lambda: served.drafts() == 1)
        kill(served, "qmail-queue")
        client.send(b"abc\n,0:,20:16:%b,," % BOX)
        assert client.answer() == b"Zcommunication with mail server failed (#4.4.2)"

        def works() -> bool:
            client.send(package(b"\nx\n", b"", BOX))
            return is_accepted(client.answer())

        until(works)


def test_lost_lookup_is_replaced(served: QmtpTree) -> None:
    kill(served, "qmail-lookup")
    assert is_accepted(ask_qmtp(served.qmtp, package(b"\nx\n", b"", BOX))[0])


def test_stop_cuts_clients_off_and_ends_in_time(served: QmtpTree) -> None:
    with Client(served.qmtp) as client, Client(served.qmqp) as other:
        client.send(b"1000:\nx")
        other.send(b"1000:500:x")
        until(lambda: served.drafts() == 2)
        began = clock.mono()
        assert served.tree.stop() == 0
        assert clock.mono() - began < 20
        assert (client.rest(), other.rest()) == ([], [])


def test_stop_without_clients_is_quiet(served: QmtpTree) -> None:
    assert served.tree.stop() == 0
    assert b"alert" not in served.tree.log


def test_process_is_qmaild_and_confined(served: QmtpTree) -> None:
    assert is_accepted(ask_qmtp(served.qmtp, package(b"\nx\n", b"", BOX))[0])
    [pid] = served.tree.pids("qmail-qmtpd")
    entry = pwd.getpwnam("qmaild")
    process = psutil.Process(pid)
    assert set(process.uids()) == {entry.pw_uid}
    assert set(process.gids()) == {entry.pw_gid}
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    groups = re.search(r"(?m)^Groups:\t(.*)$", status)
    assert groups is not None
    assert {int(gid) for gid in groups[1].split()} <= {entry.pw_gid}
    assert "Seccomp:\t2" in status
