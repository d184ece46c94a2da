"""Parsers of what our own processes, and classic ones, say to each other."""

from __future__ import annotations

from collections.abc import Callable

from qsend.core import (
    localreport,
    lspawnreport,
    remotereport,
    spawncheck,
)
from qsend.core.access import Client
from qsend.core.errors import RemoteProtocolError
from qsend.core.lookups import Listing, Login, Proof, Stored, Verdict, Verification
from qsend.core.model import DelId, Letter, MessId, Ownership, User
from qsend.core.users import NoUser, Trouble
from qsend.formats import (
    classic,
    cleanwire,
    controlwire,
    delivery,
    frames,
    injection,
    loginwire,
    lookupwire,
    runnerwire,
    startwire,
    turnwire,
)
from qsend.formats.delivery import ChildDelivery, LocalDelivery, Report, Transaction
from qsend.formats.todo import EnvelopeReader
from tests.fuzz.target import PROTOCOL, Target, agree

_REQUEST = runnerwire.Request(
    number=1, service="smtp", client=Client(address="::1", host=b"c.example")
)
_STRING = b"\0\0\0\3a@b"
_NUMBER = b"\0\0\0\1"


def _bodies(packet: bytes) -> list[bytes]:
    return [body for _, body in frames.split(packet)]


def _body(packet: bytes) -> bytes:
    return _bodies(packet)[0]


def _wire(name: str, parse: Callable[[bytes], object], *seeds: bytes) -> Target:
    return Target(
        name=name,
        run=parse,
        legal=PROTOCOL,
        seeds=seeds or (_NUMBER + _STRING,),
        tokens=(_STRING, _NUMBER, b"\xff\xff\xff\xff", b"\0\0\0\0"),
    )


def _split(packet: bytes) -> None:
    joined = b"".join(frames.frame(kind, body) for kind, body in frames.split(packet))
    assert joined == packet


def _report(body: bytes) -> None:
    report = delivery.parse_report(body)
    assert len(localreport.fit(report.text)) <= localreport.TEXT_MAX + 1
    again = delivery.parse_report(_body(delivery.render_report(report)))
    assert (again.delid, again.letter) == (report.delid, report.letter)
    assert again.text == report.text[: delivery.REPORT_MAX]


def _clean(body: bytes) -> None:
    for kind in (cleanwire.FOOP, cleanwire.TODO, cleanwire.ASIDE):
        request = None
        try:
            request = cleanwire.parse_request(kind, body)
        except PROTOCOL:
            continue
        answer = cleanwire.render_answer(request, 5)
        for found, told in frames.split(answer):
            cleanwire.parse_answer(found, told)


def _clean_answer(body: bytes) -> None:
    kind, rest = body[:1] or b"+", body[1:]
    cleanwire.parse_answer(kind, rest)


def _lookup_question(body: bytes) -> None:
    question = lookupwire.parse_question(body)
    assert _body(lookupwire.render_question(question)) == body


def _refuse(data: bytes) -> None:
    path, _, recip = data.partition(b"\0")
    spawncheck.refuse(path, recip)


def _judge(data: bytes) -> None:
    status = data[0] - 128 if data else 0
    for letter, text in (
        lspawnreport.judge(status, data[1:]),
        remotereport.judge(status, data[1:]),
    ):
        assert isinstance(letter, Letter)
        assert b"\0" not in text


def _envelope() -> Callable[[bytes], object]:
    reader = EnvelopeReader()

    def feed(data: bytes) -> bytes:
        stored = reader.feed(data)
        if reader.error:
            raise RemoteProtocolError(f"exit code {reader.error}")
        return stored

    return feed


_LOGIN = Login(
    proof=Proof.PASS, name=b"ann", secret=b"secret", challenge=b"", client=b"192.0.2.1"
)

_ANN = User(
    name=b"ann",
    uid=7,
    gid=8,
    home=b"/home/ann",
    dash=b"-",
    ext=b"x",
    ownership=Ownership.TRUSTED,
)
_LOCAL = LocalDelivery(
    delid=DelId(1), path=b"20/457", sender=b"a@b", recip=b"ann-x@d.example"
)
_CHILD = ChildDelivery(
    delid=DelId(1), user=_ANN, local=b"ann-x", domain=b"d.example", sender=b"a@b"
)
_TRANSACTION = Transaction(
    domain=b"d.example",
    relay=b"",
    port=25,
    size=9,
    sender=b"a@b",
    recips=((DelId(1), b"c@d.example"), (DelId(2), b"e@d.example")),
)

WIRES = (
    Target(
        name="frames",
        run=_split,
        legal=PROTOCOL,
        seeds=(frames.hello(5), frames.frame(b"R", b"") * 3),
    ),
    _wire("hello", frames.parse_hello, _body(frames.hello(5))),
    _wire(
        "transaction",
        delivery.parse_transaction,
        _body(delivery.render_transaction(_TRANSACTION)),
    ),
    _wire("local command", delivery.parse_local, _body(delivery.render_local(_LOCAL))),
    _wire("child command", delivery.parse_child, _body(delivery.render_child(_CHILD))),
    _wire(
        "spawner report",
        _report,
        _body(
            delivery.render_report(
                Report(delid=DelId(3), letter=Letter.SUCCESS, text=b"did 1+0+0\n")
            )
        ),
    ),
    _wire(
        "clean request",
        _clean,
        _body(cleanwire.render_foop(MessId(5), None)),
        _body(cleanwire.render_todo(MessId(5))),
        _body(cleanwire.render_aside(MessId(5), 7, b"because")),
    ),
    _wire(
        "clean answer",
        _clean_answer,
        b"+" + _body(cleanwire.render_answer(cleanwire.Todo(messid=MessId(5)), 0)),
        b"!" + _body(cleanwire.render_answer(cleanwire.Todo(messid=MessId(5)), 5)),
    ),
    _wire("stream", injection.parse_stream, _NUMBER + b"text"),
    _wire(
        "injection result",
        injection.parse_result,
        _body(injection.render_result(1, 0, 7)),
    ),
    _wire(
        "queued",
        injection.parse_queued,
        _body(next(injection.render_queued([MessId(1), MessId(2)]))),
    ),
    _wire("pressure", injection.parse_pressure, b"\1"),
    _wire("lookup question", _lookup_question),
    _wire(
        "lookup login",
        lookupwire.parse_login,
        _body(lookupwire.render_login(1, _LOGIN)),
    ),
    _wire(
        "lookup answer",
        lookupwire.parse_answer,
        _body(lookupwire.render_answer(lookupwire.Answer(number=1, outcome=_ANN))),
        _body(
            lookupwire.render_answer(
                lookupwire.Answer(number=1, outcome=NoUser(text=b"no"))
            )
        ),
    ),
    _wire(
        "lookup place",
        lookupwire.parse_place,
        _body(lookupwire.render_place(1, Stored(address=b"a@b"))),
        _body(lookupwire.render_place(1, Listing.HOST)),
    ),
    _wire(
        "lookup verdict",
        lookupwire.parse_verdict,
        _body(lookupwire.render_verdict(1, verdict=True)),
        _body(lookupwire.render_verdict(1, Trouble(text=b"no"))),
    ),
    _wire(
        "lookup verified",
        lookupwire.parse_verified,
        _body(
            lookupwire.render_verified(
                1, Verification(verdict=Verdict.OK, user=_ANN, text=b"")
            )
        ),
    ),
    _wire(
        "login turn",
        turnwire.parse_turn,
        _body(
            turnwire.render_turn(
                turnwire.Turn(
                    number=1,
                    stage=turnwire.Stage.WRONG,
                    name=b"ann",
                    client=b"192.0.2.7",
                )
            )
        ),
    ),
    _wire(
        "login pause",
        turnwire.parse_pause,
        _body(turnwire.render_pause(1, 1.5)),
        _body(turnwire.render_pause(1, None)),
    ),
    _wire("lookup explained", lookupwire.parse_explained),
    _wire("lookup refused", lookupwire.parse_refused),
    _wire("lookup state", lookupwire.parse_state, _body(lookupwire.render_state(b"x"))),
    _wire(
        "login outcome",
        loginwire.parse_outcome,
        _body(loginwire.render_outcome(1, loginwire.LoginOutcome.TOO_SOON)),
    ),
    _wire("login cancel", loginwire.parse_cancel, _NUMBER),
    _wire(
        "runner request",
        runnerwire.parse_request,
        _body(runnerwire.render_request(_REQUEST)),
    ),
    _wire("runner word", runnerwire.parse_word, _NUMBER),
    _wire(
        "runner result",
        runnerwire.parse_result,
        _body(
            runnerwire.render_result(
                runnerwire.Result(number=1, code=82, pid=7, custom=b"Dno")
            )
        ),
    ),
    _wire(
        "start controls",
        startwire.parse_controls,
        _bodies(startwire.render_controls(1, {"me": b"a.example\n"})[-1])[0],
    ),
    _wire("control answer", controlwire.parse_answer, b'{"ok": true, "more": false}'),
    Target(
        name="classic command",
        run=agree(lambda: classic.CommandReader().feed),
        seeds=(b"\x0520/1\0a@b\0c@d\0",),
    ),
    Target(
        name="classic report",
        run=agree(lambda: classic.ReportReader().feed),
        seeds=(b"\x05Kdid 1+0+0\n\0\0Zno\0",),
    ),
    Target(
        name="classic clean",
        run=agree(lambda: classic.CleanReader().feed),
        seeds=(b"foop/457\0todo/1\0",),
    ),
    Target(name="spawner path", run=_refuse, seeds=(b"20/457\0a@b",)),
    Target(name="spawner output", run=_judge, seeds=(b"\x80rok\0Kdone\0",)),
    Target(
        name="envelope",
        run=agree(_envelope),
        legal=PROTOCOL,
        seeds=(b"Fa@b\0Tc@d\0Te@f\0\0",),
        tokens=(b"\0T", b"\0F", b"\0\0"),
    ),
)
