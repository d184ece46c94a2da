"""How many questions a second the lookup process answers, with a real MariaDB.

    python -m bench.lookup [--mailboxes 10000] [--seconds 3] [--window 500]

One asker keeps `window` questions open, as lspawn (whose is a local part?) and as
send (where does an address go?) do. Cold: every question is a new one and costs a
round trip. Warm: the same mailboxes again. Prints answers per second, how long one
took, processor seconds of lookup and of the server per 1000, and how many
statements the server got. Needs root and Debian's mariadb-server.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from qsend.formats import frames, lookupwire
from qsend.formats.control import parse_controls
from qsend.formats.lookupwire import Question
from qsend.procs import lookup
from qsend.sysio.accounts import load_accounts
from qsend.sysio.boot import Boot
from qsend.sysio.endpoint import pair
from qsend.sysio.fork import fork_child
from tests.mariadb import Database, MariaDb, pristine_data, running_mariadb

UID, GID = 64801, 64802
BATCH = 20000
"""Rows of one INSERT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run gave."""

    answers: int
    wall_s: float
    lookup_cpu_s: float
    server_cpu_s: float
    statements: int
    latencies_ms: list[float]

    def show(self, name: str) -> str:
        """One line."""
        cuts = statistics.quantiles(self.latencies_ms, n=100)
        return (
            f"{name:14} {self.answers / self.wall_s:8.0f} answers/s"
            f"  {cuts[49]:6.1f} ms median {cuts[98]:6.1f} ms p99"
            f"  cpu s/1000: lookup {self.lookup_cpu_s * 1000 / self.answers:.3f}"
            f" server {self.server_cpu_s * 1000 / self.answers:.3f}"
            f"  statements {self.statements}"
        )


@contextmanager
def process(
    home: Path, sqlserver: bytes
) -> Iterator[tuple[int, dict[str, socket.socket]]]:
    """The lookup process; its pid, and the ends of send and lspawn."""
    files = {"me": b"bench.example", "sqlserver": sqlserver}
    start, start_child = pair()
    ours: dict[str, socket.socket] = {}
    theirs = {"start": start_child}
    for role in ("send", "lspawn"):
        ours[role], theirs[role] = pair()
    boot = Boot(
        role="lookup",
        home=str(home),
        single_user=False,
        accounts=load_accounts(single_user=False),
        controls=parse_controls(files),
        default_delivery=b"",
        socks=theirs,
        files=files,
    )
    keep = [sock.fileno() for sock in theirs.values()]
    pid = fork_child(lambda: lookup.main(boot), keep, "lookup")
    for sock in theirs.values():
        sock.close()
    start.recv(100)
    try:
        yield pid, ours
    finally:
        for sock in (start, *ours.values()):
            sock.close()
        os.waitpid(pid, 0)


def fill(database: Database, home: Path, count: int) -> None:
    """`count` mailboxes of one uid, each with an address of a virtual host."""
    mail = home / "mail"
    mail.mkdir()
    for number in range(min(count, 10000)):
        path = mail / f"u{number}"
        path.mkdir()
        os.chown(path, UID, GID)
    for begin in range(0, count, BATCH):
        numbers = range(begin, min(begin + BATCH, count))
        database.insert(
            "mailbox",
            *(
                (f"u{n}", UID, GID, f"{mail}/u{n % 10000}", "x", "Password", "N")
                for n in numbers
            ),
        )
        database.insert(
            "virtual", *((f"u{n}", "", f"v{n}", "virtual.example") for n in numbers)
        )


def ask(
    sock: socket.socket,
    kind: bytes,
    names: Iterable[bytes],
    window: int,
    seconds: float,
) -> tuple[int, list[float]]:
    """Keep `window` questions open for so long; answers, and how long each took."""
    sent: dict[int, float] = {}
    latencies: list[float] = []
    end = time.monotonic() + seconds
    questions = enumerate(names)
    is_open = True
    while is_open or sent:
        batch = list(itertools.islice(questions, window - len(sent) if is_open else 0))
        now = time.monotonic()
        is_open = (
            bool(batch or (is_open and sent and len(sent) == window)) and now < end
        )
        sent.update((number, now) for number, _ in batch)
        parts = [
            lookupwire.render_question(Question(number=number, local=name), kind)
            for number, name in batch
        ]
        if parts:
            sock.send(b"".join(parts))
        if not sent:
            break
        packet = sock.recv(frames.PACKET_MAX)
        now = time.monotonic()
        for told, body in frames.split(packet):
            if told in (lookupwire.ANSWER, lookupwire.PLACE):
                if body[4] != 0:
                    raise RuntimeError(f"not found: {body!r}")
                number = int.from_bytes(body[:4], "big")
                latencies.append((now - sent.pop(number)) * 1000)
    return len(latencies), latencies


def measure(
    server: MariaDb,
    pid: int,
    sock: socket.socket,
    kind: bytes,
    names: Iterable[bytes],
    window: int,
    seconds: float,
) -> Figures:
    """One run."""
    watched = [psutil.Process(pid), psutil.Process(server.pid)]
    before = [sum(each.cpu_times()[:2]) for each in watched]
    statements = asked(server)
    begun = time.monotonic()
    answers, latencies = ask(sock, kind, names, window, seconds)
    wall_s = time.monotonic() - begun
    after = [sum(each.cpu_times()[:2]) for each in watched]
    return Figures(
        answers=answers,
        wall_s=wall_s,
        lookup_cpu_s=after[0] - before[0],
        server_cpu_s=after[1] - before[1],
        statements=asked(server) - statements,
        latencies_ms=latencies,
    )


def asked(server: MariaDb) -> int:
    """Statements that the server has executed."""
    [(_, count)] = server.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
    return int(str(count))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mailboxes", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--window", type=int, default=500)
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="qsend-bench-", dir="/tmp"))
    home.chmod(0o755)
    for name in ("alias", "users"):
        (home / name).mkdir(mode=0o755)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    print(f"commit {commit}, {os.cpu_count()} cores, mailboxes {args.mailboxes}")
    try:
        with pristine_data() as pristine, running_mariadb(pristine) as server:
            database = Database(server)
            fill(database, home, args.mailboxes)
            run(server, database, home, args)
    finally:
        shutil.rmtree(home)


def run(
    server: MariaDb, database: Database, home: Path, args: argparse.Namespace
) -> None:
    """The four figures."""
    kinds = {
        "lspawn": (lookupwire.USER, b"u%d"),
        "send": (lookupwire.LOCALITY, b"v%d@virtual.example"),
    }
    with process(home, database.sqlserver) as (pid, socks):
        for role, (kind, form) in kinds.items():
            sock = socks[role]
            names = [form % number for number in range(args.mailboxes)]
            some = names[: args.window * 2]
            cold = measure(server, pid, sock, kind, names, args.window, args.seconds)
            print(cold.show(f"{role} cold"))
            measure(server, pid, sock, kind, some, args.window, args.seconds)
            warm = measure(
                server,
                pid,
                sock,
                kind,
                itertools.cycle(some),
                args.window,
                args.seconds,
            )
            print(warm.show(f"{role} warm"))


if __name__ == "__main__":
    main()
