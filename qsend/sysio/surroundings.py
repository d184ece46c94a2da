"""What start leaves of its caller's surroundings, before anything else.

Source: qmail-start(8); getrlimit(2).
"""

from __future__ import annotations

import os
import resource
import threading

_ENVIRONMENT = {b"PATH", b"QMAILQUEUE"}
"""What is kept of the caller's environment: procs/local.py passes it on."""
_DESCRIPTORS = 65536
"""Thousands of sessions in one remote; a hard limit below this is taken as it is."""

_STACK_BYTES = 8 << 20
"""What a thread gets where nobody has set limits."""


def forget_environment() -> None:
    """Keep what the programs of users are given, and nothing else of the caller's.

    The C library and Python take orders from it (HOSTALIASES, RES_OPTIONS), and
    whoever starts a mail system may have secrets there.
    """
    for name in os.environb.keys() - _ENVIRONMENT:
        del os.environb[name]


def arrange_descriptors() -> None:
    """0 from /dev/null, 1 and 2 the log; room for many more."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(1, 2)
    if null > 2:
        os.close(null)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))


def arrange_stacks() -> None:
    """Threads take no larger stacks than elsewhere.

    By default each takes what the stack may grow to. Under `softlimit -m` that is
    as much as all memory of the process: no thread could be had at all.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if soft > _STACK_BYTES:
        threading.stack_size(_STACK_BYTES)
