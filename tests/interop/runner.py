"""Runs many programs quickly: one process that forks for each, as asked on stdin.

    python runner.py MODULE...

A request and its answer are one line of JSON each; bytes are latin-1 text. Programs
of ours run in the fork, their modules of qsend.cli being loaded beforehand; others
are exec'ed. Descriptors 1 and 2 are one file, as they are below qmail-lspawn, unless
descriptor 1 is an input (qmail-queue's envelope).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

LIMIT_S = 20

Main = Callable[[Sequence[str]], int]
NAMED = ("sendmail",)
"""Modules whose main wants to know how it was called."""


def serve(mains: dict[str, Main]) -> None:
    for line in sys.stdin.buffer:
        answer = run(json.loads(line), mains)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def run(request: dict[str, Any], mains: dict[str, Main]) -> dict[str, Any]:
    """Run one program to its end: its exit code (negative: signal) and output."""
    stdin, one, two = (_file(request[name]) for name in ("stdin", "one", "two"))
    is_joined = request["joined"]
    pid = os.fork()  # noqa: TID251 - what this program is for
    if pid == 0:
        try:
            code = _child(request, mains, (stdin, one, one if is_joined else two))
        except BaseException as exc:  # noqa: BLE001 - told as the program's output
            os.write(2, f"runner: {exc!r}\n".encode())
            code = 120
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    # What a program left behind may go on writing; nobody reads that.
    answer = {
        "code": os.waitstatus_to_exitcode(status),
        "out": _content(one),
        "err": _content(two),
    }
    for fd in (stdin, one, two):
        os.close(fd)
    return answer


def _child(request: dict[str, Any], mains: dict[str, Main], fds: Sequence[int]) -> int:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.closerange(3, 64)
    signal.alarm(LIMIT_S)
    os.chdir(request["cwd"])
    os.setgroups([])
    os.setgid(request["uid"])
    os.setuid(request["uid"])
    argv = [os.fsdecode(word.encode("latin-1")) for word in request["argv"]]
    environ = {
        name: os.fsdecode(value.encode("latin-1"))
        for name, value in request["env"].items()
    }
    if request["module"] is None:
        os.execve(argv[0], argv, environ)
    os.environ.clear()
    os.environ.update(environ)
    return mains[request["module"]](argv[1:])


def _file(content: str) -> int:
    fd = os.memfd_create("runner")
    os.write(fd, content.encode("latin-1"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _content(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        return file.read().decode("latin-1")


if __name__ == "__main__":
    loaded = {}
    for name in sys.argv[1:]:
        main = importlib.import_module(f"qsend.cli.{name}").main
        loaded[name] = partial(main, program=name) if name in NAMED else main
    serve(loaded)
