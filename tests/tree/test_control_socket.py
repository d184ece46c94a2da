"""What root may say on run/control.sock by mistake: answered, and send goes on."""

from __future__ import annotations

import json
from typing import Any

from qsend.sysio import unixsocket
from tests.tree.harness import Tree

NESTED = (b"[" * 4096, b'{"what":' * 500, b'{"do": "flush", "what": ' + b"[" * 4000)
NOT_JSON = (b"\0", b"\xff\xfe{}", b"{", b"[]", b"null", b"NaN", b"1" * 4096, b'"x"')
NONSENSE: tuple[dict[str, object], ...] = (
    {}, {"do": None}, {"do": []}, {"do": {"do": "status"}}, {"do": "queue", "what": 1},
    {"do": "flush", "what": "\ud800"}, {"do": "flush", "what": "\udcff"},
    {"do": "flush", "what": "mess:" + "9" * 3000}, {"do": "flush", "what": "\0"},
    {"do": "release", "what": "host:"}, {"do": "hold", "what": "mess:-1"},
    {"do": "remove"}, {"do": "remove", "messid": -1}, {"do": "remove", "messid": 1e300},
    {"do": "remove", "messid": 10**3000}, {"do": "remove", "messid": True},
)  # fmt: skip


def said(tree: Tree, packet: bytes) -> Any:
    """The answer to one packet."""
    with unixsocket.connect_to(str(tree.home / "run/control.sock")) as sock:
        sock.settimeout(20)
        sock.send(packet)
        return json.loads(sock.recv(1 << 16))


def test_nonsense_is_refused_and_ends_nothing(tree: Tree) -> None:
    tree.start()
    [pid] = tree.pids("qmail-send")
    packets = [*NESTED, *NOT_JSON, *(json.dumps(each).encode() for each in NONSENSE)]
    for packet in packets:
        assert said(tree, packet)["ok"] is False, packet
    assert tree.ask("status")["held"] == []
    assert tree.pids("qmail-send") == [pid]
    tree.queue([b"postmaster@here.example"])
    tree.wait_for(rb"end msg")
    assert tree.stop() == 0
    assert b"alert" not in tree.log
