"""The wall clock is set by hours and days while mail waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from qsend.core.retry import longest_delay
from qsend.sysio import clock
from tests.tree.harness import Tree, until

HERE = Path(__file__).parent
HOUR, DAY = 3600, 86400
LIFETIME_S = 7 * DAY


@pytest.fixture
def set_clock(tree: Tree, open_tmp: Path) -> Callable[[int], None]:
    """Sets the clock of a tree, which runs, to so many seconds from now."""
    offset = open_tmp / "offset"
    offset.write_text("0".rjust(20))
    tree.alias("later", "|test -e ready || exit 111\n")
    patch = f"PLACE = {str(open_tmp)!r}\n{(HERE / 'wrongclock.py').read_text()}"
    tree.start(patch=patch)

    def set_clock(seconds: int) -> None:
        with offset.open("r+") as file:
            file.write(str(seconds).rjust(20))
        # Whatever brings a turn of the loop.
        tree.ask("status")

    return set_clock


def defer(tree: Tree) -> None:
    """Have a message preprocessed and due in less than two minutes."""
    tree.queue([b"later@here.example"])
    tree.wait_for(rb"\ndelivery \d+: deferral: ")
    until(lambda: tree.ask("status")["channels"]["local"]["scheduled"] == 1)


@pytest.mark.parametrize("by", [5 * HOUR, 8 * DAY])
def test_step_forward_expires_nothing_and_makes_no_storm(
    tree: Tree, set_clock: Callable[[int], None], by: int
) -> None:
    defer(tree)
    [send] = tree.pids("qmail-send")
    began = psutil.Process(send).cpu_times()
    mark = len(tree.log)
    set_clock(by)
    tree.wait_for(rb"\nwarning: the clock was set forward by \d+ seconds\n")
    # It is due at once, once, and not for the last time.
    tree.wait_for(rb"\ndelivery \d+: deferral: ")
    for _ in range(20):
        tree.ask("status")
        tree.watch(0.02)
    assert tree.log.count(b"starting delivery", mark) == 1
    assert b"bounce msg" not in tree.log
    spent = psutil.Process(send).cpu_times()
    assert spent.user + spent.system - began.user - began.system < 0.5
    (tree.home / "alias/ready").touch()
    tree.run("flush", "all")
    tree.wait_for(rb"end msg \d+\n")
    assert tree.stop() == 0


def test_step_back_holds_up_nothing(
    tree: Tree, set_clock: Callable[[int], None]
) -> None:
    set_clock(3 * DAY)
    tree.wait_for(rb"clock was set forward")
    defer(tree)
    set_clock(0)
    tree.wait_for(rb"\nwarning: the clock was set back by \d+ seconds\n")
    assert wait_s(tree) <= longest_delay(LIFETIME_S)
    assert tree.stop() == 0
    # On disk it still says the old time.
    tree.start()
    assert wait_s(tree) <= longest_delay(LIFETIME_S)
    assert tree.stop() == 0


def wait_s(tree: Tree) -> int:
    """Until the next attempt on the only recipient."""
    [row] = tree.ask("queue")
    return int(row["recips"][0]["next"]) - clock.now()
