"""clean under strace: the order of its system calls, and kills at each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qsend.core.model import FileIdentity, MessId
from qsend.core.states import State, classify
from qsend.formats import cleanwire
from qsend.sysio.fsq import Queue
from tests.fakes import present
from tests.procs.cleanprocess import running
from tests.queues import inject, make_queue, separate_accounts

pytestmark = pytest.mark.root
ACCOUNTS = separate_accounts()
CALL = re.compile(
    r"unlinkat\(\d+<(?P<dir>[^>]*)>, \"(?P<name>\d+)\""
    r"|fsync\(\d+<(?P<synced>[^>]*)>"
)


def found(queue: Path, messid: MessId) -> frozenset[str]:
    return present({str(path.relative_to(queue)) for path in queue.rglob("*")}, messid)


def some_messages(home: Path, count: int) -> tuple[Path, dict[MessId, FileIdentity]]:
    queue = make_queue(home, ACCOUNTS)
    opened = Queue(str(queue))
    messids = [inject(queue, owner=ACCOUNTS.qmailq) for _ in range(count)]
    identities = {messid: opened.stat_mess(messid) for messid in messids}
    opened.close()
    return queue, identities


def calls(trace: Path, queue: Path) -> list[str]:
    """`- todo 123` and `sync todo`, in the order in which they were done."""
    done = []
    for line in trace.read_text().splitlines():
        hit = CALL.search(line)
        if hit and "= 0" in line:
            where = (hit["dir"] or hit["synced"]).removeprefix(f"{queue}/")
            done.append(f"- {where} {hit['name']}" if hit["dir"] else f"sync {where}")
    return done


@pytest.mark.parametrize(
    ("level", "syncs"),
    [("full", ["sync intd", "sync todo"]), ("qmail", []), ("none", [])],
)
def test_batch_is_unlinks_then_one_round_of_syncs_then_messages(
    open_tmp: Path, level: str, syncs: list[str]
) -> None:
    queue, identities = some_messages(open_tmp, 3)
    one, two, kept = identities
    trace = open_tmp / "trace"
    tracer = ["strace", "-y", "-o", str(trace), "-e", "trace=unlinkat,fsync,syncfs"]
    with running(open_tmp, ACCOUNTS.qmailq, level, tracer) as clean:
        clean.ask(
            cleanwire.render_foop(one, identities[one]),
            cleanwire.render_todo(kept),
            cleanwire.render_foop(two, identities[two]),
        )
        assert [answer.errno for answer in clean.answers(3)] == [0, 0, 0]
        assert clean.end() == 0
    envelopes = [
        f"- {name} {messid}" for messid in (one, kept, two) for name in ("intd", "todo")
    ]
    messages = [f"- mess/{messid % 23} {messid}" for messid in (one, two)]
    assert calls(trace, queue) == [*envelopes, *syncs, *messages]


def test_aside_is_durable_before_anything_leaves_the_queue(open_tmp: Path) -> None:
    queue, identities = some_messages(open_tmp, 1)
    (messid,) = identities
    trace = open_tmp / "trace"
    tracer = ["strace", "-y", "-o", str(trace), "-e", "trace=unlinkat,fsync,syncfs"]
    with running(open_tmp, ACCOUNTS.qmailq, "full", tracer) as clean:
        clean.ask(cleanwire.render_aside(messid, 5, b"why"))
        assert [answer.errno for answer in clean.answers(1)] == [0]
        assert clean.end() == 0
    part = messid % 23
    assert calls(trace, queue) == [
        f"sync aside/{messid}.5/reason",
        f"sync aside/{messid}.5",
        "sync aside",
        f"- intd {messid}",
        f"- todo {messid}",
        "sync intd",
        "sync todo",
        f"- mess/{part} {messid}",
        f"sync mess/{part}",
    ]


KILLS = [("unlinkat", when) for when in range(1, 7)] + [("fsync", 1), ("fsync", 2)]


@pytest.mark.parametrize(("call", "when"), KILLS)
def test_clean_killed_at_any_call_leaves_known_states_and_can_be_finished(
    open_tmp: Path, call: str, when: int
) -> None:
    queue, identities = some_messages(open_tmp, 2)
    requests = [cleanwire.render_foop(*each) for each in identities.items()]
    tracer = ["strace", "-o", "/dev/null", "-e", f"trace={call}"]
    tracer += ["-e", f"inject={call}:signal=KILL:when={when}"]
    with running(open_tmp, ACCOUNTS.qmailq, "full", tracer) as clean:
        clean.ask(*requests)
        assert clean.answers(2) == []
        assert clean.wait() != 0
    for messid in identities:
        assert classify(found(queue, messid)) in (State.S4, State.S2, State.S1)
    assert any(found(queue, messid) for messid in identities)
    with running(open_tmp, ACCOUNTS.qmailq) as clean:
        clean.ask(*requests)
        assert [answer.errno for answer in clean.answers(2)] == [0, 0]
    for messid in identities:
        assert found(queue, messid) == set()


@pytest.mark.parametrize("when", [1, 2])
def test_clean_whose_sync_fails_keeps_every_message_and_says_so(
    open_tmp: Path, when: int
) -> None:
    queue, identities = some_messages(open_tmp, 2)
    requests = [cleanwire.render_foop(*each) for each in identities.items()]
    tracer = ["strace", "-o", "/dev/null", "-e", "trace=fsync"]
    tracer += ["-e", f"inject=fsync:error=EIO:when={when}"]
    with running(open_tmp, ACCOUNTS.qmailq, "full", tracer) as clean:
        clean.ask(*requests)
        assert [answer.errno for answer in clean.answers(2)] == [5, 5]
        for messid in identities:
            assert found(queue, messid) == {"mess"}
        clean.ask(*requests)
        assert [answer.errno for answer in clean.answers(2)] == [0, 0]
        for messid in identities:
            assert found(queue, messid) == set()
