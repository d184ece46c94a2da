"""What a repair decides, for every combination of files and every confusion of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from qsend.core.model import SPLIT
from qsend.core.repair import (
    GONE,
    NO_SENDER,
    OSSIFIED_S,
    Found,
    Message,
    Plan,
    final_path,
    group,
    plan,
    staged_path,
)
from qsend.core.states import FILES, Fate, fate

NOW = 1_000_000_000
COMBINATIONS = [
    frozenset(name for name, there in zip(FILES, bits, strict=True) if there)
    for bits in product((False, True), repeat=len(FILES))
]


def file(kind: str, number: int, path: str = "", inode: int = 0) -> Found:
    """A file in its right place, or at `path`; its inode is its number."""
    return Found(
        kind=kind,
        path=path or final_path(kind, number),
        number=number,
        is_staged="+" in path,
        device=1,
        inode=inode or (number if kind == "mess" else 900_000 + number),
        is_file=True,
        size=10,
        touched=NOW,
    )


def planned(*found: Found, damage: dict[str, str] | None = None, age: int = 0) -> Plan:
    messages, asides = group(found)
    return plan(messages, asides, damage or {}, NOW + age)


@pytest.mark.parametrize("present", COMBINATIONS, ids=lambda p: "+".join(sorted(p)))
def test_every_combination_has_the_fate_that_the_tables_give_it(
    present: frozenset[str],
) -> None:
    made = planned(*(file(kind, 457) for kind in present), age=OSSIFIED_S + 1)
    expected = fate(present)
    reasons = [aside.reason for aside in made.asides]
    if expected in (Fate.ASIDE, Fate.LEFTOVER):
        assert reasons == [GONE]
    elif expected is Fate.SWEEP and present & {"local", "remote", "bounce"}:
        # More careful than the sweep: these are a message's recipients.
        assert reasons == [NO_SENDER]
    elif expected is Fate.SWEEP:
        (remove,) = made.removes
        assert [each.kind for each in remove.files][-1] == "mess"
        assert {each.kind for each in remove.files} == present
    elif expected is Fate.DELIVER and "intd" in present:
        assert [each.path for each in made.drops] == ["intd/457"]
    else:
        assert made.is_empty()
    assert len(made.asides) + len(made.removes) + len(made.drops) <= 1


@pytest.mark.parametrize("age", [0, OSSIFIED_S])
def test_garbage_is_kept_while_somebody_may_write_it(age: int) -> None:
    made = planned(file("mess", 457), file("intd", 457), age=age)
    assert made.is_empty()
    assert [message.number for message in made.kept] == [457]


def test_young_garbage_is_renumbered_as_well() -> None:
    made = planned(file("mess", 457, inode=999), file("intd", 457))
    assert [(r.number, r.target) for r in made.renumbers] == [(457, 999)]
    assert [message.number for message in made.kept] == [457]


def test_numbers_that_are_exchanged_are_told_by_the_inodes() -> None:
    made = planned(
        file("mess", 100, inode=200),
        file("info", 100),
        file("mess", 200, inode=100),
        file("info", 200),
    )
    assert [
        (each.number, each.target, [found.path for found in each.files])
        for each in made.renumbers
    ] == [
        (100, 200, ["info/8/100", "mess/8/100"]),
        (200, 100, ["info/16/200", "mess/16/200"]),
    ]


@pytest.mark.parametrize("staged", [("info",), ("info", "remote"), ("mess", "remote")])
def test_renumbering_goes_on_from_where_it_was_cut(staged: tuple[str, ...]) -> None:
    # The mess file is staged last, and renamed first.
    target = 999
    after_mess = "mess" in staged
    found = [
        file(
            kind,
            target if kind in staged or after_mess else 457,
            staged_path(kind, target) if kind in staged or after_mess else "",
            inode=target if kind == "mess" else 0,
        )
        for kind in ("mess", "info", "remote")
    ]
    made = planned(*found)
    (each,) = made.renumbers
    assert each.target == target
    assert {file.kind for file in each.files} == {"mess", "info", "remote"}


def test_mess_renamed_before_its_companions_still_has_them() -> None:
    made = planned(file("mess", 999), file("info", 999, staged_path("info", 999)))
    (each,) = made.renumbers
    assert [found.path for found in each.files] == ["info/10/+999", "mess/10/999"]


def test_files_in_wrong_directories_are_moved() -> None:
    made = planned(
        file("mess", 457, "mess/3/457"),
        file("info", 457),
        file("remote", 457, "remote/30/457"),
    )
    assert [(found.path, where) for found, where in made.moves] == [
        ("remote/30/457", f"remote/{457 % SPLIT}/457"),
        ("mess/3/457", f"mess/{457 % SPLIT}/457"),
    ]


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (["mess/20/457", "mess/3/457"], "mess/20/457"),
        (["mess/3/457", "mess/4/457"], "mess/3/457"),
    ],
)
def test_of_two_mess_files_of_a_number_one_is_the_message(
    found: list[str], kept: str
) -> None:
    files = [file("mess", 457, path, inode=457 + at) for at, path in enumerate(found)]
    messages, asides = group([*files, file("todo", 457)])
    (message,) = messages
    assert message.files["mess"].path == kept
    assert set(message.files) == {"mess", "todo"}
    assert [each.path for aside in asides for each in aside.files] == [
        path for path in found if path != kept
    ]


def test_companions_lie_where_their_message_lies() -> None:
    # Two queues of other splits, unpacked into one.
    found = [
        file("mess", 457, "mess/3/457"),
        file("info", 457, "info/4/457"),
        file("info", 457, "info/3/457", inode=5),
    ]
    messages, asides = group(found)
    assert messages[0].files["info"].path == "info/3/457"
    assert [aside.files[0].path for aside in asides] == ["info/4/457"]


def test_damage_of_any_file_sends_all_of_them_aside() -> None:
    found = [file(kind, 457) for kind in ("mess", "info", "local", "remote")]
    made = planned(*found, damage={"local/20/457": "local: bad"})
    (aside,) = made.asides
    assert (aside.number, aside.reason) == (457, "local: bad")
    assert [each.kind for each in aside.files] == ["info", "local", "remote", "mess"]


@pytest.mark.parametrize(
    ("present", "read"),
    [
        ({"mess", "intd", "todo", "info", "remote"}, {"mess", "todo"}),
        ({"mess", "info", "remote"}, {"mess", "info", "remote"}),
        ({"mess", "intd"}, set()),
        ({"mess", "local"}, set()),
    ],
)
def test_only_what_will_be_read_is_judged(present: set[str], read: set[str]) -> None:
    files = {kind: file(kind, 457) for kind in present}
    message = Message(number=457, target=457, files=files)
    assert {each.kind for each in message.to_read()} == read


def test_what_is_no_file_keeps_its_number() -> None:
    directory = replace(file("mess", 457, inode=5), is_file=False)
    messages, _ = group([directory])
    assert messages[0].target == 457
