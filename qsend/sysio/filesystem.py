"""What the file system of a device does, as far as the kernel tells.

Source: Linux Documentation/ABI/testing/sysfs-fs-ext4 and sysfs-fs-xfs;
fs/ext4/fsync.c ext4_fsync_nojournal().
"""

from __future__ import annotations

import os


def is_without_journal(device: int) -> bool:
    """Whether it is ext4 without a journal."""
    return _journal_task(_disk(device)) == "<none>"


def syncs_links_with_names(device: int) -> bool:
    """Whether the fsync of a directory makes all durable that a link into it changed.

    A file without a name has a link count of 0 on the disk. Where a journal holds one
    transaction for both, the count comes with the name. Elsewhere it is part of the
    file, and a name whose file counts no links is removed by fsck after a power cut.
    True for ext4 with a journal and for XFS; False where nothing is known.
    """
    disk = _disk(device)
    if not disk:
        return False
    has_journal = _journal_task(disk) not in ("", "<none>")
    return has_journal or os.path.isdir(f"/sys/fs/xfs/{disk}")


def _disk(device: int) -> str:
    """The kernel's name of a device, or "" for none that has one."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return ""


def _journal_task(disk: str) -> str:
    """The journal's process, or "<none>"; "" where it is no ext4."""
    try:
        with open(f"/sys/fs/ext4/{disk}/journal_task", encoding="ascii") as task:
            return task.read().strip()
    except OSError:
        return ""
