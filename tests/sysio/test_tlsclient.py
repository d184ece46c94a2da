"""What a process remembers of hosts and TLS, and what it asks of whom."""

from __future__ import annotations

import pytest

from qsend.core.mx import Host
from qsend.core.tlspolicy import Demand, Level, Login, Rule
from qsend.formats.tlscontrols import TlsControls
from qsend.sysio import clock
from qsend.sysio.tlsclient import PLAIN_S, Peer, TlsClient

LOGIN = Login(user=b"u", password=b"p")
CONTROLS = TlsControls(
    policies={b"a.example": Rule(level=Level.NONE)},
    logins={b"relay.example": LOGIN},
)


def client() -> TlsClient:
    return TlsClient(CONTROLS, lambda: b"")


def peer(address: str = "192.0.2.1", port: int = 25, level: Level = Level.MAY) -> Peer:
    host = Host(address=address, preference=0, name=b"mx.example")
    return Peer(host=host, port=port, demand=Demand(level=level))


def test_only_relays_are_told_passwords() -> None:
    tls = client()
    told = tls.demand(b"Relay.Example", is_relay=True)
    assert told == Demand(level=Level.ENCRYPT, login=LOGIN)
    assert tls.demand(b"relay.example", is_relay=False) == Demand(level=Level.MAY)
    assert tls.demand(b"a.example", is_relay=True) == Demand(level=Level.NONE)


def test_host_whose_handshake_failed_is_met_in_clear_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls, now = client(), clock.mono()
    assert tls.begun(peer()) == peer()
    tls.note_plain(peer())
    assert tls.begun(peer()) == peer(level=Level.NONE)
    others = [peer("192.0.2.2"), peer(port=26)]
    musts = [peer(level=level) for level in (Level.ENCRYPT, Level.VERIFY)]
    for other in (*others, *musts):
        assert tls.begun(other) == other
    monkeypatch.setattr(clock, "mono", lambda: now + PLAIN_S - 1)
    assert tls.begun(peer()) == peer(level=Level.NONE)
    monkeypatch.setattr(clock, "mono", lambda: now + PLAIN_S + 1)
    assert tls.begun(peer()) == peer()
    tls.note_plain(peer())
    tls.forget()
    assert tls.begun(peer()) == peer()
