"""What is interrupted while it sets something up leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from bench import cpugroup, peers
from bench.lab import Lab
from bench.limits import SyncedFiles
from bench.localcalls import LocalCalls
from bench.outcome import Outcome
from bench.peers.base import Site, System
from bench.sink import running_sink


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", peers.KINDS)
def test_a_peer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[System] = []

    def make(kind: str, site: Site) -> System:
        made.append(peers.KINDS[kind](site))
        return made[-1]

    monkeypatch.setattr(peers, "make", make)
    monkeypatch.setattr("bench.peers.base.WHERE", str(tmp_path))
    monkeypatch.setattr("bench.peers.qmailqueue.installation", interrupt)
    monkeypatch.setattr("bench.peers.postfix.getpwnam", interrupt)
    with running_sink(port=0) as sink, Lab(sink=sink) as lab:
        is_lent = False
        with pytest.raises(KeyboardInterrupt), lab.system(name, Site(relay=25)):
            is_lent = True
        assert not is_lent
    assert not list(tmp_path.iterdir())
    groups = [parent / made[0].path.parent.name for parent in cpugroup.hierarchies()]
    assert not any(group.exists() for group in groups)


@pytest.mark.parametrize("kind", [SyncedFiles(1), LocalCalls()])
def test_a_limit(
    kind: SyncedFiles | LocalCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("limits", "localcalls"):
        monkeypatch.setattr(f"bench.{module}.WHERE", str(tmp_path))
    monkeypatch.setattr(os, "sync", interrupt)
    with running_sink(port=0) as sink, pytest.raises(KeyboardInterrupt):
        kind.run(
            Lab(sink=sink, scale=0.001), "", Outcome(variant="", system="", round=1)
        )
    assert not list(tmp_path.iterdir())
