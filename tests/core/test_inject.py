"""plan_injection: the new header, the sender and the recipients of a message."""

from __future__ import annotations

import re

import pytest

from qsend.core import inject
from qsend.core.errors import PermFail
from qsend.core.inject import (
    Injection,
    RecipSource,
    Stamp,
    plan_injection,
    show_line,
)
from qsend.formats.injectenv import (
    CONTROL_VARIABLES,
    Options,
    build_request,
    control_value,
)
from qsend.formats.rfc822 import parse_field, render_field

CONTROLS = {
    "defaultdomain": b"dom.org",
    "defaulthost": b"dh",
    "plusdomain": b"plus.org",
    "idhost": b"id.org",
}
STAMP = Stamp(now=812090813, pid=12345, unique=b"u1")
DATE = b"Date: 26 Sep 1995 04:46:53 -0000\n"
ID = b"Message-ID: <19950926044653.12345.u1.qmail@id.org>\n"
FROM = b"From: anonymous@dh.dom.org\n"
NOBODY = b"Cc: recipient list not shown: ;\n"


def plan(
    *fields: bytes,
    source: RecipSource = RecipSource.DEFAULT,
    sender: bytes | None = None,
    recips: tuple[bytes, ...] = (),
    env: dict[str, bytes] | None = None,
    followup: bytes | None = None,
    controls: dict[str, bytes] = CONTROLS,
) -> Injection:
    options = Options(recip_source=source, sender=sender, recips=recips)
    request = build_request(options, env or {}, controls, followup)
    return plan_injection(request, (parse_field(raw) for raw in fields), STAMP)


def header(injection: Injection) -> bytes:
    return b"".join(
        part if isinstance(part, bytes) else render_field(part.label, part.tokens)
        for part in injection.header
    )


def test_empty_header_gets_every_field_in_qmails_order() -> None:
    got = plan()
    assert header(got) == DATE + ID + FROM + NOBODY
    assert (got.sender, got.recips) == (b"anonymous@dh.dom.org", ())


@pytest.mark.parametrize(
    ("field", "missing"),
    [
        (b"date: x\n", ID + FROM + NOBODY),
        (b"MESSAGE-ID : x\n", DATE + FROM + NOBODY),
        (b"From: a@b.c\n", DATE + ID + NOBODY),
        (b"To: a@b.c\n", DATE + ID + FROM),
        (b"Cc: a@b.c\n", DATE + ID + FROM),
        (b"Subject: x\n", DATE + ID + FROM + NOBODY),
    ],
)
def test_only_missing_fields_are_added(field: bytes, missing: bytes) -> None:
    assert header(plan(field)) == missing + field


@pytest.mark.parametrize(
    ("field", "missing"),
    [
        (b"Resent-To: a@b.c\n", b"date from message-id"),
        (b"Resent-Cc: a@b.c\n", b"date from message-id"),
        (b"Resent-Bcc: a@b.c\n", b"cc date from message-id"),
        (b"Resent-Date: x\n", b"cc from message-id"),
        (b"Resent-Message-ID: x\n", b"cc date from"),
        (b"Resent-From: a@b.c\n", b"cc date message-id"),
        (b"Resent-Sender: a@b.c\n", b"cc date from message-id"),
        (b"Resent-Reply-To: a@b.c\n", b"cc date from message-id"),
    ],
)
def test_any_resent_field_makes_the_message_resent(
    field: bytes, missing: bytes
) -> None:
    got = header(plan(b"To: x@y.z\n", field))
    added = got.partition(b"To: x@y.z")[0]
    names = re.findall(rb"(?m)^Resent-([\w-]+):", added)
    assert sorted(name.lower() for name in names) == missing.split()
    assert not re.search(rb"(?m)^(Date|Message-ID|From|Cc):", got)
    assert (b"Resent-Bcc" in got) is False


def test_resent_message_takes_only_resent_recipients() -> None:
    fields = [b"To: t@b.c\n", b"Resent-To: r@b.c\n", b"Resent-Bcc: s@b.c\n"]
    fields.append(b"Bcc: b@b.c\n")
    assert plan(*fields).recips == (b"r@b.c", b"s@b.c")
    got = plan(*fields, recips=(b"x@y.z",), source=RecipSource.BOTH)
    assert got.recips == (b"x@y.z", b"r@b.c", b"s@b.c")


@pytest.mark.parametrize(
    ("source", "recips", "want"),
    [
        (RecipSource.DEFAULT, (), [b"t@b.c"]),
        (RecipSource.DEFAULT, (b"x",), [b"x@dh.dom.org"]),
        (RecipSource.ARGS, (), []),
        (RecipSource.ARGS, (b"x", b"x"), [b"x@dh.dom.org", b"x@dh.dom.org"]),
        (RecipSource.HEADER, (b"x",), [b"t@b.c"]),
        (RecipSource.HEADER, (b"(",), [b"t@b.c"]),
        (RecipSource.BOTH, (b"x",), [b"x@dh.dom.org", b"t@b.c"]),
        (RecipSource.BOTH, (), [b"t@b.c"]),
    ],
)
def test_recipients_come_from_where_they_were_asked(
    source: RecipSource, recips: tuple[bytes, ...], want: list[bytes]
) -> None:
    got = plan(b"To: t@b.c\n", source=source, recips=recips)
    assert list(got.recips) == want


@pytest.mark.parametrize(
    ("recip", "want"),
    [
        (b"a b", b"a b@dh.dom.org"),
        (b"a,b@h", b"a,b@h.dom.org"),
        (b"<a@b>", b"<a@b>.dom.org"),
        (b"x@h+", b"x@h.plus.org"),
        (b"x@y.", b"x@y.dom.org"),
        (b"a@b@c.d", b"a@b@c.d"),
        (b"(c)@h.i", b"(c)@h.i"),
        (b'q"\\@h.i', b'q"\\@h.i'),
        (b"a@[1.2.3.4]", b"a@[1.2.3.4]"),
        (b"", b""),
        (b"#@[]", b"#@[]"),
    ],
)
def test_argument_is_one_raw_address(recip: bytes, want: bytes) -> None:
    got = plan(recips=(recip,), sender=recip)
    assert got.recips == (got.sender,) == (want,)


@pytest.mark.parametrize("bad", [b"a@(b", b'a@"b', b"a@]b", b"a\nb@c", b"a\rb"])
def test_argument_that_is_no_address_is_refused(bad: bytes) -> None:
    with pytest.raises(PermFail, match="unable to parse address"):
        plan(recips=(bad,))
    with pytest.raises(PermFail, match="unable to parse address"):
        plan(sender=bad)


@pytest.mark.parametrize(
    "name",
    [b"To", b"Cc", b"Bcc", b"Apparently-To", b"Resent-To", b"Resent-Cc", b"Resent-Bcc"],
)
def test_recipient_fields_give_rewritten_recipients(name: bytes) -> None:
    got = plan(name + b" : x, Joe <a@b>, g:y@z.z;\n")
    want = {b"x@dh.dom.org", b"a@b.dom.org", b"y@z.z"}
    assert set(got.recips) == want
    rendered = name + b": x@dh.dom.org, Joe <a@b.dom.org>, g: y@z.z;\n"
    assert (rendered in header(got)) is not name.endswith(b"Bcc")
    assert (name + b":" in header(got)) is not name.endswith(b"Bcc")


@pytest.mark.parametrize("name", [b"To", b"CC", b"Bcc", b"Resent-To"])
def test_unparsable_recipient_field_passes_with_a_warning(name: bytes) -> None:
    raw = name + b": x@y.z, a@b.c: d@e.f\n"
    got = plan(raw)
    assert got.recips == (b"d@e.f",)
    assert (raw in header(got)) is (name != b"Bcc")
    assert got.warnings == ("unable to parse this line: " + raw.decode().rstrip(),)


@pytest.mark.parametrize(
    "name",
    [
        *(b"Sender", b"From", b"Reply-To", b"Return-Receipt-To", b"Errors-To"),
        *(b"Resent-Sender", b"Resent-From", b"Resent-Reply-To", b"Return-Path"),
    ],
)
def test_unparsable_sender_field_is_refused(name: bytes) -> None:
    for bad in (b"(", b"a: b"):
        with pytest.raises(
            PermFail, match="unable to parse this line: " + name.decode()
        ):
            plan(name + b": " + bad + b"\n")
    good = header(plan(name + b": a\n"))
    assert (name + b": a@dh.dom.org\n" in good) is (name != b"Return-Path")


@pytest.mark.parametrize(
    ("field", "env", "option", "want"),
    [
        (b"Return-Path: <r@b>\n", b"", None, b"r@b.dom.org"),
        (b"Return-Path: <>\n", b"", None, b""),
        (b"Return-Path: <>\n", b"r", None, b"-@[]"),
        (b"Return-Path: r@b.c\n", b"r", None, b"r@b.c-@[]"),
        (b"Return-Path: r@b.c\n", b"s", None, b"anonymous@dh.dom.org"),
        (b"Return-Path:\n", b"", None, b"anonymous@dh.dom.org"),
        (b"Return-Path: r@b.c\n", b"r", b"f@b", b"f@b.dom.org"),
        (b"Subject: x\n", b"r", None, b"anonymous-@dh.dom.org-@[]"),
        (b"Subject: x\n", b"m", None, b"anonymous-812090813.12345@dh.dom.org"),
        (b"Subject: x\n", b"mr", None, b"anonymous-812090813.12345-@dh.dom.org-@[]"),
        (b"Subject: x\n", b"rm", b"", b""),
        (b"From: f@b.c\n", b"", None, b"anonymous@dh.dom.org"),
    ],
)
def test_sender_is_option_then_return_path_then_default(
    field: bytes, env: bytes, option: bytes | None, want: bytes
) -> None:
    got = plan(field, env={"QMAILINJECT": env}, sender=option)
    assert got.sender == want
    assert b"Return-Path" not in header(got)


def test_first_return_path_counts_and_all_are_deleted() -> None:
    got = plan(b"Return-Path: <a@b.c>\n", b"return-path: <d@e.f>\n")
    assert got.sender == b"a@b.c"
    assert b"eturn-" not in header(got)


@pytest.mark.parametrize(
    ("env", "want"),
    [
        ({"LOGNAME": b"l"}, b"l@dh.dom.org"),
        ({"LOGNAME": b"l", "USER": b"u"}, b"u@dh.dom.org"),
        ({"USER": b"u", "MAILUSER": b"m"}, b"m@dh.dom.org"),
        ({"MAILUSER": b"m", "QMAILUSER": b"q"}, b"q@dh.dom.org"),
        ({"USER": b"u", "MAILHOST": b"h"}, b"u@h.dom.org"),
        ({"USER": b"u", "MAILHOST": b"h", "QMAILHOST": b"q.r"}, b"u@q.r"),
        ({"USER": b"u", "QMAILHOST": b"[1.2.3.4]"}, b"u@[1.2.3.4]"),
        ({"USER": b"u", "QMAILHOST": b""}, b"u@dh.dom.org"),
        ({"USER": b"a b", "QMAILHOST": b"h.i"}, b'"a b"@h.i'),
        ({"USER": b"a.b"}, b"a.b@dh.dom.org"),
        ({"USER": b".a"}, b'".a"@dh.dom.org'),
        ({"USER": b""}, b'""@dh.dom.org'),
        ({"USER": b"u", "NAME": b"n"}, b'"n" <u@dh.dom.org>'),
        ({"NAME": b"n", "MAILNAME": b"m"}, b'"m" <anonymous@dh.dom.org>'),
        ({"MAILNAME": b"m", "QMAILNAME": b"q"}, b'"q" <anonymous@dh.dom.org>'),
        ({"NAME": b'J "x" \\'}, b'"J \\"x\\" \\\\" <anonymous@dh.dom.org>'),
        ({"NAME": b"a\nBcc: b@c"}, b'"a Bcc: b@c" <anonymous@dh.dom.org>'),
        ({"NAME": b"n (x)", "QMAILINJECT": b"c"}, b"anonymous@dh.dom.org (n \\(x\\))"),
        ({"NAME": b""}, b'"" <anonymous@dh.dom.org>'),
    ],
)
def test_from_field_is_made_of_the_environment(
    env: dict[str, bytes], want: bytes
) -> None:
    assert b"From: " + want + b"\n" in header(plan(env=env))


@pytest.mark.parametrize(
    ("env", "want"),
    [
        ({"USER": b"u", "MAILHOST": b"h.i"}, b"u@h.i"),
        ({"USER": b"u", "QMAILSUSER": b"s"}, b"s@dh.dom.org"),
        ({"USER": b"u", "MAILHOST": b"h.i", "QMAILSHOST": b"s.t"}, b"u@s.t"),
        ({"QMAILSUSER": b"a b", "QMAILSHOST": b"h+"}, b"a b@h.plus.org"),
        ({"QMAILSUSER": b""}, b"@dh.dom.org"),
    ],
)
def test_default_sender_has_variables_of_its_own(
    env: dict[str, bytes], want: bytes
) -> None:
    assert plan(env=env).sender == want


@pytest.mark.parametrize("name", ["QMAILUSER", "QMAILSUSER", "QMAILHOST", "QMAILSHOST"])
def test_environment_that_fits_no_address_is_refused(name: str) -> None:
    bad = b'a"\nb' if name.endswith("HOST") else b"a\nBcc: b"
    with pytest.raises(PermFail):
        plan(env={name: bad})


@pytest.mark.parametrize("name", ["defaulthost", "defaultdomain", "plusdomain"])
def test_control_that_fits_no_address_is_refused(name: str) -> None:
    with pytest.raises(PermFail, match=f"unable to parse {name}"):
        plan(controls={**CONTROLS, name: b"a("})


def test_idhost_with_a_line_break_is_refused() -> None:
    with pytest.raises(PermFail, match="line break in idhost"):
        plan(controls={**CONTROLS, "idhost": b"a\nBcc: b"})


@pytest.mark.parametrize(
    ("host", "is_complete"), [(b"a, b", True), (b"g:a;", True), (b"a:b", False)]
)
def test_host_with_marks_never_crashes(host: bytes, is_complete: bool) -> None:
    if is_complete:
        assert plan(env={"QMAILHOST": host}).sender
    else:
        with pytest.raises(PermFail, match="host"):
            plan(env={"QMAILHOST": host})


@pytest.mark.parametrize(
    ("letters", "gone"), [(b"f", b"From: x@y.z"), (b"i", b"Message-ID: <m>")]
)
def test_letters_drop_incoming_fields(letters: bytes, gone: bytes) -> None:
    fields = (b"From: x@y.z\n", b"Message-ID: <m>\n")
    kept = header(plan(*fields))
    got = header(plan(*fields, env={"QMAILINJECT": letters + b"zq"}))
    assert gone in kept
    assert gone not in got
    assert (FROM if letters == b"f" else ID) in got


def test_content_length_is_deleted_and_unknown_fields_stay_as_they_are() -> None:
    odd = b'X-Odd  :  (\n  "folded\n'
    got = header(plan(b"content-Length : 5\n", odd, b"Received: a;(\n"))
    assert got.endswith(NOBODY + odd + b"Received: a;(\n")
    assert b"ength" not in got


LISTS = b"# lists\n\nl@b.c \nOTHER@b.c\n"


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ([b"To: L@B.C, x\n"], b"Mail-Followup-To: L@B.C,\n  x@dh.dom.org\n"),
        ([b"Cc: other@b.c\n"], b"Mail-Followup-To: other@b.c\n"),
        ([b'To: "a b"@c.d\n', b"Cc: l@b.c\n"], b'l@b.c,\n  "a b"@c.d\n'),
        ([b"To: x@y.z\n"], None),
        ([b"Bcc: l@b.c\n"], None),
        ([b"To: l@b.c\n", b"mail-followup-to: me\n"], None),
        ([b"To: l@b.c\n", b"Resent-To: me\n"], None),
        ([], None),
    ],
)
def test_followup_field_is_added_for_lists(
    fields: list[bytes], want: bytes | None
) -> None:
    got = header(plan(*fields, followup=LISTS))
    assert (b"Mail-Followup-To:" in got) is (want is not None)
    if want is not None:
        assert want in got
        assert got.index(b"Message-ID") < got.index(b"Mail-Followup-To")
    assert b"Mail-Followup-To:" not in header(plan(*fields))


def test_too_many_recipients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inject, "RECIPS_MAX", 2)
    assert len(plan(b"To: a, b\n").recips) == 2
    with pytest.raises(PermFail, match="more than 2"):
        plan(b"To: a, b, c\n")


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        (b"To: a\n", "To: a"),
        (b"To: a\n\tb\x1b[1m\xff\n", "To: a??b?[1m?"),
        (b"x" * 200, "x" * 200),
        (b"x" * 900, "x" * 200 + "..."),
    ],
)
def test_show_line_is_one_safe_line(raw: bytes, want: str) -> None:
    assert show_line(raw) == want


@pytest.mark.parametrize(
    ("content", "me", "want"),
    [
        (b"a.b \nc\n", b"me", b"a.b"),
        (b"", b"me", b""),
        (None, b"me.x\n", b"me.x"),
        (None, None, b"idhost"),
    ],
)
def test_control_value_defaults_to_me_then_its_name(
    content: bytes | None, me: bytes | None, want: bytes
) -> None:
    assert control_value("idhost", content, me) == want
    assert set(CONTROL_VARIABLES) == set(CONTROLS)
