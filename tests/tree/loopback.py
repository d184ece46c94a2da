"""Mail hosts on loopback addresses of their own, port 25, for trees under test."""

from __future__ import annotations

import errno
import random
import socket

SMTP_PORT = 25


def free_block() -> str:
    """`127.X.Y.`, before a number from 1 to 254: a block nobody else is likely to use.

    Never that of 127.0.0.1, which counts as this machine.
    """
    while True:
        block = f"127.{random.randrange(1, 255)}.{random.randrange(256)}."
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((block + "1", SMTP_PORT))
            except OSError as exc:
                if exc.errno != errno.EADDRINUSE:
                    raise
            else:
                return block
