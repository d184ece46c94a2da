"""Programs in the place of qmail-queue, and what they say on descriptor 6."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pwd import getpwnam

import psutil
import pytest

from tests.smtpdtree import SmtpTree, tcpserver
from tests.tree.harness import until

pytestmark = pytest.mark.root


@pytest.fixture
def program(smtp: SmtpTree, open_tmp: Path) -> Path:
    """A script that rules name as QMAILQUEUE."""
    path = open_tmp / "program"
    smtp.rules(f':allow,QMAILQUEUE="{path}",MARK="of the rule"\n')
    return path


@pytest.fixture(params=["listener", "tcpserver"])
def port(
    request: pytest.FixtureRequest, smtp: SmtpTree, program: Path
) -> Iterator[int]:
    """smtpd's own, or that of qmail-smtpd."""
    if request.param == "listener":
        yield smtp.port
        return
    with tcpserver(smtp, "-x", str(smtp.tree.home / "control/tcp.smtp.cdb")) as port:
        yield port


def put(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


PIPELINED = (
    b"EHLO c\r\nMAIL FROM:<me@far.example>\r\nRCPT TO:<box@here.example>\r\nDATA\r\n"
)


def answer(smtp: SmtpTree, port: int, lines: int = 100_000) -> tuple[int, bytes]:
    with smtp.client(port) as client:
        client.mail("me@far.example")
        client.rcpt("box@here.example")
        return client.data(b"Subject: x\r\n\r\n" + b"x\r\n" * lines)


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ("cat >/dev/null; echo -n 'Dno viruses (#5.7.1)' >&6; exit 82",
         (554, b"5.7.1 no viruses (#5.7.1)")),
        ("echo -n 'Zbusy (#4.3.2)' >&6; exit 82", (451, b"4.3.2 busy (#4.3.2)")),
        ("printf 'Dtwo\\r\\n250 lines' >&6; exit 82", (554, b"two  250 lines")),
        ("printf D%0999d 0 >&6; exit 82", (554, b"0" * 254)),
        ("echo -n D >&6; exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("echo -n 'Xwhat' >&6; exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("exit 82", (451, b"4.3.0 qq temporary problem (#4.3.0)")),
        ("echo -n 'Dignored' >&6; exit 31",
         (554, b"5.3.0 mail server permanently rejected message (#5.3.0)")),
        ("echo -n 'Dignored' >&6; exit 53",
         (451, b"4.3.0 qq write error or disk full (#4.3.0)")),
        ("kill -9 $$", (451, b"4.3.0 qq crashed (#4.3.0)")),
    ],
)  # fmt: skip
def test_reply_is_what_the_program_says(
    smtp: SmtpTree, port: int, program: Path, script: str, want: tuple[int, bytes]
) -> None:
    put(program, script)
    assert answer(smtp, port) == want


def test_program_may_change_the_message_and_queue_it(
    smtp: SmtpTree, port: int, program: Path
) -> None:
    queue = smtp.tree.home / "bin/qmail-queue"
    put(program, f"unset QMAILQUEUE; (echo X-Seen: yes; cat) | {queue} <&0")
    code, said = answer(smtp, port)
    assert (code, said[:9]) == (250, b"2.0.0 ok ")
    assert smtp.tree.reports(b"box@here.example")[0].startswith(b"success")
    [path] = (smtp.tree.home / "alias/Maildir/new").iterdir()
    assert b"\nX-Seen: yes\nReceived: " in path.read_bytes()


def test_program_is_told_of_the_client(
    smtp: SmtpTree, port: int, program: Path, open_tmp: Path
) -> None:
    os.mkfifo(open_tmp / "told", 0o666)
    (open_tmp / "told").chmod(0o666)
    told = "(cat <&3 | tr '\\0' '!'; echo; env)"
    put(program, f"cat >/dev/null; exec 3<&1; {told} >{open_tmp}/told")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit((open_tmp / "told").read_text)
        assert answer(smtp, port)[0] == 250
        envelope, *lines = reading.result(30).splitlines()
    assert envelope == "Fme@far.example!Tbox@here.example!!"
    environ = dict(line.partition("=")[::2] for line in lines)
    assert (environ["TCPREMOTEIP"], environ["MARK"], environ["PROTO"]) == (
        "127.0.0.1", "of the rule", "TCP",
    )  # fmt: skip
    if port == smtp.port:
        known = {"PATH", "QSEND_HOME", "QMAILQUEUE", "MARK", "PROTO", "TCPREMOTEIP"}
        assert environ.keys() - {"PWD", "_", "OLDPWD", "SHLVL"} == known


# runner, which only the listeners of the tree need


def test_no_runner_without_a_rule_that_needs_one(smtp: SmtpTree) -> None:
    smtp.rules(':allow,RELAYCLIENT=""\n')
    assert answer(smtp, smtp.port)[0] == 250
    assert smtp.tree.pids("qmail-runner") == []


def test_program_has_no_right_and_no_descriptor_of_ours(
    smtp: SmtpTree, program: Path
) -> None:
    put(program, "cat >/dev/null; ls -l /proc/$$/fd >&2; id >&2; pwd >&2; exit 31")
    assert answer(smtp, smtp.port)[0] == 554
    smtp.tree.find(rb"uid=\d+\(qmaild\) gid=\d+\(nofiles\) groups=\d+\(nofiles\)\n")
    smtp.tree.find(re.escape(str(smtp.tree.home).encode()) + rb"\n")
    shown = re.findall(rb" (\d+) -> (\w+|/dev/null)", smtp.tree.log)
    # 10 is what dash keeps its script in, 11 what it redirects here.
    assert {int(fd) for fd, _ in shown} - {10, 11} == {0, 1, 2, 6}
    [pid] = smtp.tree.pids("qmail-runner")
    status = Path(f"/proc/{pid}/status").read_text()
    uid = getpwnam("qmaild").pw_uid
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert "CapEff:\t0000000000000000\n" in status


def test_program_that_hangs_is_killed(unstarted: SmtpTree, open_tmp: Path) -> None:
    unstarted.tree.control("timeoutrunner", "1\n")
    unstarted.start()
    program = open_tmp / "program"
    unstarted.rules(f':allow,QMAILQUEUE="{program}"\n')
    for script in ("cat >/dev/null; sleep 1000", "sleep 1000"):
        # The second does not even read: more than a pipe holds stays behind.
        put(program, script)
        size = 100 if script == "sleep 1000" else 100_000
        want = (451, b"4.3.0 qq timeout (#4.3.0)")
        assert answer(unstarted, unstarted.port, size) == want
    unstarted.tree.find(rb"program does not end \(control/timeoutrunner\), killing it")
    [runner] = unstarted.tree.pids("qmail-runner")
    until(lambda: psutil.Process(runner).children() == [])


def test_no_more_programs_than_allowed(unstarted: SmtpTree, open_tmp: Path) -> None:
    unstarted.tree.control("concurrencyrunner", "1\n")
    unstarted.start()
    program = open_tmp / "program"
    unstarted.rules(f':allow,QMAILQUEUE="{program}"\n')
    put(program, "echo there >&2; cat >/dev/null; exec cat <&1 >&2")
    with unstarted.raw() as first:
        assert first.codes(PIPELINED, 4) == [250, 250, 250, 354]
        unstarted.tree.find(rb"there\n")
        want = (451, b"4.3.0 mail server temporarily rejected message (#4.3.0)")
        assert answer(unstarted, unstarted.port) == want
        unstarted.tree.find(rb"control/concurrencyrunner: clients are told to come")
        assert first.ask(b"x\r\n.").startswith(b"250 ")
    assert answer(unstarted, unstarted.port)[0] == 250


def test_client_that_leaves_halfway_has_sent_nothing(
    smtp: SmtpTree, program: Path
) -> None:
    queue = smtp.tree.home / "bin/qmail-queue"
    put(program, f"{queue}; code=$?; echo exit $code >&2; exit $code")
    with smtp.raw() as raw:
        assert raw.codes(PIPELINED, 4) == [250, 250, 250, 354]
        raw.send(b"Subject: half\r\n\r\n" + b"x\r\n" * 100_000)
    smtp.tree.find(rb"exit (54|91)\n")
    assert smtp.queued() == []


def test_lost_runner_is_a_temporary_failure(smtp: SmtpTree, program: Path) -> None:
    put(program, "cat >/dev/null; kill -9 $PPID; sleep 0.2")
    assert answer(smtp, smtp.port) == (
        451, b"4.4.2 communication with mail server failed (#4.4.2)",
    )  # fmt: skip
    put(program, "cat >/dev/null; exec cat <&1 >&2")
    assert answer(smtp, smtp.port)[0] == 250
    smtp.tree.find(rb"lost qmail-runner \(killed by signal 9\), starting it again")


def test_program_that_cannot_be_run(smtp: SmtpTree, program: Path) -> None:
    assert answer(smtp, smtp.port) == (451, b"4.3.0 unable to exec qq (#4.3.0)")
    smtp.tree.find(rb"qmail-runner: .*/program cannot be run \(exit 120\)")


def test_rules_that_change_halfway_leave_no_filter_out(
    smtp: SmtpTree, program: Path
) -> None:
    put(program, "exec cat >/dev/null")
    with smtp.raw() as raw:
        assert raw.codes(PIPELINED[:-6], 3) == [250, 250, 250]
        smtp.rules(":allow\n")
        assert raw.ask(b"DATA").startswith(b"354 ")
        assert raw.ask(b"x\r\n.").startswith(b"451 4.3.0 mail server temporarily")
    smtp.tree.find(rb"127.0.0.1: the rules have changed; it is to come back")


def test_many_clients_share_the_runner(smtp: SmtpTree, program: Path) -> None:
    put(program, f"exec {smtp.tree.home}/bin/qmail-queue")
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: answer(smtp, smtp.port)[0], range(24)))
    assert codes == [250] * 24
    assert len(smtp.tree.pids("qmail-runner")) == 1
    smtp.tree.wait_for(rb"delivery \d+: success: ", 24)


def test_runner_ends_with_the_tree(smtp: SmtpTree, program: Path) -> None:
    put(program, "cat >/dev/null; echo waiting >&2; exec sleep 1000")
    with smtp.raw() as raw:
        assert raw.codes(PIPELINED, 4) == [250, 250, 250, 354]
        raw.send(b"x\r\n.\r\n")
        smtp.tree.find(rb"waiting\n")
        [runner] = smtp.tree.pids("qmail-runner")
        [child] = psutil.Process(runner).children()
        assert smtp.tree.stop() == 0
        assert not raw.line().startswith(b"250")
    child.wait(30)
