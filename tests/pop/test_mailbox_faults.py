"""The disk of a mailbox fails in its session: nothing is lost, or removed by halves."""

from __future__ import annotations

import errno
import itertools
import json
import poplib
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pop.conftest import PopTree, add_message
from tests.tree import harness

pytestmark = pytest.mark.root

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)
CALLS = (
    "open", "close", "read", "stat", "fstat", "scandir", "rename", "unlink", "fsync",
)  # fmt: skip
PATCH = harness.ROOT / "tests/tree/faulty.py"


def whole_session(pop: PopTree, mailbox: str) -> bool:
    """Read and remove the first message; whether the end was acknowledged."""
    with suppress(poplib.error_proto, OSError), pop.session(mailbox) as client:
        client.stat()
        client.retr(1)
        client.dele(1)
        return client.quit().startswith(b"+OK")
    return False


def test_failing_disk_of_a_mailbox_removes_nothing_unsaid(
    unstarted: PopTree, mailbox: str, open_tmp: Path
) -> None:
    pop, home, turn = unstarted, open_tmp / mailbox, itertools.cycle(ERRORS)
    fault = open_tmp / "fault"
    fault.write_text(" " * 100)
    (open_tmp / "hits").touch()
    pop.tree.start(patch=f"PLACE = {str(open_tmp)!r}\n{PATCH.read_text()}")
    for at, call in enumerate(CALLS):
        path = add_message(home, mailbox, f"new/{at}.a", b"Subject: %d\n\n" % at)
        told = {"kind": "popsession", "call": call, "errno": next(turn)}
        fault.write_text(json.dumps(told).ljust(100))
        is_removed = whole_session(pop, mailbox)
        fault.write_text(" " * 100)
        left = [each for each in path.parents[1].rglob(f"{at}.a*") if each.is_file()]
        assert len(left) == (0 if is_removed else 1), call
        with pop.session(mailbox) as client:
            assert client.stat()[0] == len(left), call
            if left:
                assert b"Subject: %d" % at in client.retr(1)[1], call
                client.dele(1)
            assert client.quit().startswith(b"+OK")
    assert (open_tmp / "hits").stat().st_size >= 5
    assert pop.tree.stop() == 0
    assert b"Traceback" not in pop.tree.log
    assert b"lost " not in pop.tree.log
