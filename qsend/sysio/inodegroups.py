"""A directory whose subdirectories ext4 puts far from each other.

Without a journal ext4 takes no inode that was freed in the last minute as long as its
block group has another one, and looks at each of them for every file that it makes:
with some thousand messages just delivered a new one takes a millisecond of processor
time. Files are made in the group of their directory, and directories in that of
their parent, so a whole queue, and the mailboxes beside it, share one group. Below a
directory with the flag T (chattr(1)) every subdirectory gets a group of its own.
Source: Linux fs/ext4/ialloc.c find_inode_bit, find_group_orlov; docs/PERFORMANCE.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from qsend.sysio.filesystem import is_without_journal

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOP_OF_HIERARCHY = 0x20000
_FLAGS = struct.Struct("l")


def scatter(dir_fd: int) -> None:
    """Scatter the subdirectories made from now on, where that is any good.

    With a journal, or on another file system, the directory stays as it is.
    """
    if not is_without_journal(os.fstat(dir_fd).st_dev):
        return
    with contextlib.suppress(OSError):  # it is slower then, and not wrong
        flags = _FLAGS.unpack(fcntl.ioctl(dir_fd, _GET_FLAGS, bytes(_FLAGS.size)))[0]
        fcntl.ioctl(dir_fd, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_HIERARCHY))
