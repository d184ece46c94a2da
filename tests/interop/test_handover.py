"""A queue that one of notqmail and qsend has filled is finished by the other."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.interop import notqmail
from tests.interop.whole import (
    RECIPS,
    check_first_attempts,
    check_the_end,
    files,
    queue_by_theirs,
    start_ours,
    start_theirs,
)
from tests.smtppeer import Script
from tests.tree.classicqueue import INJECTOR, ago
from tests.tree.harness import Tree, until
from tests.tree.outcomes import contents, hosts, trouble

Start = Callable[[Tree], None]

pytestmark = [
    *notqmail.marks,
    pytest.mark.parametrize(
        ("first", "second"), [(start_ours, start_theirs), (start_theirs, start_ours)]
    ),
]

BODY = b"Subject: test\n\nbody\n"
REFUSING: Script = {"RCPT": b"550 unknown"}
BUSY: Script = {"MAIL": [b"451 busy", b"250 ok"]}
MANY = 40


def kinds(found: list[Path]) -> list[str]:
    """The directories of queue files."""
    return sorted(each.parts[0] for each in found)


def test_retries_and_a_bounce_are_pending(
    home: Tree, first: Start, second: Start
) -> None:
    with hosts(home, good={}, bad=REFUSING, busy=BUSY):
        first(home)
        queue_by_theirs(home, RECIPS, BODY, b"me-@here.example-@[]", uid=INJECTOR)
        messid = home.new_messid()
        check_first_attempts(home)
        assert home.stop() == 0
        left = files(home)
        assert kinds(left) == ["bounce", "info", "local", "mess", "remote"]
        dues = {each: (home.home / "queue" / each).stat().st_mtime for each in left}
        second(home)
        queue_by_theirs(home, [b"other@here.example"])
        home.wait_for(rb"end msg \d+\n")
        # Neither looks at the old one before its time, nor moves that.
        assert home.log.count(b": msg %d to " % messid) == len(RECIPS)
        for each in left:
            if each.parts[0] in ("info", "local", "remote"):
                assert (home.home / "queue" / each).stat().st_mtime == dues[each]
        (home.home / "alias/now").touch()
        home.signal(signal.SIGALRM)
        home.wait_for(rb"end msg \d+\n", count=2)
        assert home.log.count(b": msg %d to " % messid) == len(RECIPS) + 2
    assert len(contents(home, "Other")) == 1
    check_the_end(home)


def test_expired_message_is_given_up(home: Tree, first: Start, second: Start) -> None:
    first(home)
    queue_by_theirs(home, [b"later@here.example"], BODY, b"me-x@here.example")
    messid = home.new_messid()
    home.wait_for(rb"delivery 1: deferral: .*\n")
    assert home.stop() == 0
    info = home.home / "queue" / f"info/{messid % 23}/{messid}"
    os.utime(info, (ago(604_900), ago(604_900)))
    second(home)
    home.signal(signal.SIGALRM)
    home.wait_for(
        rb"delivery 1: failure: later/I'm_not_going_to_try_again;"
        rb"_this_message_has_been_in_the_queue_too_long./\n"
    )
    home.wait_for(rb"bounce msg %d qp \d+\n" % messid)
    home.wait_for(rb"end msg \d+\n", count=2)
    [bounce] = contents(home, "returned")
    assert b"<later@here.example>:\nlater\nI'm not going to try again; " in bounce
    assert home.stop() == 0
    assert files(home) == []
    assert trouble(home) == []


def test_killed_system_leaves_mail_that_the_other_delivers(
    home: Tree, first: Start, second: Start
) -> None:
    fifo = home.home / "alias/gate"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    home.alias("slow", "|cat gate >/dev/null; test -e now\n")
    first(home)
    queue_by_theirs(home, [b"slow@here.example", b"ok@here.example"], BODY, b"")
    home.wait_for(rb"delivery \d+: success: .*\n")
    until(lambda: b"Dok@" in b"".join(_channel_files(home)) or first is start_ours)
    # qmail-send first: a spawner's death would make it end as it should.
    for each in home.family():
        with suppress(psutil.NoSuchProcess):
            each.kill()
    home.kill()
    (home.home / "alias/now").touch()
    second(home)
    home.wait_for(rb"to local slow@here.example\n")
    descriptor = os.open(fifo, os.O_WRONLY)
    os.close(descriptor)
    home.wait_for(rb"end msg \d+\n")
    # What was delivered and not yet marked may come twice, nothing is lost.
    assert 1 <= len(contents(home, "Maildir")) <= 2
    assert home.stop() == 0
    assert files(home) == []


def _channel_files(tree: Tree) -> list[bytes]:
    found = (tree.home / "queue/local").glob("*/*")
    return [each.read_bytes() for each in found]


def test_many_messages_change_hands_and_each_comes_once(
    home: Tree, first: Start, second: Start
) -> None:
    first(home)
    for number in range(MANY):
        queue_by_theirs(home, [b"ok@here.example"], b"Subject: %d\n\n" % number, b"")
        if number == MANY // 2:
            home.wait_for(rb"end msg \d+\n")
            home.signal(signal.SIGTERM)
    assert home.wait() == 0
    assert kinds(files(home)).count("mess") >= MANY // 2 - 1
    second(home)
    until(lambda: len(contents(home, "Maildir")) >= MANY or not _read_on(home))
    until(lambda: files(home) == [])
    assert home.stop() == 0
    numbers = [
        int(found[1])
        for each in contents(home, "Maildir")
        if (found := re.search(rb"Subject: (\d+)\n", each))
    ]
    assert sorted(numbers) == list(range(MANY))
    assert trouble(home) == []


def _read_on(tree: Tree) -> bool:
    tree.watch(0.01)
    return True
