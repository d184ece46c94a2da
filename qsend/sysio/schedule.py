"""Loads the schedule of a queue at start: every preprocessed message, when due.

A message is taken when info/N exists and todo/N does not. One without channel
files has nothing left but its end, and is due at once. What a power cut left of
local/N, remote/N or bounce/N without info/N belongs to a message that is gone, and
is removed. Costs one stat for each channel file. Source: qmail-send.c pqstart.
"""

from __future__ import annotations

from array import array

from qsend.core.manager import Manager
from qsend.core.model import SPLIT, Channel, MessId
from qsend.core.retry import longest_delay
from qsend.formats.paths import parse_messid
from qsend.sysio.fsq import Queue


def load(queue: Queue, manager: Manager, now: int) -> int:
    """Fill the manager's due heaps from disk.

    Returns: how many messages were found.
    Raises: OSError when a directory cannot be read.
    """
    unprepared = set(queue.list_todo())
    # Later is only what a clock that was ahead has written.
    latest = now + longest_delay(manager.settings.lifetime)
    known = array("Q", unprepared)
    count = 0
    for part in range(SPLIT):
        infos = _numbers(queue, f"info/{part}") - unprepared
        known.extend(infos)
        count += len(infos)
        idle = set(infos)
        for channel in Channel:
            there = _numbers(queue, f"{channel.value}/{part}")
            found = there & infos
            idle -= found
            for stale in there - infos - unprepared:
                queue.unlink_recips(channel, stale)
            pairs = ((queue.due(channel, messid), messid) for messid in found)
            manager.dues[channel].load(
                (min(due, latest), messid) for due, messid in pairs if due is not None
            )
        manager.dues[Channel.LOCAL].load((now, messid) for messid in idle)
    for stale in _numbers(queue, "bounce") - unprepared:
        if not queue.info_exists(stale):
            queue.unlink_bounce(stale)
    queue.know_own(map(MessId, known))
    return count


def _numbers(queue: Queue, directory: str) -> set[MessId]:
    names = map(parse_messid, queue.dirs.names(directory))
    return {messid for messid in names if messid is not None}
