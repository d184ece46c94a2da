"""Ports that nobody has, for what listens on a port that has to be known before."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from functools import cache

_FIRST, _LAST = 20000, 31999
"""Below the ports that Linux gives to clients, so that none of them takes one between
the choice and its use."""
_WORKER_PORTS = 1500
"""Each of pytest's parallel workers has so many of its own."""


@cache
def _numbers(_pid: int) -> itertools.cycle[int]:
    """The ports of a process, from one of its own on."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST + worker * _WORKER_PORTS % (_LAST + 1 - _FIRST)
    ports = range(first, first + _WORKER_PORTS)
    start = secrets.randbelow(_WORKER_PORTS)
    return itertools.cycle([*ports[start:], *ports[:start]])


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` that nobody uses, for UDP and TCP."""
    for port in itertools.islice(_numbers(os.getpid()), _WORKER_PORTS):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.bind((host, port))
        except OSError:
            continue
        return port
    raise AssertionError("all ports are in use")


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(count)]
