"""Requests and answers of the control socket."""

from __future__ import annotations

import json

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.formats.controlwire import Answer, parse_answer, render_request


def test_request_is_one_object() -> None:
    assert json.loads(render_request("status")) == {"do": "status"}
    assert json.loads(render_request("hold", what="host:a.example")) == {
        "do": "hold",
        "what": "host:a.example",
    }


@pytest.mark.parametrize(
    ("packet", "want"),
    [
        (b'{"ok": true}', Answer(more=False, error="", facts={})),
        (
            b'{"ok": true, "more": true, "items": []}',
            Answer(more=True, error="", facts={"items": []}),
        ),
        (
            b'{"ok": false, "more": false, "error": "no message 5"}',
            Answer(more=False, error="no message 5", facts={}),
        ),
        (b'{"ok": false}', Answer(more=False, error="refused", facts={})),
        (b'{"ok": true, "more": 1}', Answer(more=False, error="", facts={})),
    ],
)
def test_answer_is_parsed(packet: bytes, want: Answer) -> None:
    assert parse_answer(packet) == want


@pytest.mark.parametrize(
    "packet", [b"", b"[]", b"{}", b'{"ok": 1}', b'{"ok": true', b"\xff", b"null"]
)
def test_garbage_is_refused(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_answer(packet)


def test_items_are_objects_only() -> None:
    answer = parse_answer(b'{"ok": true, "items": [{"messid": 5}, 7, null]}')
    assert answer.items == [{"messid": 5}]
    with pytest.raises(RemoteProtocolError):
        _ = parse_answer(b'{"ok": true, "items": 5}').items
