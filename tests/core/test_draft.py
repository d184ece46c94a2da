from __future__ import annotations

import pytest

from qsend.core.draft import Draft, apply, parse_header, render_field
from qsend.core.errors import RemoteProtocolError
from qsend.core.milterwords import (
    AddField,
    AddRecipient,
    ChangeField,
    Edit,
    InsertField,
    NewBody,
    NewSender,
    Quarantine,
    RemoveRecipient,
)


@pytest.mark.parametrize(
    ("text", "names", "at"),
    [
        (b"A: b\n\nbody\n", [b"A"], 6),
        (b"A: b\n c\nB : d\n\n", [b"A", b"B"], 15),
        (b"\nbody\n", [], 1),
        (b"", [], 0),
        (b"A: b\n", [b"A"], 5),
        (b"A: b\nno field\n", [b"A"], 5),
        (b" first\nA: b\n", [], 0),
        (b"From me\nA: b\n", [], 0),
    ],
)
def test_header(text: bytes, names: list[bytes], at: int) -> None:
    found = parse_header(text, is_all=True)
    assert found is not None
    assert ([each.name for each in found[0]], found[1]) == (names, at)
    raw = b"".join(each.raw for each in found[0])
    assert text.startswith(raw)


@pytest.mark.parametrize("text", [b"", b"A: b\n", b"A: b\n c"])
def test_header_may_go_on(text: bytes) -> None:
    assert parse_header(text, is_all=False) is None


@pytest.mark.parametrize("keeps_space", [False, True])
def test_value(keeps_space: bool) -> None:
    found = parse_header(b"A:  b\n\tc\n\n", is_all=True)
    assert found is not None
    want = b"  b\n\tc" if keeps_space else b"b\n\tc"
    assert found[0][0].value(keeps_space) == want


def draft() -> Draft[None]:
    found = parse_header(b"A: 1\nB: 2\na: 3\n\n", is_all=True)
    assert found is not None
    return Draft(sender=b"s@x", recips=[b"r@x"], fields=found[0], body=None)


@pytest.mark.parametrize(
    ("edit", "want"),
    [
        (AddField(name=b"C", value=b"4"), b"A: 1\nB: 2\na: 3\nC: 4\n\n"),
        (InsertField(index=0, name=b"C", value=b"4"), b"C: 4\nA: 1\nB: 2\na: 3\n\n"),
        (InsertField(index=1, name=b"C", value=b"4"), b"A: 1\nC: 4\nB: 2\na: 3\n\n"),
        (InsertField(index=99, name=b"C", value=b"4"), b"A: 1\nB: 2\na: 3\nC: 4\n\n"),
        (ChangeField(index=2, name=b"A", value=b"4"), b"A: 1\nB: 2\nA: 4\n\n"),
        (ChangeField(index=1, name=b"a", value=b""), b"B: 2\na: 3\n\n"),
        (ChangeField(index=3, name=b"a", value=b""), b"A: 1\nB: 2\na: 3\n\n"),
        (ChangeField(index=9, name=b"B", value=b"4"), b"A: 1\nB: 2\na: 3\nB: 4\n\n"),
    ],
)
def test_header_is_changed(edit: Edit, want: bytes) -> None:
    made = draft()
    apply(made, edit, keeps_space=False)
    assert made.header() == want
    assert draft().header() != want or want == b"A: 1\nB: 2\na: 3\n\n"


def test_envelope_is_changed() -> None:
    made = draft()
    copy = made.copy()
    for edit in (
        AddRecipient(address=b"<n@x>"),
        AddRecipient(address=b" n@x "),
        AddRecipient(address=b'<"a b"@x>'),
        RemoveRecipient(address=b"r@x"),
        NewSender(address=b"<>"),
        Quarantine(reason=b"odd"),
    ):
        apply(made, edit, keeps_space=False)
    assert (made.sender, made.recips) == (b"", [b"n@x", b"a b@x"])
    assert made.quarantine == b"odd"
    assert (copy.sender, copy.recips, copy.quarantine) == (b"s@x", [b"r@x"], None)


@pytest.mark.parametrize(
    ("value", "keeps_space", "raw"),
    [
        (b"v", False, b"N: v\n"),
        (b"v", True, b"N:v\n"),
        (b"a\r\n b\n", False, b"N: a\n b\n"),
        (b"a\nEvil: b\n\nbody", False, b"N: a\n\tEvil: b\n\t\n\tbody\n"),
        (b"a\rb", False, b"N: a b\n"),
    ],
)
def test_value_stays_a_value(value: bytes, keeps_space: bool, raw: bytes) -> None:
    assert render_field(b"N", value, keeps_space=keeps_space).raw == raw


@pytest.mark.parametrize(
    "edit",
    [
        AddField(name=b"", value=b"x"),
        AddField(name=b"A b", value=b"x"),
        AddField(name=b"A:", value=b"x"),
        AddField(name=b"A\n", value=b"x"),
        AddRecipient(address=b"<a\nb@x>"),
        AddRecipient(address=b"a" * 900),
        NewSender(address=b"<a@x> ="),
        NewBody(data=b""),
    ],
)
def test_senseless_edits(edit: Edit) -> None:
    with pytest.raises(RemoteProtocolError):
        apply(draft(), edit, keeps_space=False)
