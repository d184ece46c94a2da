from __future__ import annotations

from qsend.core.dues import Dues
from qsend.core.model import MessId


def filled(*pairs: tuple[int, int]) -> Dues:
    dues = Dues()
    dues.load((due, MessId(messid)) for due, messid in pairs)
    return dues


def test_what_is_longest_due_comes_first_and_the_rest_waits() -> None:
    dues = filled((30, 3), (10, 1), (20, 2))
    assert dues.next_due() == 10
    assert [dues.pop_due(20) for _ in range(3)] == [(10, 1), (20, 2), None]
    assert len(dues) == 1


def test_flush_makes_everything_due_and_keeps_the_order() -> None:
    dues = filled((10, 1), (500, 5), (300, 3))
    dues.all_now(100)
    assert [dues.pop_due(100) for _ in range(3)] == [(10, 1), (100, 3), (100, 5)]


def test_removed_message_is_not_due_any_more() -> None:
    dues = filled((10, 1), (20, 2), (30, 3))
    assert dues.remove(MessId(2)) == 20
    assert dues.remove(MessId(2)) is None
    assert sorted(dues) == [(10, 1), (30, 3)]


def test_due_before_the_epoch_and_huge_numbers_are_kept() -> None:
    dues = Dues()
    dues.push(-5, MessId(2**63))
    assert dues.pop_due(0) == (0, 2**63)
