from __future__ import annotations

import subprocess

import psutil
import pytest

from bench import proctree
from bench.errors import BenchError


def test_what_was_ended_is_gone_when_the_call_returns() -> None:
    processes = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    try:
        pids = [each.pid for each in processes]
        proctree.end(pids, 20)
        assert not any(map(psutil.pid_exists, pids))
        proctree.end(pids, 20)
    finally:
        for each in processes:
            each.kill()
            each.wait()


def test_one_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "kill", lambda _process: None)
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(BenchError, match=f"pid={process.pid}"):
            proctree.end([process.pid], 0.1)
        process.kill()
