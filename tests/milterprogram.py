"""A mail filter on Debian's libmilter: tells what it hears, and does what it is told.

/usr/bin/python3 milterprogram.py SOCKET LOG PLAN

PLAN is JSON: the name of a stage to an answer ("reject", or [code, status, text ...]),
"edits" to a list of [method, argument ...], "macros" to names that are told at the end,
"omit" to protocol steps. LOG gets a line of JSON for each thing heard.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import Milter  # type: ignore[import-not-found, unused-ignore] # Debian's, not ours

SOCKET, LOG, PLAN = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
ANSWERS = {
    "accept": Milter.ACCEPT,
    "reject": Milter.REJECT,
    "tempfail": Milter.TEMPFAIL,
    "discard": Milter.DISCARD,
}


def raw(value: object) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return (
        value.encode("utf-8", "surrogateescape").decode("latin-1")
        if isinstance(value, str)
        else value
    )


class Filter(Milter.Base):  # type: ignore[misc, unused-ignore]
    def heard(self, stage: str, *what: object) -> int:
        line = json.dumps([stage, *map(raw, what)]) + "\n"
        with open(LOG, "a") as log:
            log.write(line)
        answer = PLAN.get(stage)
        if isinstance(answer, list):
            self.setreply(*answer)
            answer = "tempfail" if answer[0].startswith("4") else "reject"
        return int(ANSWERS.get(answer, Milter.CONTINUE))

    def connect(self, host: str, family: int, address: Any) -> int:
        return self.heard("connect", host, *(address or ())[:2])

    def hello(self, name: str) -> int:
        return self.heard("helo", name)

    def envfrom(self, *words: str) -> int:
        self.text = b""
        return self.heard("envfrom", *words)

    def envrcpt(self, *words: str) -> int:
        if words[0] in PLAN.get("bad", []):
            return int(Milter.REJECT)
        return self.heard("envrcpt", *words)

    def data(self) -> int:
        return self.heard("data")

    def header(self, name: str, value: str) -> int:
        return self.heard("header", name, value)

    def eoh(self) -> int:
        return self.heard("eoh")

    def body(self, piece: bytes) -> int:
        self.text += piece
        return self.heard("body", len(piece))

    def eom(self) -> int:
        macros = [self.getsymval(name) for name in PLAN.get("macros", [])]
        for method, *words in PLAN.get("edits", []):
            getattr(self, method)(*words)
        if PLAN.get("upper"):
            self.replacebody(self.text.upper())
        return self.heard("eom", *macros)

    def abort(self) -> int:
        return self.heard("abort")

    def close(self) -> int:
        return self.heard("close")


Milter.factory = Filter
Milter.set_flags(Milter.CHGBODY + Milter.CHGHDRS + Milter.ADDHDRS + Milter.ADDRCPT
                 + Milter.DELRCPT + Milter.CHGFROM + Milter.QUARANTINE)  # fmt: skip
os.umask(0)
Milter.runmilter("test", SOCKET, 60)
