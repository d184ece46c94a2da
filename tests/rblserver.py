"""A real block list on loopback: Debian's rbldnsd.

As root it listens at port 53 of an address of its own, where rblsmtpd can ask it too.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from qsend.formats.control import Resolver
from qsend.sysio import clock

LISTS = {
    "bl.example": (
        "ip4set",
        ":127.0.0.2:Blocked, see http://bl.example/$\n"
        "192.0.2.1\n"
        "192.0.2.2 :127.0.0.3:other text\n"
        "192.0.2.3 :127.0.0.4:\n"
        "192.0.2.4 :127.255.255.254:you asked too often\n"
        f"192.0.2.5 :127.0.0.2:\\001{'x' * 230}\n",
    ),
    "wl.example": ("ip4set", ":127.0.0.2:\n192.0.2.2\n"),
    "six.example": ("ip6trie", ":127.0.0.2:six\n2001:db8::/32\n"),
}
"""The zones: type of data set, and data."""


def _server(directory: Path, where: str) -> subprocess.Popen[bytes]:
    command = ["/usr/sbin/rbldnsd", "-n", "-q", "-b", where, "-w", str(directory)]
    if os.getuid() == 0:
        command += ["-u", "nobody"]
    for name, (kind, text) in LISTS.items():
        (directory / name).write_text(text)
        command.append(f"{name}:{kind}:{name}")
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _answers(process: subprocess.Popen[bytes], server: Resolver) -> bool:
    end = clock.mono() + 20
    query = dns.message.make_query("1.2.0.192.bl.example.", "A")
    while process.poll() is None and clock.mono() < end:
        try:
            reply = dns.query.udp(query, server.host, timeout=0.2, port=server.port)
        except (OSError, dns.exception.DNSException):
            continue
        if reply.answer:
            return True
    return False


@contextmanager
def running_rbldnsd() -> Iterator[Resolver]:
    """A server of LISTS; for every other zone it refuses to answer."""
    directory = Path(tempfile.mkdtemp(prefix="qsend-rbl-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        for _attempt in range(5):  # somebody else may have the place
            octets = [random.randrange(2, 250) for _ in range(3)]
            port = 53 if os.getuid() == 0 else random.randrange(20000, 60000)
            server = Resolver(host="127.{}.{}.{}".format(*octets), port=port)
            process = _server(directory, f"{server.host}/{port}")
            try:
                if _answers(process, server):
                    yield server
                    return
            finally:
                process.kill()
                process.wait()
        raise RuntimeError("rbldnsd did not start")
    finally:
        shutil.rmtree(directory)
