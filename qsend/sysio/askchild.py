"""Questions that another account must answer: asked in a child that is that account.

Modes do not tell all (a file server, an ACL, a sandbox): what an account can do is
tried as that account. Must not: be called by a process that has threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Account
from qsend.sysio.fork import fork_child
from qsend.sysio.privilege import drop


def ask_child(answer: Callable[[int], int], keep: Sequence[int] = ()) -> bytes:
    """All that a child writes to the descriptor that `answer` gets in it.

    Raises: TempFail when no child can be had.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    with open(read, "rb") as pipe:
        try:
            pid = fork_child(lambda: answer(write), (write, *keep), "child")
        finally:
            os.close(write)
        told = pipe.read()
    os.waitpid(pid, 0)
    return told


def ask_as(account: Account, work: Callable[[], object]) -> Any:
    """What `work` returns (JSON) when `account` calls it, with umask 077.

    Raises: PermFail when this process may not become the account; TempFail with the
        words of an OSError in `work`, or when no child can be had.
    """
    if os.getuid() not in (0, account.uid):
        raise PermFail(f"only root can act for uid {account.uid}")

    def answer(write: int) -> int:
        drop(account)
        os.umask(0o077)
        try:
            told: object = {"told": work()}
        except OSError as exc:
            told = {"error": f"{exc.filename or 'trouble'}: {exc.strerror}"}
        with open(write, "w") as pipe:
            json.dump(told, pipe)
        return 0

    told = json.loads(ask_child(answer) or b'{"error": "the child crashed"}')
    if "error" in told:
        raise TempFail(f"as uid {account.uid}: {told['error']}")
    return told["told"]
