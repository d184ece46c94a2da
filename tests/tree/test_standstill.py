"""Each kind of process stands still under load and goes on: nobody fills his memory
with what it does not take, everything is delivered once, and nobody is replaced."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from qsend.sysio import clock
from tests.torture import injector, kills, world
from tests.torture.ledger import Ledger, Log, follow
from tests.tree.harness import Tree

pytestmark = [pytest.mark.root, pytest.mark.slow]

TITLES = ("send", "clean", "queue", "lookup", "lspawn", "local", "remote")
BURST = 104
"""Messages for each kind, 4 MB in all, to 180 recipients."""
CLIENTS = 8
STILL_S = 1.5
"""How long each of them takes nothing."""
MEMORY_BYTES = 6 << 20
"""What another process may grow by meanwhile: more than its ordinary work takes, less
than what the burst would be in it together with its copies."""
END_S = 90.0
LONG_BYTES = 64 << 20
LINE = b"x" * 98 + b"\r\n"


@contextmanager
def still(pids: list[int]) -> Iterator[None]:
    """These processes do nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def memory(tree: Tree) -> dict[tuple[int, str], int]:
    """Resident bytes of each process of the tree."""
    found = {}
    for process in tree.family():
        try:
            title = process.cmdline()[0]
            found[process.pid, title] = process.memory_info().rss
        except (psutil.NoSuchProcess, IndexError):
            continue
    return found


def grown(tree: Tree, before: dict[tuple[int, str], int]) -> dict[str, int]:
    now = memory(tree)
    more = {key: now[key] - before[key] for key in now.keys() & before.keys()}
    return {title: size for (_, title), size in more.items() if size > MEMORY_BYTES}


def watch(log: Log, wait_s: float) -> None:
    """Let the tree work for that long."""
    log.wait_said(b"never said", 1, wait_s)


def drain(tree: Tree, log: Log) -> None:
    """Wait until nothing is left to deliver."""
    end_mono = clock.mono() + END_S
    while kills.waiting(tree):
        assert clock.mono() < end_mono, kills.waiting(tree)
        tree.run("flush", "all")
        log.wait_for(len(log.lines) + 100, 1)


def test_process_that_stands_still_costs_time_alone(tree: Tree, tmp_path: Path) -> None:
    sink, ledger = world.Sink(random.Random(1)), Ledger()
    home, numbers = str(tree.home), iter(range(1 << 20))
    with (
        world.listening(sink) as port,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        ports = world.set_up(tree, port)
        ways = ["library", *(f"{name}:{ports[name]}" for name in ports)]
        tree.control("concurrencylocal", "20\n")
        tree.start(until=b"")
        log = follow(tree)
        assert log.wait_said(rb"status: local 0/20", 1, 30)

        def put(number: int) -> None:
            if injector.put(home, ways[number % len(ways)], number):
                ledger.accepted.add(number)

        def burst() -> list[Future[None]]:
            return [clients.submit(put, next(numbers)) for _ in range(BURST)]

        def settle(burst: list[Future[None]]) -> None:
            for each in burst:
                each.result(END_S)
            drain(tree, log)

        settle(burst())
        before = memory(tree)
        for title in TITLES:
            pids = tree.pids(f"qmail-{title}")
            assert pids, title
            with still(pids):
                puts = burst()
                watch(log, STILL_S)
                assert not grown(tree, before), title
            settle(puts)
            if title != "local":  # one that is idle may end
                assert tree.pids(f"qmail-{title}") == pids
        assert not grown(tree, before)
        assert tree.process is not None
        tree.process.terminate()
        assert tree.process.wait(30) == 0
    assert log.wait_over(30)
    ledger.read_log(log.lines)
    ledger.arrived.update(sink.arrived)
    for maildir, kinds in world.maildirs(tree).items():
        ledger.read_maildir(maildir, *kinds)
    ledger.check()
    assert not ledger.in_flight
    assert not ledger.duplicates
    assert len(ledger.accepted) == BURST * (len(TITLES) + 1)


def fill(sock: socket.socket) -> int:
    """Send LINE again and again until STILL_S after the last byte that went."""
    sock.settimeout(STILL_S)
    for sent in range(0, LONG_BYTES, len(LINE)):
        done = 0
        while done < len(LINE):
            try:
                done += sock.send(LINE[done:])
            except TimeoutError:
                return sent + done
    return LONG_BYTES


def test_long_message_waits_at_its_client_while_enqueue_stands_still(
    tree: Tree,
) -> None:
    ports = world.set_up(tree, 1)
    tree.start()
    [enqueue] = tree.pids("qmail-queue")
    with socket.create_connection(("127.0.0.1", ports["smtp"]), 20) as client:
        answers = client.makefile("rb")
        assert answers.readline().startswith(b"220")
        for line in (
            "HELO c",
            "MAIL FROM:<a@c.example>",
            "RCPT TO:<box-1@here.example>",
        ):
            client.sendall(line.encode() + b"\r\n")
            assert answers.readline().startswith(b"250")
        client.sendall(b"DATA\r\n")
        assert answers.readline().startswith(b"354")
        before = memory(tree)
        with still([enqueue]):
            sent = fill(client)
            assert sent < LONG_BYTES
            assert not grown(tree, before)
        client.settimeout(30)
        client.sendall(LINE[sent % len(LINE) :])
        client.sendall(b".\r\n")
        assert answers.readline().startswith(b"250")
    tree.wait_for(rb"end msg")
    [arrived] = (tree.home / "alias/Maildir/new").iterdir()
    lines = sent // len(LINE) + 1
    assert arrived.read_bytes().count(LINE.replace(b"\r", b"")) == lines
    assert tree.stop() == 0
