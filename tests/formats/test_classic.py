"""The classic wires: spawner commands and reports, cleaner commands."""

from __future__ import annotations

import pytest

from qsend.core.errors import LocalProtocolError
from qsend.core.model import Letter, MessId
from qsend.formats.classic import (
    CLEAN_MAX,
    FIELD_MAX,
    ClassicReport,
    CleanCommand,
    CleanOp,
    CleanReader,
    Command,
    CommandReader,
    ReportReader,
    render_clean,
    render_command,
    render_report,
)
from qsend.formats.delivery import REPORT_MAX

CUTS = [1, 2, 3, 7, 1 << 20]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def command(
    delnum: int, path: bytes, sender: bytes, recip: bytes, *, is_cut: bool = False
) -> Command:
    return Command(delnum=delnum, path=path, sender=sender, recip=recip, is_cut=is_cut)


COMMANDS = [
    (
        b"\x0320/457\0l-owner-a=b@h\0a@b\0",
        command(3, b"20/457", b"l-owner-a=b@h", b"a@b"),
    ),
    (b"\x0020/457\0\0a@b\0", command(0, b"20/457", b"", b"a@b")),
    (b"\xff\0\0\0", command(255, b"", b"", b"")),
]


@pytest.mark.parametrize(("wire", "want"), COMMANDS)
def test_command_is_rendered_as_qmail_does(wire: bytes, want: Command) -> None:
    assert render_command(want) == wire


@pytest.mark.parametrize("size", CUTS)
def test_commands_are_read_however_cut(size: int) -> None:
    wire = b"".join(wire for wire, _ in COMMANDS) + b"\x07partial\0"
    reader = CommandReader()
    found = [each for piece in pieces(wire, size) for each in reader.feed(piece)]
    assert found == [want for _, want in COMMANDS]
    assert reader.feed(b"s\0r\0") == [command(7, b"partial", b"s", b"r")]


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_command_with_an_endless_field_is_bounded(size: int) -> None:
    wire = b"\x011/1\0" + b"s" * (3 * FIELD_MAX) + b"\0r@h\0" + COMMANDS[0][0]
    reader = CommandReader()
    found = [each for piece in pieces(wire, size) for each in reader.feed(piece)]
    assert found == [
        command(1, b"1/1", b"s" * FIELD_MAX, b"r@h", is_cut=True),
        COMMANDS[0][1],
    ]


@pytest.mark.parametrize(
    "bad",
    [
        command(256, b"p", b"", b""),
        command(-1, b"p", b"", b""),
        command(1, b"p\0", b"", b""),
        command(1, b"p", b"\0", b""),
        command(1, b"p", b"", b"a\0@b"),
    ],
)
def test_command_the_wire_cannot_carry_is_refused(bad: Command) -> None:
    with pytest.raises(LocalProtocolError):
        render_command(bad)


def report(delnum: int, letter: Letter | None, text: bytes) -> ClassicReport:
    return ClassicReport(delnum=delnum, letter=letter, text=text)


REPORTS = [
    (b"\x00Kdid 1+0+0\n\0", report(0, Letter.SUCCESS, b"did 1+0+0\n")),
    (b"\x03Zlater\0", report(3, Letter.DEFERRAL, b"later")),
    (b"\xfeD\0", report(254, Letter.FAILURE, b"")),
    (b"\x00Q?\0", report(0, None, b"?")),
    (b"\x05\0", report(5, None, b"")),
    (b"\x00\0", report(0, None, b"")),
]


@pytest.mark.parametrize("size", CUTS)
def test_reports_are_read_however_cut(size: int) -> None:
    wire = b"".join(wire for wire, _ in REPORTS) + b"\x09Ktail"
    reader = ReportReader()
    found = [each for piece in pieces(wire, size) for each in reader.feed(piece)]
    assert found == [want for _, want in REPORTS]
    assert reader.feed(b"\0") == [report(9, Letter.SUCCESS, b"tail")]


@pytest.mark.parametrize("size", [999, 1 << 20])
def test_report_is_clipped(size: int) -> None:
    wire = b"\x01K" + b"a" * 25000 + b"\0\x02Kb\0"
    reader = ReportReader()
    found = [each for piece in pieces(wire, size) for each in reader.feed(piece)]
    assert found == [
        report(1, Letter.SUCCESS, b"a" * (REPORT_MAX - 2)),
        report(2, Letter.SUCCESS, b"b"),
    ]


@pytest.mark.parametrize(
    ("text", "want"),
    [(b"ok\n", b"\x02Zok\n\0"), (b"a\0b", b"\x02Za\0"), (b"", b"\x02Z\0")],
)
def test_report_is_rendered_up_to_its_first_nul(text: bytes, want: bytes) -> None:
    assert render_report(2, Letter.DEFERRAL, text) == want


def clean(op: CleanOp, number: int) -> CleanCommand:
    return CleanCommand(op=op, messid=MessId(number))


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"foop/457", clean(CleanOp.FOOP, 457)),
        (b"todo/457", clean(CleanOp.TODO, 457)),
        (b"foop/1", clean(CleanOp.FOOP, 1)),
        (b"foop/18446744073709551615", clean(CleanOp.FOOP, 2**64 - 1)),
        (b"foop/18446744073709551616", None),
        (b"foop/", None),
        (b"foop/4x57", None),
        (b"foop/-1", None),
        (b"foop/ 1", None),
        (b"mess/457", None),
        (b"FOOP/457", None),
        (b"foop457", None),
        (b"", None),
        (b"\xb2\xb2\xb2\xb2/\xb2\xb2", None),
        (b"foop/" + b"0" * (CLEAN_MAX - 7) + b"5", clean(CleanOp.FOOP, 5)),
        (b"foop/" + b"0" * (CLEAN_MAX - 6) + b"5", None),
        (b"foop/" + b"1" * 100000, None),
    ],
)
@pytest.mark.parametrize("size", CUTS)
def test_clean_command_gets_one_answer_however_bad(
    line: bytes, want: CleanCommand | None, size: int
) -> None:
    reader = CleanReader()
    wire = line + b"\0todo/9\0todo/"
    found = [each for piece in pieces(wire, size) for each in reader.feed(piece)]
    assert found == [want, clean(CleanOp.TODO, 9)]
    assert reader.feed(b"8\0") == [clean(CleanOp.TODO, 8)]


def test_clean_command_is_rendered() -> None:
    assert render_clean(clean(CleanOp.FOOP, 457)) == b"foop/457\0"
    assert render_clean(clean(CleanOp.TODO, 2**63)) == b"todo/9223372036854775808\0"
