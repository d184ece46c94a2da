"""What will happen to mail for an address, step by step, as JSON.

Source: docs/VIRTUAL.md; core/sqllocality.py, core/sqluser.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from qsend.core.address import split
from qsend.core.lookups import Locality, Stored, YesNo
from qsend.core.model import Channel, User
from qsend.core.rewrite import Rules, qualified
from qsend.core.rewritesteps import locals_step, placed_steps, qualified_steps
from qsend.core.sqllocality import Unlisted
from qsend.core.sqlrules import Judged
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.sysio.resolver import Resolver

_SHOWN_MAX = 4000
"""Bytes of a value that are shown; only instructions may be longer."""


def explain(
    address: bytes,
    rules: Rules,
    resolver: Resolver,
    default_delivery: bytes,
    done: Callable[[bytes], None],
) -> None:
    """`done` gets what mail for `address` would meet, nothing from memory.

    An object with `address` (after percenthack and envnoathost), `steps` (sentences
    in order), `fate` ("local", "remote", "no such recipient", "nobody" for an empty
    local part, or "trouble"), `stored` (the address that a message in the queue
    keeps), `trouble` (the reason), `is_listed` (whether the rcpthosts table has the
    host, null when it cannot be asked), `default_delivery`, and `user`: name, uid,
    gid, home, dash, ext, ownership, instructions.
    """
    whole = qualified(address, rules)
    explanation = _Explanation(whole, rules, resolver, done)
    explanation.note(*qualified_steps(address, rules), locals_step(whole, rules))
    explanation.told["default_delivery"] = _text(default_delivery)

    def listed(answer: YesNo) -> None:
        is_known = not isinstance(answer, Trouble)
        explanation.told["is_listed"] = answer if is_known else None
        resolver.judge_locality(whole, explanation.located)

    resolver.rcpthost(whole.rpartition(b"@")[2], listed)


class _Explanation:
    def __init__(
        self,
        address: bytes,
        rules: Rules,
        resolver: Resolver,
        done: Callable[[bytes], None],
    ) -> None:
        self._address = address
        self._rules = rules
        self._resolver = resolver
        self._done = done
        self._steps: list[str] = []
        self.told: dict[str, object] = {"address": _text(address)}

    def note(self, *steps: str) -> None:
        """Add sentences."""
        self._steps += steps

    def located(self, judged: Judged[Locality]) -> None:
        """The database has said whether it takes the address."""
        self._steps += judged.steps
        if isinstance(judged.answer, Trouble):
            self._trouble(judged.answer.text)
            return
        place = self._resolver.settle(self._address, judged.answer, self._rules)
        if not isinstance(judged.answer, Stored):
            self._steps += placed_steps(
                self._address, self._rules, has_database=self._resolver.has_database
            )
        if isinstance(place, Unlisted):
            self._steps.append("virtual has rows for the host, none for the address")
            self._finish("no such recipient")
            return
        channel, stored = place
        self.told["stored"] = _text(stored)
        self._steps.append(f"it is {channel.value}, as {_text(stored)}")
        local = split(stored)[0]
        if channel is Channel.REMOTE:
            self._finish("remote")
        elif not local:
            self._finish("nobody")
        else:
            self._resolver.judge_user(local, self._found)

    def _found(self, judged: Judged[Outcome]) -> None:
        self._steps += judged.steps
        match judged.answer:
            case Trouble(text=text) | NoUser(text=text):
                self._trouble(text)
            case User() as user:
                self.told["user"] = _shown(user)
                self._finish("local")

    def _trouble(self, text: bytes) -> None:
        self.told["trouble"] = _text(text)
        self._finish("trouble")

    def _finish(self, fate: str) -> None:
        told = {**self.told, "fate": fate, "steps": self._steps}
        self._done(json.dumps(told).encode())


def _shown(user: User) -> dict[str, object]:
    instructions = user.instructions
    return {
        "name": _text(user.name),
        "uid": user.uid,
        "gid": user.gid,
        "home": _text(user.home),
        "dash": _text(user.dash),
        "ext": _text(user.ext),
        "ownership": user.ownership.name,
        "instructions": None if instructions is None else _text(instructions),
    }


def _text(value: bytes) -> str:
    return value[:_SHOWN_MAX].decode("utf-8", "backslashreplace")
