"""Exit codes of queueing programs: the table of qmail-queue(8)."""

from __future__ import annotations

import pytest

from qsend.core.model import Letter
from qsend.formats.queuetexts import explain

TABLE = {
    **dict.fromkeys((11, 115), (Letter.FAILURE, "#5.1.3")),
    **dict.fromkeys((31, *range(12, 31), *range(32, 41)), (Letter.FAILURE, "#5.3.0")),
    **dict.fromkeys(
        (*range(51, 57), *range(61, 67), 71, 81, 91, 111, 120),
        (Letter.DEFERRAL, "#4.3.0"),
    ),
    **dict.fromkeys((1, 10, 41, 50, 82, 99, 100, 255, -1), (Letter.DEFERRAL, "#4.3.0")),
    **dict.fromkeys((72, 73), (Letter.DEFERRAL, "#4.4.1")),
    74: (Letter.DEFERRAL, "#4.4.2"),
}


@pytest.mark.parametrize(("code", "want"), TABLE.items())
def test_explain_gives_letter_and_status(code: int, want: tuple[Letter, str]) -> None:
    letter, text = explain(code)
    assert letter is want[0]
    assert text.endswith(f"({want[1]})")


def test_explain_success_is_empty() -> None:
    assert explain(0) == (Letter.SUCCESS, "")


@pytest.mark.parametrize(
    ("custom", "want"),
    [
        (b"Dno such luck (#5.7.1)", (Letter.FAILURE, "no such luck (#5.7.1)")),
        (b"Zlater", (Letter.DEFERRAL, "later")),
        (b"D\xff\xfe", (Letter.FAILURE, "\udcff\udcfe")),
    ],
)
def test_explain_custom_text_is_verbatim(
    custom: bytes, want: tuple[Letter, str]
) -> None:
    assert explain(82, custom) == want


@pytest.mark.parametrize("custom", [b"", b"D", b"Dx", b"Kyes", b"xyz"])
def test_explain_custom_code_without_usable_text_is_temporary(custom: bytes) -> None:
    letter, text = explain(82, custom)
    assert letter is Letter.DEFERRAL
    assert text.endswith("(#4.3.0)")


def test_custom_text_counts_for_code_82_only() -> None:
    assert explain(31, b"Zcustom")[0] is Letter.FAILURE
