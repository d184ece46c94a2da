"""The mail systems that are measured."""

from __future__ import annotations

from bench.peers import notqmail
from bench.peers.base import Site, System
from bench.peers.notqmail import Notqmail
from bench.peers.postfix import DAEMONS, Postfix, TunedPostfix
from bench.peers.qsend import Qsend

KINDS: dict[str, type[System]] = {
    kind.name: kind for kind in (Qsend, Postfix, TunedPostfix, Notqmail)
}


def present() -> list[str]:
    """The names of those that can run here."""
    found = [Qsend.name]
    if (DAEMONS / "master").exists():
        found += [Postfix.name, TunedPostfix.name]
    if notqmail.is_there():
        found.append(Notqmail.name)
    return found


def make(name: str, site: Site) -> System:
    """One of them, for a site; `open` sets it up."""
    return KINDS[name](site)
