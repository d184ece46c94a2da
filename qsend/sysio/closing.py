"""Closing what was only read or passed on.

Source: close(2).
"""

from __future__ import annotations

import os


def close_read(fd: int) -> None:
    """Close a descriptor through which nothing was written.

    Whatever close(2) says, the descriptor is gone, and there was nothing to lose: no
    reason to end a process that has other deliveries.
    """
    try:
        os.close(fd)
    except OSError:
        pass
