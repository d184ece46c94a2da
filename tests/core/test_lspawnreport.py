"""From a dead child of the classic local spawner to a report."""

from __future__ import annotations

import pytest

from qsend.core.lspawnreport import judge
from qsend.core.model import Letter

K, Z, D = Letter.SUCCESS, Letter.DEFERRAL, Letter.FAILURE

OUTPUT_DECIDES = [
    (0, K),
    (111, Z),
    (71, Z),
    (74, Z),
    (75, Z),
    (100, D),
    (1, D),
    (64, D),
    (99, D),
    (110, D),
    (114, D),
    (122, D),
    (125, D),
    (127, D),
    (255, D),
]


@pytest.mark.parametrize(("status", "letter"), OUTPUT_DECIDES)
def test_judge_copies_output_up_to_the_first_nul(status: int, letter: Letter) -> None:
    assert judge(status, b"why\nnot\0lost") == (letter, b"why\nnot")
    assert judge(status, b"") == (letter, b"")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, b"crashed"),
        (112, b"become the user"),
        (113, b"may not be delivered"),
        (115, b"file server"),
        (116, b"alias"),
        (117, b"users/cdb"),
        (118, b"system"),
        (119, b"memory"),
        (120, b"run qmail-local"),
        (121, b"lookup"),
        (126, b"run qmail-local"),
    ],
)
def test_judge_internal_codes_defer_with_a_sentence_of_ours(
    status: int, words: bytes
) -> None:
    letter, text = judge(status, b"not copied")
    assert letter is Z
    assert words in text
    assert b"(#4." in text
    assert text.endswith(b"\n")
    assert b"not copied" not in text
