"""What a qmail-remote's end and output mean: the rows of qmail-rspawn."""

from __future__ import annotations

import pytest

from qsend.core.model import Letter
from qsend.core.remotereport import judge

K, Z, D = Letter.SUCCESS, Letter.DEFERRAL, Letter.FAILURE


@pytest.mark.parametrize(
    ("output", "want"),
    [
        (b"r\0Kok\n\0", (K, b"ok\n")),
        (b"r\0Zlater\0", (Z, b"later")),
        (b"r\0Dno\0", (D, b"no")),
        (b"hbad\n\0Dgiving up\n\0", (D, b"bad\ngiving up\n")),
        (b"sbusy\n\0Dgiving up\n\0", (Z, b"busy\ngiving up\n")),
        (b"sbusy\0Zlater\0", (Z, b"busylater")),
        (b"hbad\0Zlater\0", (D, b"bad")),
        (b"sbusy\0Kok\0", (Z, b"busy")),
        (b"hbad\0Kok\0", (D, b"bad")),
        (b"Zdns\0", (Z, b"dns")),
        (b"Dnone\0", (D, b"none")),
        (b"Kok\0", (K, b"ok")),
        (b"r\0", (D, b"")),
        (b"sbusy\0", (Z, b"busy")),
        (b"r\0?\0Kok\0", (K, b"")),
        (b"garbage", (D, b"")),
        (b"Kcut", (D, b"")),
        (b"Zone\0Ktwo\0", (Z, b"onetwo")),
        (b"Kone\0Ktwo\0", (K, b"onetwo")),
        (b"\0Kok\0", (K, b"ok")),
    ],
)
def test_output_decides_after_exit_zero(
    output: bytes, want: tuple[Letter, bytes]
) -> None:
    assert judge(0, output) == want


@pytest.mark.parametrize(
    ("status", "letter"),
    [(-9, Z), (-11, Z), (111, Z), (1, D), (100, D), (127, D), (255, D)],
)
def test_other_ends_ignore_the_output(status: int, letter: Letter) -> None:
    got, text = judge(status, b"r\0Kok\0")
    assert got is letter
    assert b"ok" not in text
    assert text.endswith(b".0)\n")


def test_silence_is_a_deferral() -> None:
    assert judge(0, b"")[0] is Z
