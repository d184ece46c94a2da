"""Asking what will happen to mail: of the running system, or of the files and the
database themselves.

Root only, or who runs a single-user home. Source: sysio/explain.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qsend.core.errors import PermFail, TempFail
from qsend.core.model import Account, Accounts, Ownership, User
from qsend.core.users import passwd_candidates
from qsend.formats.control import Controls
from qsend.formats.routing import rules
from qsend.formats.sqlcontrols import parse_sql
from qsend.sysio import passwd
from qsend.sysio.askchild import ask_child
from qsend.sysio.explain import explain
from qsend.sysio.lookupclient import LookupClient, LookupRefused
from qsend.sysio.loop import Loop
from qsend.sysio.pathwalk import owner_text
from qsend.sysio.privilege import drop
from qsend.sysio.resolver import Resolver


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One home and the control files in it."""

    home: str
    files: Mapping[str, bytes]
    controls: Controls
    accounts: Accounts
    single_user: bool


def trace(
    place: Place, address: bytes, default_delivery: bytes, *, may_ask: bool
) -> tuple[dict[str, Any], bool]:
    """The object of sysio/explain.py, and whether the running system gave it.

    `default_delivery` is that of a system that does not run.
    Raises: TempFail; PermFail when the caller may not know.
    """
    if may_ask:
        try:
            with LookupClient(place.home) as client:
                return json.loads(client.explain(address)), True
        except LookupRefused as exc:
            raise PermFail(f"only root may ask: {exc}") from exc
        except TempFail:
            pass  # it does not run, or has just stopped
    told = ask_child(lambda write: _explain(place, address, default_delivery, write))
    if not told:
        raise TempFail("the look-up crashed")
    return json.loads(told), False


def _explain(place: Place, address: bytes, default_delivery: bytes, write: int) -> int:
    """In a child, as the process that would look it up."""
    drop(place.accounts.qmailp)
    loop = Loop()
    resolver = Resolver(
        loop,
        place.home,
        place.accounts,
        single_user=place.single_user,
        say=lambda _line: None,
    )
    resolver.configure(parse_sql(place.files, place.controls))

    def done(told: bytes) -> None:
        with open(write, "wb") as pipe:
            pipe.write(told)
        loop.stop()

    explain(address, rules(place.controls), resolver, default_delivery, done)
    loop.run()
    return 0


def user_of(told: Mapping[str, Any]) -> User:
    """The user in such an object."""
    words = {name: str(told[name]).encode() for name in ("name", "home", "dash", "ext")}
    instructions = told["instructions"]
    return User(
        uid=told["uid"],
        gid=told["gid"],
        ownership=Ownership[told["ownership"]],
        instructions=None if instructions is None else str(instructions).encode(),
        **words,
    )


def uncounted(local: bytes, found: bytes) -> Iterator[str]:
    """Accounts of the machine that a local part names and that get no mail.

    Only those that come before the name `found`. Raises: TempFail.
    """
    for candidate in passwd_candidates(local):
        if candidate.name == found.lower():
            return
        try:
            entry = passwd.by_name(candidate.name)
        except OSError as exc:
            raise TempFail(f"cannot ask for accounts: {exc.strerror}") from exc
        if entry is not None:
            name = os.fsdecode(candidate.name)
            reason = _reason(entry.account, os.fsdecode(entry.home))
            if reason is not None:
                yield f"account {name} does not count: {reason}"


def _reason(account: Account, home: str) -> str | None:
    if account.uid == 0:
        return "root gets no mail"
    try:
        found = os.stat(home)
    except OSError as exc:
        return f"its home {home}: {exc.strerror}"
    if found.st_uid != account.uid:
        owner = owner_text(found.st_uid, found.st_gid)
        return f"its home {home} belongs to {owner}"
    return None
