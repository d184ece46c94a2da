"""qsend whois: what will happen to mail for an address, step by step.

Source: docs/VIRTUAL.md. Exit codes: 0 it is delivered or sent on, 1 it bounces, 100
wrong usage or configuration, 111 it waits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from qsend.cli.parser import (
    EXIT_NO,
    EXIT_TEMPORARY,
    EXIT_USAGE,
    Parser,
    complain,
    home_of,
    shown,
)
from qsend.core.errors import PermFail
from qsend.core.mending import advice
from qsend.core.model import Account, User
from qsend.core.relay import Taken, Unlisted, judge_recipient
from qsend.core.users import refusal
from qsend.formats.accesscontrols import parse_access
from qsend.formats.control import parse_controls
from qsend.formats.routing import Routing, rules
from qsend.sysio import deliveryview
from qsend.sysio.accounts import load_accounts
from qsend.sysio.controldir import read_controls
from qsend.sysio.deliveryview import View
from qsend.sysio.morehosts import MoreHosts
from qsend.sysio.pathwalk import Stop, owner_text, walk
from qsend.sysio.whois import Place, trace, uncounted, user_of

_TEACHING = """\
Says, in order: what the control files make of the address (envnoathost, percenthack,
locals, virtualdomains), which rows of the database and which accounts answered, as
whom and where the mail is delivered, whether that user gets to the home, which
.qmail file or alias rows decide, and what their lines would do. Nothing is delivered.

  qsend whois postmaster@example.org
  qsend whois --json joe-list@example.org

The running system is asked, if there is one; otherwise, or with --files, the files
and the database are, with what control/ has now. A home is looked at as its user, so
run this as root.

Exit codes: 0 it is delivered, or sent to another host; 1 it bounces; 100 wrong usage
or configuration; 111 it waits until something is mended, as while the database is
down."""

_CODES = {"bounces": EXIT_NO, "waits": EXIT_TEMPORARY}


@dataclass(slots=True, kw_only=True)
class _Finding:
    """All that is told, in the order in which it is found."""

    address: str
    told: dict[str, Any]
    was_asked: bool
    outside: str
    fate: str = "waits"
    text: str = ""
    user: User | None = None
    way: tuple[Stop, ...] = ()
    view: View | None = None
    notes: list[str] = field(default_factory=list)
    mending: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        return [str(step) for step in self.told["steps"]]


def main(argv: Sequence[str]) -> int:
    """Explain one address."""
    parser = Parser(argv[0], "Explain what will happen to mail.", _TEACHING)
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_home()
    parser.add_json()
    parser.add_argument(
        "--files", action="store_true", help="do not ask the running system"
    )
    parser.add_argument(
        "--default-delivery",
        metavar="TEXT",
        default="./Mailbox",
        help="of a system that does not run (default: %(default)s)",
    )
    args = parser.parse_args(argv[1:])
    try:
        finding = _find(args)
    except PermFail as exc:
        complain(argv[0], str(exc))
        return EXIT_USAGE
    if args.json:
        sys.stdout.write(f"{json.dumps(_facts(finding))}\n")
    else:
        for line in _lines(finding):
            sys.stdout.write(f"{shown(line)}\n")
    return _CODES.get(finding.fate, 0)


def _find(args: argparse.Namespace) -> _Finding:
    """Raises: PermFail, TempFail, ConfigError."""
    home = home_of(args)
    files = read_controls(home)
    single_user = os.getuid() != 0
    place = Place(
        home=home,
        files=files,
        controls=parse_controls(files),
        accounts=load_accounts(single_user),
        single_user=single_user,
    )
    told, was_asked = trace(
        place,
        os.fsencode(args.address),
        os.fsencode(args.default_delivery),
        may_ask=not args.files,
    )
    finding = _Finding(
        address=args.address,
        told=told,
        was_asked=was_asked,
        outside=_outside(place, os.fsencode(args.address), told.get("is_listed")),
    )
    _judge(finding, place)
    if finding.fate in ("bounces", "waits"):
        words = advice(finding.text)
        finding.mending += [words] if words else []
    for step in finding.steps:
        words = advice(step) if "its mail goes to alias" in step else None
        finding.mending += [words] if words else []
    return finding


def _outside(place: Place, address: bytes, is_listed: bool | None) -> str:
    """Whether a client from outside may send to the address."""
    access = parse_access(place.files, place.controls)
    judged = judge_recipient(address, access.relay, None)
    if isinstance(judged, Taken):
        return "accepted, by control/rcpthosts"
    more = MoreHosts(place.home)
    try:
        if isinstance(judged, Unlisted) and more.lists(judged.host) is True:
            return "accepted, by control/morercpthosts.cdb"
    finally:
        more.close()
    if is_listed is None:
        return "refused temporarily, as the database does not answer"
    if is_listed:
        return "accepted, by the rcpthosts table"
    return "refused, as the host is not in rcpthosts, unless the client may relay"


def _judge(finding: _Finding, place: Place) -> None:
    told = finding.told
    fate = told["fate"]
    if fate == "trouble":
        finding.text = str(told["trouble"])
    elif fate == "no such recipient":
        finding.fate, finding.text = "bounces", finding.steps[-1]
    elif fate == "nobody":
        finding.fate, finding.text = "vanishes", "the local part is empty"
    elif fate == "remote":
        finding.fate, finding.text = "goes to another host", _route(told, place)
    else:
        _judge_delivery(finding, place)


def _route(told: dict[str, Any], place: Place) -> str:
    routing = Routing(rules=rules(place.controls), smtproutes=place.controls.smtproutes)
    domain, route = routing.route(str(told["stored"]).encode())
    if route is None:
        return f"by the MX records of {domain.decode('utf-8', 'replace')}"
    host = route.host.decode("utf-8", "replace")
    return f"by control/smtproutes, to {host} port {route.port}"


def _judge_delivery(finding: _Finding, place: Place) -> None:
    user = finding.user = user_of(finding.told["user"])
    local = str(finding.told["stored"]).encode().rpartition(b"@")[0]
    if not place.single_user:
        finding.notes += uncounted(local, user.name)
    reason = refusal(user.uid, place.accounts, single_user=place.single_user)
    if reason is not None:
        finding.text = f"uid {user.uid}: {reason}"
        return
    account = Account(uid=user.uid, gid=user.gid)
    if os.getuid() not in (0, user.uid):
        finding.notes.append("only root can look at the home as that user")
        finding.fate = "is delivered, as far as can be seen"
        return
    finding.way = walk(os.fsdecode(user.home), account)
    for stop in finding.way:
        if stop.problem is not None:
            finding.text = f"uid {user.uid} does not pass {stop.path}: {stop.problem}"
            finding.mending.append(stop.mending)
            return
    default = str(finding.told["default_delivery"]).encode()
    view = deliveryview.look(user, place.controls.patrn, default)
    finding.view = view
    if view.failure:
        finding.fate, finding.text = "bounces", view.failure
    elif view.deferral:
        finding.text = view.deferral
    else:
        finding.fate = "is delivered"


# What is shown


def _facts(finding: _Finding) -> dict[str, Any]:
    return {
        **finding.told,
        "asked": "the running system" if finding.was_asked else "files",
        "written": finding.address,
        "outside": finding.outside,
        "fate": finding.fate,
        "text": finding.text,
        "way": [asdict(stop) for stop in finding.way],
        "delivery": asdict(finding.view) if finding.view else None,
        "notes": finding.notes,
        "mending": finding.mending,
    }


def _lines(finding: _Finding) -> Iterator[str]:
    yield f"mail for {finding.address}"
    if not finding.was_asked:
        yield "  (of the files and the database as they are; no system was asked)"
    for number, step in enumerate(finding.steps, start=1):
        yield f"{number:3}. {step}"
    yield from (f"  note: {note}" for note in finding.notes)
    yield f"  from outside: {finding.outside}"
    if finding.user is not None:
        yield from _user_lines(finding, finding.user)
    if finding.view is not None:
        yield from _view_lines(finding, finding.view)
    more = f": {finding.text}" if finding.text else ""
    yield f"so it {finding.fate}{more}"
    yield from (f"to mend it: {words}" for words in finding.mending)


def _user_lines(finding: _Finding, user: User) -> Iterator[str]:
    name, home = os.fsdecode(user.name), os.fsdecode(user.home)
    owner = owner_text(user.uid, user.gid)
    yield f"user {name}: uid {user.uid}, gid {user.gid} ({owner}), home {home}"
    if finding.told.get("stored"):
        yield f"  Delivered-To: {finding.told['stored']}"
    for stop in finding.way:
        passes = f"stops here: {stop.problem}" if stop.problem else "may pass"
        link = f" -> {stop.link}" if stop.link else ""
        mode, whose = stop.mode or "?", stop.owner or "?"
        yield f"  {mode:10} {whose:20} {stop.path}{link}: {passes}"


def _view_lines(finding: _Finding, view: View) -> Iterator[str]:
    user = finding.user
    if user is not None and user.instructions is not None:
        yield "instructions: rows of the database; no .qmail file is looked for"
    elif view.file:
        yield f"instructions: {view.file}"
    else:
        yield f"instructions: there is no {' and no '.join(view.tried)}"
        if not view.failure:
            yield "  the default delivery is used"
    for line in view.lines:
        problem = f" ({line.problem})" if line.problem else ""
        yield f"  {line.does} {line.what}{problem}"
    if view.owner:
        yield f"  what is forwarded is sent by the list's {view.owner} address"
