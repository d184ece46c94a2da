"""A network, mounts and process numbers of the suite's own.

Ports 25 and 53 are free there, every peer asks our DNS server, nothing can leave the
machine, and whatever was started ends with the suite. Needs root and unshare(1).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError

_INSIDE = "QSEND_BENCH_INSIDE"
_UNSHARE = (
    "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
    "--propagation", "private",
)  # fmt: skip
DNS_HOST = "127.0.0.1"
OWN_HOST = "127.0.0.9"
"""An address for a peer that must not think that the sink is itself."""


def enter(module: str, args: Sequence[str]) -> None:
    """Run `python -m MODULE ARGS` again inside; returns only when already there.

    Raises: BenchError when not root.
    """
    if _INSIDE in os.environ:
        _furnish()
        return
    if os.getuid() != 0:
        raise BenchError("the suite starts mail systems in namespaces: run it as root")
    command = [*_UNSHARE, sys.executable, "-m", module, *args]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "yes"})


def _furnish() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", f"{OWN_HOST}/32", "dev", "lo"], check=True)
    # The DNS server is no root and listens at port 53.
    port_start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    port_start.write_text("0")
    resolv = Path("/run/qsend-bench-resolv.conf")
    resolv.write_text(f"nameserver {DNS_HOST}\noptions timeout:1\n")
    subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)
    resolv.unlink()
