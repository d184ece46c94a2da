"""What `qsend status`, `queue`, `flush` ... and send say over run/control.sock.

One JSON object per packet. A request is {"do": WHAT, ...}:
    status, queue, cure, reload: nothing more;
    flush, hold, release: "what": "all", "local", "remote", "host:NAME", "mess:N";
    remove: "messid": N;
    stop: "all": whether enqueue ends too.
An answer is one or more of {"ok": true, "more": BOOL, ...facts}, the last with
"more" false; a list comes as "items" in each; or {"ok": false, "error": TEXT}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import RemoteProtocolError

ANSWER_MAX = 1 << 20
"""Longest packet taken; send keeps its own below the socket's buffer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One packet of an answer; `error` is "" when all is well."""

    more: bool
    error: str
    facts: Mapping[str, object]

    @property
    def items(self) -> list[dict[str, object]]:
        """The list's part in this packet; what is not an object is left out."""
        found = self.facts.get("items", [])
        if not isinstance(found, list):
            raise RemoteProtocolError("items is no list")
        return [item for item in found if isinstance(item, dict)]


def render_request(do: str, **more: object) -> bytes:
    """The packet that asks for something."""
    return json.dumps({"do": do, **more}).encode()


def parse_answer(packet: bytes) -> Answer:
    """One packet of an answer.

    Raises: RemoteProtocolError when it is not as described above.
    """
    try:
        value = json.loads(packet)
    except ValueError as exc:
        raise RemoteProtocolError("answer is not JSON") from exc
    if not isinstance(value, dict) or not isinstance(value.get("ok"), bool):
        raise RemoteProtocolError("answer has no ok")
    error = "" if value["ok"] else str(value.get("error") or "refused")
    facts = {
        key: each for key, each in value.items() if key not in ("ok", "more", "error")
    }
    return Answer(more=value.get("more") is True, error=error, facts=facts)
