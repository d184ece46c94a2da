"""maildirpush: a tree of directories, each locked and pushed to its own host."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from qsend.sysio import clock
from tests.cli.recorder import Outcome, Recorder
from tests.smtppeer import LOCKSTEP, Odd, Peer

OWNER = 64321
GUIDE = Path(__file__).parents[2] / "docs/SERIALMAIL.md"
POSTED = "Return-Path: <s@x>\nDelivered-To: {prefix}r@{name}\nSubject: x\n\n{name}\n"


class Place:
    """A base directory, and the program."""

    def __init__(self, path: Path) -> None:
        self.recorder = Recorder(path)
        self.base = path / "serialmail"
        self.base.mkdir(mode=0o755)

    def directory(
        self, name: str, relayhost: str | None, count: int = 1, prefix: str = ""
    ) -> Path:
        """A customer's directory with messages; the Maildir is OWNER's."""
        made = self.base / name
        for each in ("", "Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"):
            (made / each).mkdir()
        if relayhost is not None:
            (made / "RELAYHOST").write_text(relayhost)
        for at in range(count):
            path = made / f"Maildir/new/{at}"
            path.write_text(POSTED.format(prefix=prefix or f"{name}-", name=name))
            posted = path.stat().st_mtime - 100
            os.utime(path, (posted, posted))
        if os.getuid() == 0:
            for path in (made / "Maildir", *(made / "Maildir").rglob("*")):
                shutil.chown(path, OWNER, OWNER)
        return made

    def run(self, *args: str) -> Outcome:
        return self.recorder.run("maildirpush", "main(args)", [*args], b"", {})

    def push(self, *options: str) -> Outcome:
        return self.run("-g", "0", *options, str(self.base))

    def left(self, name: str) -> int:
        return len(list((self.base / name / "Maildir/new").iterdir()))


@pytest.fixture
def place(open_tmp: Path) -> Place:
    # Bounces are queued by the Maildir's owner.
    (open_tmp / "sub").mkdir()
    made = Place(open_tmp / "sub")
    made.recorder.record.chmod(0o777)
    return made


def test_each_directory_is_pushed_to_its_own_host(place: Place) -> None:
    with Peer(LOCKSTEP) as one, Peer(LOCKSTEP) as two:
        place.directory("a.example", f"127.0.0.1:{one.port}\n", 3)
        place.directory("b.example", f"127.0.0.1:{two.port}\n", 2)
        place.directory("empty.example", f"127.0.0.1:{two.port}\n", 0)
        place.directory("none.example", None)
        (place.base / "README").touch()
        done = place.push()
        assert done.code == 0, done.stderr
        assert (len(one.contents), len(two.contents)) == (3, 2)
        assert len(two.served) == 1
        assert b"RCPT TO:<r@a.example>" in one.commands
        assert one.commands[0] == b"EHLO me.example.org"
    assert [place.left(name) for name in ("a.example", "b.example")] == [0, 0]
    assert place.left("none.example") == 1
    assert b"maildirpush: a.example: info: new/0 succeeded: " in done.stderr


def test_locked_directory_is_left_alone(place: Place) -> None:
    with Peer(LOCKSTEP) as peer:
        busy = place.directory("busy.example", f"127.0.0.1:{peer.port}\n")
        place.directory("free.example", f"127.0.0.1:{peer.port}\n")
        with (busy / "RELAYHOST").open() as theirs:
            fcntl.flock(theirs, fcntl.LOCK_EX)
            assert place.push() == Outcome(
                code=0,
                stdout=b"",
                stderr=b"maildirpush: free.example: info: new/0 succeeded:"
                b" 127.0.0.1 said: 250 ok\n",
                message=b"",
                envelope=None,
            )
        assert place.left("busy.example") == 1
        assert place.push().code == 0
        assert place.left("busy.example") == 0


def test_directory_is_locked_while_its_transfer_runs(place: Place) -> None:
    with Peer(LOCKSTEP, gate="DOT") as slow, Peer(LOCKSTEP) as other:
        made = place.directory("a.example", f"127.0.0.1:{slow.port}\n")
        place.directory("b.example", f"127.0.0.1:{other.port}\n")
        words = place.recorder.command("maildirpush", "main(args)", [])
        with subprocess.Popen(
            [*words, "-g", "0", str(place.base)],
            env=place.recorder.environ,
            stderr=subprocess.DEVNULL,
        ) as process:
            slow.wait_at_gate()
            # A second master, as the next minute of cron: only new work is done.
            place.directory("c.example", f"127.0.0.1:{other.port}\n")
            assert place.push().code == 0
            assert place.left("c.example") == 0
            assert (place.left("a.example"), len(slow.served)) == (1, 1)
            with (made / "RELAYHOST").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            slow.open_gate()
            assert process.wait(30) == 0
        with (made / "RELAYHOST").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert place.left("a.example") == 0


def test_detached_master_leaves_the_transfers_running(place: Place) -> None:
    with Peer(LOCKSTEP, gate="DOT") as slow:
        made = place.directory("a.example", f"127.0.0.1:{slow.port}\n")
        words = place.recorder.command("maildirpush", "main(args)", [])
        done = subprocess.run(
            [*words, "-d", str(place.base)],
            env=place.recorder.environ,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0
        slow.wait_at_gate()
        assert place.left("a.example") == 1
        slow.open_gate()
        with (made / "RELAYHOST").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert place.left("a.example") == 0


def test_transfers_start_a_grace_period_apart(place: Place) -> None:
    with Peer(LOCKSTEP) as peer:
        for name in "abc":
            place.directory(name, f"127.0.0.1:{peer.port}\n")
        for name in "xyz":
            place.directory(name, f"127.0.0.1:{peer.port}\n", 0)
        before = clock.mono()
        assert place.run("-g", "0.7", str(place.base)).code == 0
        # Two pauses between three; those without mail cost none.
        assert 1.4 <= clock.mono() - before < 30
        assert len(peer.contents) == 3


@pytest.mark.root
def test_transfer_runs_as_the_owner_of_the_maildir(place: Place) -> None:
    with Peer({**LOCKSTEP, "RCPT": b"550 no"}) as peer:
        place.directory("a.example", f"127.0.0.1:{peer.port}\n")
        place.recorder.script.write_text(
            "#!/bin/sh\nid -u >$RECORD/message; id -G >>$RECORD/message; cat <&1"
            " >$RECORD/envelope; cat >/dev/null\n"
        )
        done = place.push()
    assert (done.code, done.recips) == (0, [b"s@x"]), done.stderr
    assert done.message == f"{OWNER}\n{OWNER}\n".encode()


@pytest.mark.root
def test_maildir_of_root_is_refused(place: Place) -> None:
    made = place.directory("a.example", "127.0.0.1:1\n")
    shutil.chown(made / "Maildir", 0, 0)
    done = place.push()
    assert (done.code, place.left("a.example")) == (111, 1)
    assert b"a.example: warning: Maildir belongs to root" in done.stderr


@pytest.mark.root
@pytest.mark.parametrize("kind", ["second name", "link", "of a stranger", "fifo"])
def test_relayhost_that_may_be_somebody_elses_secret_is_refused(
    place: Place, kind: str
) -> None:
    made = place.directory("a.example", "127.0.0.1:1\n")
    secret = place.base.parent / "secret"
    secret.write_text("127.0.0.1:1\n")
    relayhost = made / "RELAYHOST"
    if kind == "of a stranger":
        shutil.chown(relayhost, 64999)
    else:
        relayhost.unlink()
    if kind == "second name":
        relayhost.hardlink_to(secret)
    elif kind == "link":
        relayhost.symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(relayhost)
    done = place.push()
    assert (done.code, place.left("a.example")) == (111, 1)
    assert b"maildirpush: a.example: warning: " in done.stderr
    assert b"connect" not in done.stderr


def test_one_bad_directory_does_not_hold_up_the_others(place: Place) -> None:
    with Peer(LOCKSTEP) as peer:
        place.directory("a.example", "not a host\n")
        shutil.rmtree(place.directory("b.example", "127.0.0.1:1\n") / "Maildir")
        shutil.rmtree(place.directory("c.example", "127.0.0.1:1\n") / "Maildir/cur")
        for each in (place.base / "c.example/Maildir/new").iterdir():
            each.unlink()
        place.directory("d.example", f"127.0.0.1:{peer.port}\n")
        done = place.push()
    assert (done.code, place.left("d.example")) == (111, 0)
    assert b"a.example: warning: RELAYHOST names no host" in done.stderr
    assert b"b.example: warning: there is no Maildir" in done.stderr
    assert b"c.example: warning: Maildir/cur: No such file or directory" in done.stderr


def test_host_that_is_away_keeps_its_mail_and_is_told(place: Place) -> None:
    with Peer({**LOCKSTEP, "greeting": Odd.CLOSE}) as away, Peer(LOCKSTEP) as peer:
        place.directory("a.example", f"127.0.0.1:{away.port}\n")
        place.directory("b.example", f"127.0.0.1:{peer.port}\n")
        done = place.push()
        assert len(away.served) == 1
    assert (done.code, place.left("a.example"), place.left("b.example")) == (111, 1, 0)
    assert b"maildirpush: a.example: fatal: network read error" in done.stderr


def test_prefix_port_and_name_can_be_given(place: Place) -> None:
    with Peer(LOCKSTEP) as peer:
        made = place.directory("a.example", "127.0.0.1\n", prefix="customer-")
        assert place.push("-p", str(peer.port)).code == 0
        assert place.left("a.example") == 1
        (made / "PREFIX").write_text("customer-\n")
        done = place.push("-p", str(peer.port), "-H", "other.example")
        assert (done.code, place.left("a.example")) == (0, 0)
        assert peer.commands[0] == b"EHLO other.example"
        assert b"RCPT TO:<r@a.example>" in peer.commands


def test_lifetime_can_be_given(place: Place) -> None:
    place.directory("a.example", "127.0.0.1:1\n")
    done = place.push("-t", "50")
    assert (done.code, place.left("a.example"), done.recips) == (111, 0, [b"s@x"])


def test_own_name_is_needed(place: Place) -> None:
    (place.recorder.home / "control/me").unlink()
    done = place.push()
    assert done.code == 111
    assert b"neither control/helohost nor control/me" in done.stderr
    place.recorder.control("helohost", "helo.example")
    assert place.push().code == 0


def test_commands_of_cron_and_systemd_are_right(place: Place) -> None:
    commands = re.findall(
        r"/var/qmail/bin/maildirpush ([-\w ]*)/home/serialmail\b", GUIDE.read_text()
    )
    assert len(commands) == 2
    for options in commands:
        place.directory(f"a{options.strip()}.example", "127.0.0.1:1\n", 0)
        assert place.run(*options.split(), str(place.base)).code == 0


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["a", "b"],
        ["-g", "x", "b"],
        ["-g", "-1", "b"],
        ["-g", "nan", "b"],
        ["-t", "x", "b"],
        ["-p", "0", "b"],
        ["-q", "b"],
    ],
)
def test_wrong_usage(place: Place, args: list[str]) -> None:
    done = place.run(*args)
    assert done.code == 100
    assert b"maildirpush: usage: maildirpush " in done.stderr


def test_missing_base_is_told(place: Place) -> None:
    done = place.run("/nonexistent")
    assert done.code == 111
    assert b"unable to read /nonexistent: No such file" in done.stderr
