"""The system calls of a whole tree, recorded by strace, as values.

What is recorded is what ships: the processes of a tree, their threads and the
programs that they run make the calls; strace writes them down in the order in which
they ended. A sync that took its time knows what had ended when it began.
Source: strace(1), the formats of -f, -y and -xx.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat", "open", "creat", "write", "writev", "pwrite64", "pwritev", "truncate",
    "ftruncate", "fallocate", "copy_file_range", "sendfile", "linkat", "link",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir",
    "mkdirat", "utimensat", "fsync", "fdatasync", "syncfs", "sync",
    "sync_file_range",
)  # fmt: skip
"""All calls that change files or make changes durable."""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
_RESULT = re.compile(r"^(.*)\) += (-?\d+)(.*)$")
_UNFINISHED = " <unfinished ...>"
_ARG = re.compile(
    r',? *(?:"(?P<text>[^"]*)"'
    r"|(?P<fd>\d+|AT_FDCWD)<(?P<path>[^>]*)>(?P<gone>\(deleted\))?"
    r"|\[(?P<list>[^\]]*)\]"
    r'|(?P<word>[^,\["]+))'
)
_NSEC = re.compile(r"tv_sec=(\d+), tv_nsec=(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """A descriptor and the path of what it was opened for; -1 is AT_FDCWD."""

    fd: int
    path: str
    is_gone: bool = False


Arg = Place | bytes | int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that succeeded; `began` is how many had ended when it began."""

    thread: int
    name: str
    args: tuple[Arg, ...]
    result: int
    opened: Place | None
    began: int


def record(command: Sequence[str], log: Path, **run: object) -> None:
    """Run a command and everything it starts; what it did goes to `log`.

    Raises: subprocess.CalledProcessError.
    """
    strace = [
        *("strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "10000000"),
        *("-o", str(log), "-e", "signal=none", "-e", f"trace={','.join(CALLS)}"),
    ]
    subprocess.run([*strace, *command], check=True, **run)  # type: ignore[call-overload]


def read(log: Path) -> Iterator[Call]:
    """Every call that succeeded, in the order in which they ended."""
    open_calls: dict[int, tuple[str, int]] = {}
    ended = 0
    with log.open() as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, name, rest = int(found[1]), found[2] or found[3], found[4]
            began = ended
            if found[2]:
                head, began = open_calls.pop(thread)
                rest = head + rest
            if rest.endswith(_UNFINISHED):
                open_calls[thread] = rest.removesuffix(_UNFINISHED), began
                continue
            call = _parse(thread, name, rest, began)
            if call is not None:
                ended += 1
                yield call


def _parse(thread: int, name: str, rest: str, began: int) -> Call | None:
    found = _RESULT.match(rest)
    if found is None or int(found[2]) < 0:
        return None  # it failed, or its process ended before it
    opened = _ARG.match(found[2] + found[3])
    return Call(
        thread=thread,
        name=name,
        args=tuple(_arg(each) for each in _ARG.finditer(found[1]) if each[0].strip()),
        result=int(found[2]),
        opened=_place(opened) if opened and opened["path"] else None,
        began=began,
    )


def _arg(found: re.Match[str]) -> Arg:
    if found["text"] is not None:
        return _bytes(found["text"])
    if found["fd"]:
        return _place(found)
    if found["list"] is not None:
        times = _NSEC.findall(found["list"])
        return int(times[-1][0]) * 10**9 + int(times[-1][1]) if times else found["list"]
    word = found["word"].strip()
    return int(word) if word.lstrip("-").isdigit() else word


def _place(found: re.Match[str]) -> Place:
    fd = -1 if found["fd"] == "AT_FDCWD" else int(found["fd"])
    return Place(fd, _bytes(found["path"]).decode(), bool(found["gone"]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
