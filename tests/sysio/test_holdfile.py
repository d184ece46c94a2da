"""Holds survive a restart; a damaged file stops nothing."""

from __future__ import annotations

from pathlib import Path

from qsend.core.model import MessId
from qsend.sysio.fsq import Queue
from qsend.sysio.holdfile import HoldFile
from tests.queues import inject, make_queue


def held_queue(home: Path) -> tuple[Queue, MessId]:
    path = make_queue(home)
    return Queue(str(path)), inject(path)


def test_holds_come_back_and_those_of_other_messages_do_not(tmp_path: Path) -> None:
    queue, messid = held_queue(tmp_path)
    holds = HoldFile(str(tmp_path / "holds"))
    names = {b"local", b"host:x.example", b"mess:%d" % messid}
    holds.save(names, queue)
    assert holds.load(queue) == names
    text = (tmp_path / "holds").read_text()
    (tmp_path / "holds").write_text(text.replace(f"mess:{messid} ", f"mess:{messid} 9"))
    assert holds.load(queue) == {b"local", b"host:x.example"}
    queue.close()


def test_missing_file_holds_nothing(tmp_path: Path) -> None:
    queue, _ = held_queue(tmp_path)
    assert HoldFile(str(tmp_path / "holds")).load(queue) == set()
    queue.close()


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    queue, messid = held_queue(tmp_path)
    holds = HoldFile(str(tmp_path / "holds"))
    holds.save({b"mess:%d" % messid}, queue)
    with (tmp_path / "holds").open("ab") as file:
        file.write(b"mess:\nmess:x 1\nmess:12\nremote\n")
    assert holds.load(queue) == {b"mess:%d" % messid, b"remote"}
    queue.close()
