"""The shared table of silent hosts on disk, as the classic qmail-remote uses it.

Every failure counts as an empty table, but where an operator asks: it only saves
time, and mail must go on without it. Must not be used by long-lived processes:
core/tcpto.py is theirs.
Source: tcpto.c, tcpto_clean.c.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from qsend.core.tcpto import Silence, after_timeout, is_skipped
from qsend.formats.tcptofile import (
    RECORD_BYTES,
    TABLE_BYTES,
    Record,
    choose,
    find,
    parse_table,
    render_record,
)
from qsend.sysio import clock


class TcptoTable:
    """One program's view of the file `lock/tcpto` of a queue."""

    def __init__(self, path: str, seed: int) -> None:
        """`path` names the file, which must exist; `seed` is the pid."""
        self._path = path
        self._seed = seed
        self._seen: set[str] = set()

    def is_skipped(self, address: str) -> bool:
        """Whether to leave this host alone for now; IPv6 hosts never are."""
        with _locked(self._path) as fd:
            if fd is None:
                return False
            records = _read(fd)
        index = find(records, address)
        if index is None:
            return False
        self._seen.add(address)
        return is_skipped(records[index].silence, clock.now(), self._seed)

    def note_answer(self, address: str) -> None:
        """It accepted, or refused at once: free its record, if it had one."""
        if address not in self._seen:
            return
        with _locked(self._path) as fd:
            if fd is None:
                return
            records = _read(fd)
            index = find(records, address)
            if index is not None:
                last = records[index].silence.last
                _write(fd, index, address, Silence(count=0, last=last))

    def note_timeout(self, address: str) -> None:
        """Connecting to it timed out."""
        if ":" in address:
            return
        with _locked(self._path) as fd:
            if fd is None:
                return
            records = _read(fd)
            index = find(records, address)
            known = None if index is None else records[index].silence
            if index is None:
                index = choose(records)
            if index is not None:
                _write(fd, index, address, after_timeout(known, clock.now()))


def clear(path: str) -> None:
    """Free every record; the file gets its full length if it exists."""
    try:
        free_all(path)
    except OSError:
        return  # as everywhere here: mail goes on without the table


def free_all(path: str) -> None:
    """As `clear`, for an operator: raises OSError."""
    with open(path, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(bytes(TABLE_BYTES))


def read_all(path: str) -> tuple[Record, ...]:
    """Every record, for an operator. Raises: OSError.

    Needs to write the file, as the lock that the writers take does in qmail.
    """
    with open(path, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return parse_table(file.read(TABLE_BYTES))


@contextmanager
def _locked(path: str) -> Iterator[int | None]:
    """The open file under its lock, or None when that cannot be had."""
    fd = _open_locked(path)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _open_locked(path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        os.close(fd)
        return None
    return fd


def _read(fd: int) -> tuple[Record, ...]:
    try:
        return parse_table(os.pread(fd, TABLE_BYTES, 0))
    except OSError:
        return ()


def _write(fd: int, index: int, address: str, silence: Silence) -> None:
    record = render_record(Record(address=address, silence=silence))
    try:
        os.pwrite(fd, record, index * RECORD_BYTES)
    except OSError:
        return
