"""maildirserial: which messages a client gets, and what becomes of its answers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.cli.recorder import Outcome, Recorder

CLIENT = r"""
import os, sys
names = sys.stdin.buffer.read().split(b"\0")[:-1]
with open("../given", "ab") as file:
    file.write(b" ".join(names) + b"\n")
"""
"""Writes down what it was given, one line per run."""


class Place:
    """A maildir, and the program with a client in Python."""

    def __init__(self, path: Path) -> None:
        self.recorder = Recorder(path)
        self.maildir = path / "Maildir"
        for name in ("", "tmp", "new", "cur"):
            (self.maildir / name).mkdir()

    def message(
        self,
        name: str,
        age: int = 100,
        recip: bytes = b"pre-r@y",
        sender: bytes = b"s@x",
        head: bytes | None = None,
    ) -> Path:
        path = self.maildir / name
        if head is None:
            head = b"Return-Path: <%b>\nDelivered-To: %b\n" % (sender, recip)
        path.write_bytes(head + b"Subject: %b\n\nbody\n" % name.encode())
        at = path.stat().st_mtime - age
        os.utime(path, (at, at))
        return path

    def run(
        self,
        client: str,
        *options: str,
        prefix: str = "pre-",
        maildir: str = "Maildir",
        environ: dict[str, str] | None = None,
    ) -> Outcome:
        words = ["python3", "-c", CLIENT + client]
        return self.recorder.run(
            "maildirserial",
            "main(args)",
            [*options, maildir, prefix, *words],
            b"",
            environ or {},
        )

    @property
    def given(self) -> list[str]:
        """What each client got."""
        path = self.recorder.path / "given"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def left(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.maildir))
            for path in self.maildir.rglob("*")
            if path.is_file()
        )


def answer(letter: str, *names: str) -> str:
    """Client code that answers so for the names that it was given."""
    wanted = f"[n for n in names if n.decode() in {names!r}]" if names else "names"
    return f"for n in {wanted}: sys.stdout.buffer.write(n + b'\\0{letter} said\\n')\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_messages_come_oldest_first_and_go_when_they_are_delivered(
    place: Place,
) -> None:
    place.message("new/b", 50)
    place.message("cur/a:2,S", 90)
    place.message("new/c", 10)
    done = place.run(answer("K"))
    assert (done.code, done.stdout) == (0, b"")
    assert place.given == ["cur/a:2,S new/b new/c"]
    assert place.left == []
    assert done.stderr.splitlines()[0] == (
        b"maildirserial: info: cur/a:2,S succeeded:  said"
    )


def test_only_messages_with_the_prefix_are_given(place: Place) -> None:
    place.message("new/1")
    place.message("new/2", recip=b"other-r@y")
    place.message("new/3", head=b"Subject: none\n")
    place.message("new/.hidden")
    (place.maildir / "new/4").mkdir()
    (place.maildir / "new/5").symlink_to("1")
    os.mkfifo(place.maildir / "new/6")
    for name in ("4", "5", "6"):
        os.utime(place.maildir / "new" / name, (1, 1), follow_symlinks=False)
    done = place.run(answer("K"))
    assert done.code == 0
    assert place.given == ["new/1"]
    assert b"warning: unable to open new/6: not a file" in done.stderr


def test_empty_prefix_means_all(place: Place) -> None:
    place.message("new/1", head=b"Subject: none\n")
    assert place.run(answer("K"), prefix="").code == 0
    assert place.given == ["new/1"]


def test_messages_of_this_second_wait(place: Place) -> None:
    place.message("new/1", age=-5)
    assert place.run(answer("K")).code == 0
    assert place.given == []
    assert place.left == ["new/1"]


def test_nothing_to_do_starts_no_client(place: Place) -> None:
    assert place.run("") == Outcome(
        code=0, stdout=b"", stderr=b"", message=b"", envelope=None
    )
    assert place.given == []


@pytest.mark.parametrize(
    ("letter", "words"), [("Z", b"failed temporarily"), ("D", b"failed")]
)
def test_undelivered_message_is_left_and_not_tried_again(
    place: Place, letter: str, words: bytes
) -> None:
    place.message("new/1", 90)
    place.message("new/2", 80)
    first = answer(letter, "new/1")
    done = place.run(f"if len(names) == 2:\n    {first}else:\n    {answer('K')}")
    assert done.code == 111
    assert place.given == ["new/1 new/2", "new/2"]
    assert place.left == ["new/1"]
    assert b"info: new/1 %b:  said" % words in done.stderr


@pytest.mark.parametrize("code", [0, 1, 111])
def test_three_clients_without_an_answer_end_the_run(place: Place, code: int) -> None:
    place.message("new/1")
    done = place.run(f"sys.exit({code})")
    assert done.code == 111
    assert place.given == ["new/1"] * 3
    assert done.stderr == b"maildirserial: fatal: making no progress, giving up\n"


def test_every_answer_gives_three_more_chances(place: Place) -> None:
    for at in range(5):
        place.message(f"new/{at}", 100 - at)
    done = place.run(
        "count = len(open('../given').readlines())\n"
        "if count % 3 == 0: sys.stdout.buffer.write(names[0] + b'\\0K\\n')\n"
    )
    assert done.code == 0
    assert len(place.given) == 15


def test_client_that_knows_better_ends_the_run(place: Place) -> None:
    place.message("new/1")
    assert place.run("sys.exit(100)").code == 100
    assert place.given == ["new/1"]


def test_client_that_is_killed_ends_the_run_after_its_answers(place: Place) -> None:
    place.message("new/1", 90)
    place.message("new/2", 80)
    done = place.run(
        answer("K", "new/1") + "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    assert (done.code, place.left) == (111, ["new/2"])
    assert done.stderr.endswith(b"maildirserial: fatal: client crashed\n")


def test_client_may_not_speak_of_other_files(place: Place) -> None:
    place.message("new/1")
    precious = place.recorder.path / "precious"
    precious.touch()
    place.message("cur/2", recip=b"other@y")
    done = place.run(
        "for n in (b'../precious', b'cur/2', b'', b'new/1', b'new/1'):\n"
        "    sys.stdout.buffer.write(n + b'\\0K\\n')\n"
    )
    assert done.code == 0
    assert precious.exists()
    assert place.left == ["cur/2"]
    assert done.stderr.count(b"succeeded") == 1


def test_message_that_cannot_be_removed_is_told_and_not_sent_again(
    place: Place,
) -> None:
    place.message("new/1")
    done = place.run("os.unlink('new/1')\n" + answer("K"))
    assert done.code == 111
    assert place.given == ["new/1"]
    assert b"message will be delivered twice! unable to unlink new/1" in done.stderr


def test_garbage_on_its_output_ends_the_run(place: Place) -> None:
    place.message("new/1")
    done = place.run("sys.stdout.write('x' * 100000)")
    assert done.code == 111
    assert b"client writes no results" in done.stderr


def test_client_that_cannot_be_run(place: Place) -> None:
    place.message("new/1")
    done = place.recorder.run(
        "maildirserial", "main(args)", ["Maildir", "pre-", "/nonexistent"], b"", {}
    )
    assert done.code == 111
    assert done.stderr.startswith(b"maildirserial: fatal: unable to run /nonexistent")


def test_client_has_the_descriptors_we_were_given(place: Place) -> None:
    place.message("new/1")
    seen = place.recorder.path / "seen"
    command = place.recorder.command("maildirserial", "main(args)", [])
    client = f"echo hello >&7; printf 'new/1\\0K\\n' | tee {seen}"
    words = [*command, "Maildir", "pre-", "sh", "-c", client]
    out = place.recorder.path / "out"
    code = os.spawnve(
        os.P_WAIT,
        "/bin/sh",
        ["sh", "-c", f'cd {place.recorder.path}; "$@" 7>{out}', "sh", *words],
        place.recorder.environ,
    )
    assert code == 0
    assert out.read_text() == "hello\n"


def test_stale_files_in_tmp_are_removed(place: Place) -> None:
    for name, age in (("old", 129700), ("young", 1000)):
        path = place.maildir / "tmp" / name
        path.touch()
        at = path.stat().st_mtime - age
        os.utime(path, (at, at))
    place.run("")
    assert place.left == ["tmp/young"]


# bounces


def test_failure_is_returned_to_its_sender_with_the_message(place: Place) -> None:
    place.message("new/1", sender=b'"a b"@x')
    place.recorder.control("bouncefrom", "postie")
    done = place.run(answer("D"), "-b")
    assert (done.code, place.left) == (0, [])
    assert (done.sender, done.recips) == (b"", [b"a b@x"])
    assert b"From: postie@me.example.org" in done.header
    assert b'To: "a b"@x' in done.header
    body = done.message.split(b"\n\n", 1)[1]
    assert body.startswith(
        b"Hi. This is the maildirbounce program at me.example.org.\n"
    )
    assert (
        b"\n\n<r@y>:\n said\n\n--- Below this line is a copy of the message.\n\n"
        in body
    )
    assert body.endswith(b'Return-Path: <"a b"@x>\nSubject: new/1\n\nbody\n')
    assert b"info: new/1 bounced:  said\n" in done.stderr
    assert b"info: returned new/1: qp " in done.stderr


def test_message_over_its_lifetime_is_a_failure(place: Place) -> None:
    place.message("new/1", age=1000)
    place.message("new/2", age=10)
    done = place.run(answer("Z"), "-bt", "500")
    assert (done.code, place.left) == (111, ["new/2"])
    assert b"<r@y>:\n said\nThis message is too old. Giving up.\n\n" in done.message


def test_lifetime_without_bounces_only_changes_the_words(place: Place) -> None:
    place.message("new/1", age=1000)
    done = place.run(answer("Z"), "-t", "500")
    assert (done.code, done.envelope, place.left) == (111, None, ["new/1"])
    assert b"info: new/1 failed:  said\n" in done.stderr


def test_bounce_that_fails_goes_to_the_postmaster(place: Place) -> None:
    place.message("new/1", sender=b"")
    place.recorder.control("doublebounceto", "boss")
    done = place.run(answer("D"), "-b")
    assert (done.sender, done.recips) == (b"#@[]", [b"boss@me.example.org"])
    assert (
        b"--- Below this line is the original bounce.\n\nReturn-Path: <>"
        in done.message
    )


def test_bounce_of_a_bounce_of_a_bounce_is_discarded(place: Place) -> None:
    place.message("new/1", sender=b"#@[]")
    done = place.run(answer("D"), "-b")
    assert (done.code, done.envelope, place.left) == (0, None, [])
    assert b"info: discarding new/1: triple bounce" in done.stderr


@pytest.mark.parametrize(
    ("head", "environ", "words"),
    [
        (b"Subject: x\n", {}, b"unable to bounce new/1: bad file format"),
        (None, {"QUEUE_EXIT": "53"}, b"unable to bounce new/1: qq failed: "),
        (None, {"QUEUE_EXIT": "31"}, b"unable to bounce new/1: qq failed: "),
    ],
)
def test_message_whose_bounce_fails_stays(
    place: Place, head: bytes | None, environ: dict[str, str], words: bytes
) -> None:
    place.message("new/1", head=head)
    done = place.run(answer("D"), "-b", prefix="", environ=environ)
    assert (done.code, place.left) == (111, ["new/1"])
    assert words in done.stderr


# usage


@pytest.mark.parametrize(
    "args",
    [[], ["d"], ["d", "p"], ["-x", "d", "p", "c"], ["-t"], ["-t", "2w", "d", "p", "c"]],
)
def test_wrong_usage(place: Place, args: list[str]) -> None:
    done = place.recorder.run("maildirserial", "main(args)", args, b"", {})
    assert done.code == 100
    assert done.stderr.endswith(
        b"maildirserial: usage: maildirserial [ -b ] [ -t lifetime ]"
        b" dir prefix client [ arg ... ]\n"
    )


def test_maildir_that_cannot_be_entered(place: Place) -> None:
    done = place.run("", maildir="nowhere")
    assert done.code == 111
    assert done.stderr == (
        b"maildirserial: fatal: unable to chdir to nowhere: No such file or directory\n"
    )


def test_directory_that_is_no_maildir(place: Place) -> None:
    (place.maildir / "cur").rmdir()
    done = place.run("")
    assert done.code == 111
    assert b"unable to scan $MAILDIR/cur" in done.stderr
    assert stat.S_ISDIR(place.maildir.stat().st_mode)
