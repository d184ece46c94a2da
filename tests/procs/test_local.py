from __future__ import annotations

import mailbox
import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qsend.core.model import Account, DelId, Letter, Ownership, User
from qsend.formats import delivery as wire
from qsend.formats import frames
from qsend.formats.control import Controls, Durability
from qsend.formats.delivery import ChildDelivery, Report
from qsend.procs import local
from qsend.sysio import privilege
from qsend.sysio.boot import ChildBoot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child

OTHER_UID = 12345
"""A uid without a passwd entry: the child must not need one."""

MESSAGE = b"Subject: x\n\nbody\n"
ME = Account(uid=os.getuid(), gid=os.getgid())


class Child:
    """A real local child, spoken to as lspawn does."""

    def __init__(self, tmp: Path, account: Account = ME) -> None:
        self.tmp = tmp
        self.account = account
        self.home = tmp / "home"
        self.home.mkdir(mode=0o700)
        for name in ("tmp", "new", "cur"):
            (self.home / "Maildir" / name).mkdir(parents=True)
        (tmp / "message").write_bytes(MESSAGE)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, account.uid, account.gid)
        self.sock, theirs = pair()
        self.sock.settimeout(60)

        def run() -> int:
            privilege.drop(account)
            privilege.hide()
            return local.main(
                ChildBoot(
                    home=str(tmp),
                    account=account,
                    controls=Controls(durability=Durability.FULL),
                    default_delivery=b"./Maildir/\n",
                    sock=theirs,
                    single_user=account == ME,
                )
            )

        self.pid = fork_child(run, [theirs.fileno()], "local")
        theirs.close()
        self.exit_code: int | None = None

    def write(self, text: str) -> None:
        path = self.home / ".qmail"
        path.write_text(text)
        os.chown(path, self.account.uid, self.account.gid)

    def asked(self, delid: int, *, ext: bytes = b"", sender: bytes = b"s@t") -> bytes:
        """The frame that asks for a delivery."""
        user = User(
            name=b"joe",
            uid=self.account.uid,
            gid=self.account.gid,
            home=os.fsencode(self.home),
            dash=b"-" if ext else b"",
            ext=ext,
            ownership=Ownership.UID,
        )
        delivery = ChildDelivery(
            delid=DelId(delid), user=user, local=b"joe", domain=b"h", sender=sender
        )
        return wire.render_child(delivery)

    def ask(self, delid: int, *, ext: bytes = b"", sender: bytes = b"s@t") -> None:
        frame = self.asked(delid, ext=ext, sender=sender)
        fd = os.open(self.tmp / "message", os.O_RDONLY)
        socket.send_fds(self.sock, [frame], [fd])
        os.close(fd)

    def reports(self, count: int) -> list[Report]:
        found: list[Report] = []
        while len(found) < count:
            packet = self.sock.recv(frames.PACKET_MAX)
            assert packet, "the child closed the socket"
            for kind, body in frames.split(packet):
                assert kind == wire.REPORT
                found.append(wire.parse_report(body))
        return sorted(found, key=lambda report: report.delid)

    def deliver(self, delid: int = 1, *, ext: bytes = b"") -> Report:
        self.ask(delid, ext=ext)
        (report,) = self.reports(1)
        assert report.delid == delid
        return report

    def end(self) -> int:
        self.sock.close()
        return self.wait()

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def close(self) -> None:
        self.sock.close()
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def child(tmp_path: Path, stack: ExitStack) -> Child:
    child = Child(tmp_path)
    stack.callback(child.close)
    return child


def test_local_child_delivers_and_ends_with_its_socket(child: Child) -> None:
    assert child.deliver(7) == Report(
        delid=DelId(7), letter=Letter.SUCCESS, text=b"did 1+0+0\n"
    )
    box = mailbox.Maildir(child.home / "Maildir", create=False)
    (key,) = box.iterkeys()
    assert box.get_bytes(key) == (
        b"Return-Path: <s@t>\nDelivered-To: joe@h\n" + MESSAGE
    )
    assert child.end() == 0


def test_local_child_reports_each_of_many_once(child: Child) -> None:
    for delid in range(1, 201):
        child.ask(delid)
    reports = child.reports(200)
    assert [report.delid for report in reports] == list(range(1, 201))
    assert {report.text for report in reports} == {b"did 1+0+0\n"}
    assert len(os.listdir(child.home / "Maildir/new")) == 200
    assert child.end() == 0


def test_local_child_runs_deliveries_side_by_side(child: Child) -> None:
    os.mkfifo(child.home / "fifo")
    # Each waits for the other end of the pipe: alone, neither could finish.
    child.write("|case $SENDER in a@*) echo x >fifo;; *) cat fifo;; esac\n")
    child.ask(1, sender=b"b@t")
    child.ask(2, sender=b"a@t")
    first, second = child.reports(2)
    assert (first.text, second.text) == (b"x\ndid 0+0+1\n", b"did 0+0+1\n")


@pytest.mark.root
def test_local_child_as_another_user_owns_what_it_writes(
    open_tmp: Path, stack: ExitStack
) -> None:
    child = Child(open_tmp, Account(uid=OTHER_UID, gid=OTHER_UID))
    stack.callback(child.close)
    assert child.deliver(1).text == b"did 1+0+0\n"
    (path,) = (child.home / "Maildir/new").iterdir()
    assert (path.stat().st_uid, path.stat().st_gid) == (OTHER_UID, OTHER_UID)
    child.write(
        "|id -u; id -G; pwd; cat; grep NoNewPrivs /proc/self/status; echo >made\n"
    )
    uid, groups, pwd, rest = child.deliver(2).text.split(b"\n", 3)
    assert (uid, groups) == (b"12345", b"12345")
    assert pwd == os.fsencode(child.home)
    assert rest == MESSAGE + b"NoNewPrivs:\t0\ndid 0+0+1\n"
    assert (child.home / "made").stat().st_uid == OTHER_UID
    assert child.end() == 0


@pytest.mark.root
def test_local_child_refuses_a_home_of_another(
    open_tmp: Path, stack: ExitStack
) -> None:
    child = Child(open_tmp, Account(uid=OTHER_UID, gid=OTHER_UID))
    stack.callback(child.close)
    os.chown(child.home, 0, 0)
    child.home.chmod(0o755)
    report = child.deliver()
    assert report.letter is Letter.DEFERRAL
    assert b"another user" in report.text


def test_local_child_gives_programs_a_built_environment(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSEND_TEST_LEAK", "leaked")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("QMAILQUEUE", raising=False)
    child = Child(tmp_path)
    stack.callback(child.close)
    child.write("|cat /proc/self/environ | tr '\\000' '\\n'\n")
    text = child.deliver().text.decode()
    names = {line.partition("=")[0] for line in text.splitlines() if "=" in line}
    assert f"QSEND_HOME={tmp_path}\n" in text
    assert f"PATH={tmp_path}/bin:/usr/bin:/bin\n" in text
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH", "QSEND_HOME", "SENDER", "NEWSENDER", "RECIPIENT", "LOCAL", "HOST",
        "HOST2", "HOST3", "HOST4", "USER", "HOME", "EXT", "EXT2", "EXT3", "EXT4",
        "DTLINE", "RPLINE", "UFLINE",
    }  # fmt: skip


def test_local_child_forwards_through_the_queue_program(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = tmp_path / "queue-program"
    queue.write_text(f"#!/bin/sh\ncat >{tmp_path}/taken; cat <&1 >{tmp_path}/env\n")
    queue.chmod(0o755)
    monkeypatch.setenv("QMAILQUEUE", str(queue))
    child = Child(tmp_path)
    stack.callback(child.close)
    child.write("&x@y\n#\nz\n")
    report = child.deliver()
    assert report.letter is Letter.SUCCESS
    assert report.text.startswith(b"did 0+2+0\nqp ")
    assert (tmp_path / "taken").read_bytes() == b"Delivered-To: joe@h\n" + MESSAGE
    assert (tmp_path / "env").read_bytes() == b"Fs@t\0Tx@y\0Tz\0\0"


def test_local_child_cuts_a_long_report(child: Child) -> None:
    child.write("|head -c 5000 /dev/zero | tr '\\000' x; exit 100\n")
    report = child.deliver()
    assert report.letter is Letter.FAILURE
    assert report.text == b"x" * 2966 + b"\nError report too long, sorry.\n"


def test_local_child_survives_a_delivery_that_fails_unforeseen(child: Child) -> None:
    report = child.deliver(1, ext=b"a\0b")  # no address has a NUL byte
    assert report.letter is Letter.DEFERRAL
    assert report.text.startswith(b"Internal trouble: ValueError: ")
    assert child.deliver(2).letter is Letter.SUCCESS


def test_local_child_leaves_signals_of_the_group_alone(child: Child) -> None:
    assert child.deliver(1).letter is Letter.SUCCESS
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child.pid, signum)
        assert child.deliver(2).letter is Letter.SUCCESS
    child.write("|kill -TERM $$\n")
    assert b"killed by signal 15" in child.deliver(3).text


def test_local_child_ends_while_a_program_runs(child: Child) -> None:
    os.mkfifo(child.home / "pid")
    child.write("|echo $$ >pid; exec sleep 60\n./Maildir/\n")
    child.ask(1)
    program = int((child.home / "pid").read_text())
    assert child.end() == 0
    os.kill(program, signal.SIGKILL)
    assert os.listdir(child.home / "Maildir/new") == []


def test_local_child_finishes_a_forward_before_it_ends(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "started")
    os.mkfifo(tmp_path / "go")
    queue = tmp_path / "queue-program"
    queue.write_text(
        f"#!/bin/sh\necho x >{tmp_path}/started; read x <{tmp_path}/go\n"
        f"ps -o ppid= -p $$ >{tmp_path}/parent\ncat >/dev/null; cat <&1 >/dev/null\n"
    )
    queue.chmod(0o755)
    monkeypatch.setenv("QMAILQUEUE", str(queue))
    child = Child(tmp_path)
    stack.callback(child.close)
    child.write("&x@y\n")
    child.ask(1)
    (tmp_path / "started").read_text()
    child.sock.close()
    ended = os.pidfd_open(child.pid)
    assert select.select([ended], [], [], 0.3)[0] == []
    os.close(ended)
    (tmp_path / "go").write_text("x\n")
    assert child.wait() == 0
    assert int((tmp_path / "parent").read_text()) == child.pid


@pytest.mark.root
def test_local_child_keeps_no_descriptor_of_a_finished_delivery(child: Child) -> None:
    def count() -> int:
        return len(os.listdir(f"/proc/{child.pid}/fd"))

    # Neither the first, which has no loop, nor those that follow.
    child.deliver(1)
    assert count() == 4
    child.deliver(2)
    before = count()
    child.write("./Maildir/\n./box\n|cat >/dev/null\n")
    for delid in range(3, 23):
        child.ask(delid)
    assert {report.text for report in child.reports(20)} == {b"did 2+0+1\n"}
    assert count() == before


@pytest.mark.parametrize("packets", [1, 2])
def test_local_child_whose_first_deliveries_come_together_does_all(
    child: Child, packets: int
) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    sent = [child.asked(delid) for delid in (1, 2)]
    for part in (sent,) if packets == 1 else ([each] for each in sent):
        fds = [os.open(child.tmp / "message", os.O_RDONLY) for _ in part]
        socket.send_fds(child.sock, [b"".join(part)], fds)
        for fd in fds:
            os.close(fd)
    os.kill(child.pid, signal.SIGCONT)
    assert [report.delid for report in child.reports(2)] == [1, 2]
    assert child.end() == 0


def test_local_child_whose_first_delivery_blocks_does_the_next_beside_it(
    child: Child, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    child.write(f"|echo first; cat {fifo}\n")
    child.ask(1)
    # Opened by the program: the first one runs.
    with fifo.open("wb"):
        child.write("./Maildir/\n")
        assert child.deliver(2).text == b"did 1+0+0\n"
    (first,) = child.reports(1)
    assert (first.delid, first.text) == (1, b"first\ndid 0+0+1\n")


def test_local_child_whose_lspawn_is_gone_before_the_first_report_ends(
    child: Child, capfd: pytest.CaptureFixture[str]
) -> None:
    os.kill(child.pid, signal.SIGSTOP)
    child.ask(1)
    child.sock.close()
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait() == 0
    assert capfd.readouterr().err == ""
    assert len(os.listdir(child.home / "Maildir/new")) == 1


@pytest.mark.parametrize(
    "packet", [frames.frame(b"?", b""), b"\0", frames.frame(wire.CHILD, b"short")]
)
def test_local_child_drops_a_peer_that_speaks_otherwise(
    child: Child, packet: bytes
) -> None:
    child.sock.send(packet)
    assert child.sock.recv(1) == b""
    assert child.wait() == 0


def test_local_child_drops_a_delivery_without_message(child: Child) -> None:
    user = User(
        name=b"j",
        uid=1,
        gid=1,
        home=b"/",
        dash=b"",
        ext=b"",
        ownership=Ownership.TRUSTED,
    )
    delivery = ChildDelivery(
        delid=DelId(1), user=user, local=b"j", domain=b"h", sender=b""
    )
    child.sock.send(wire.render_child(delivery))
    assert child.sock.recv(1) == b""
    assert child.wait() == 0


def test_local_child_without_its_home_defers(child: Child) -> None:
    shutil.rmtree(child.home)
    report = child.deliver()
    assert report.letter is Letter.DEFERRAL
    assert b"#4.3.0" in report.text
