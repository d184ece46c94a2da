"""Parsers of files: of the queue, of users, of the administrator."""

from __future__ import annotations

import io
import os

import cdblib

from qsend.core import bounce, dotqmail, fastforward
from qsend.core.bounce import Identity
from qsend.core.dotqmail import Owner, new_sender
from qsend.core.errors import ConfigError
from qsend.formats import (
    addressitems,
    assign,
    control,
    forwardtable,
    info,
    injectenv,
    maillist,
    pwassign,
    qmqp,
    recips,
    relayhost,
    serialmail,
    tcprules,
    tcptofile,
    todo,
    usersdb,
    utmp,
)
from qsend.formats.accesscontrols import parse_access
from qsend.formats.milters import parse_milters
from qsend.formats.popcontrols import parse_pop
from qsend.formats.qmtpcontrols import parse_qmtpd
from qsend.formats.smtpdcontrols import parse_smtpd
from qsend.formats.sqlcontrols import parse_sql
from qsend.formats.tlscontrols import parse_tls
from qsend.sysio.cdbfile import CdbFile
from tests.fuzz.target import CONFIG, FAILURE, QUEUE, Target, drain

WHO = Identity(
    bouncefrom=b"MAILER-DAEMON",
    bouncehost=b"b.example",
    doublebounceto=b"postmaster",
    doublebouncehost=b"b.example",
)
_PLAIN = bounce.compose(b"a@b", WHO, b"now")
_CONTROLS = (
    "me", "badmailfrom", "concurrencyremote", "databytes", "defaultdomain",
    "durability", "helohost", "locals", "milters", "percenthack", "pop3listen",
    "qmtplisten", "queuelifetime", "rbl", "rcpthosts", "resolvers", "smtpauth",
    "smtplisten", "smtpproxies", "smtproutes", "sqlpatterns", "sqlqueries",
    "sqlserver", "timeoutterm", "tlspolicy", "virtualdomains",
)  # fmt: skip


def _todo(data: bytes) -> None:
    envelope = todo.parse_todo(data)
    assert all(b"\0" not in recip for recip in (envelope.sender, *envelope.recips))
    assert todo.parse_todo(todo.render_todo(envelope)) == envelope


def _recips(data: bytes) -> None:
    for offset, is_done, recip in recips.parse_recips(data):
        letter = recips.DONE if is_done else recips.WAITING
        assert data[offset:].startswith(letter + recip + b"\0")
        assert recips.parse_recip(data[offset:]) == recip


def _info(data: bytes) -> None:
    sender = info.parse_info(data)
    assert b"\0" not in sender
    info.parse_notes(data)


def _bounce(data: bytes) -> None:
    recip, _, report = data.partition(b"\0")
    text = bounce.paragraph(recip, report, {b"v.example": b"v"})
    assert text.startswith(b"<")
    assert text.endswith(b"\n\n")
    assert b"\n\n" not in text.rstrip(b"\n")
    head = bounce.compose(recip, WHO, b"now")
    if head is not None and _PLAIN is not None and head.sender == b"":
        assert head.before.count(b"\n") == _PLAIN.before.count(b"\n")
        assert head.after.count(b"\n") == _PLAIN.after.count(b"\n")


def _dotqmail(data: bytes) -> None:
    drain(dotqmail.parse(data, forward_only=False))
    for each in dotqmail.parse(data, forward_only=True):
        assert isinstance(each, dotqmail.Forward | dotqmail.Refusal)


def _candidates(data: bytes) -> None:
    for each in dotqmail.candidates(b"-", data):
        assert b"/" not in each.name
        # A dot could lead out of the directory, or to a file that is none of these.
        assert b"." not in each.name[len(b".qmail") :]
    for owner in Owner:
        new_sender(data, data, data, owner)


def _controls(data: bytes) -> None:
    name, _, content = data.partition(b"=")
    found = [each for each in _CONTROLS if each.encode() == name]
    chosen = found[0] if found else _CONTROLS[(data[:1] or b"a")[0] % len(_CONTROLS)]
    files = {"me": b"a.example\n", chosen: content if found else data[1:]}
    for parse in (parse_pop, parse_qmtpd, parse_tls):
        try:
            parse(files)
        except ConfigError:
            continue
    controls = control.parse_controls(files)
    parse_sql(files, controls)
    parse_access(files, controls)
    parse_smtpd(files, controls.me)


def _assign(data: bytes) -> None:
    for key, value in assign.parse_assign(data.splitlines(keepends=True)):
        if key.startswith(b"!"):
            try:
                usersdb.parse_record(value, b"rest")
            except ConfigError:
                continue


def _record(data: bytes) -> None:
    usersdb.parse_record(data, b"rest")


def _cdb(data: bytes) -> None:
    fd = os.memfd_create("cdb")
    os.write(fd, data)
    try:
        file = CdbFile(fd, "users/cdb")
        # A search that goes wrong must end, whatever it finds.
        for key in (b"", b"!ann\0", b"!a"):
            file.get(key)
    finally:
        os.close(fd)


def _cdb_records(data: bytes) -> None:
    fd = os.memfd_create("cdb")
    os.write(fd, data.ljust(2048, b"\0"))
    try:
        for count, _record in enumerate(CdbFile(fd, "users/cdb").records()):
            assert count <= len(data)
    finally:
        os.close(fd)


def _made_cdb() -> bytes:
    """What qmail-newu makes, in small."""
    file = io.BytesIO()
    with cdblib.Writer(file) as writer:
        writer.put(b"!ann\0", b"ann\x001\x001\0/home/ann\0-\0")
        writer.put(b"", b"-")
    return file.getvalue()


def _tcprules(data: bytes) -> None:
    for _key, value in tcprules.records(data.splitlines(keepends=True), "tcp"):
        tcprules.parse_rule(value)


def _tcprule(data: bytes) -> None:
    rule = tcprules.parse_rule(data)
    assert tcprules.parse_rule(tcprules.render_rule(rule)) == rule
    for version in (4, 6):
        tcprules.parse_lengths(data, version, "tcp")


def _passwd(data: bytes) -> None:
    for line in data.split(b"\n"):
        pwassign.parse_passwd(line)
    pwassign.parse_names(data)
    pwassign.parse_mailnames(data)
    drain(pwassign.parse_subusers(data))


def _serial(data: bytes) -> None:
    serialmail.parse_head(data)
    serialmail.parse_recip(data)


FILES = (
    Target(
        name="todo",
        run=_todo,
        legal=QUEUE,
        seeds=(b"u7\0p8\0Fme@x.example\0Tbox@here.example\0Ta@b\0",),
        tokens=(b"\0T", b"\0F", b"\0u", b"\0"),
    ),
    Target(
        name="recips",
        run=_recips,
        legal=QUEUE,
        seeds=(b"Ta@b.example\0Dc@d.example\0",),
        tokens=(b"\0T", b"\0D"),
    ),
    Target(
        name="info",
        run=_info,
        legal=QUEUE,
        seeds=(b"Fa@b\0", b"Fa@b\0O0 c@d\0U17 e@f\0"),
        tokens=(b"\0O0 ", b"\0U99999999999 "),
    ),
    Target(
        name="bounce",
        run=_bounce,
        seeds=(b"v-a@v.example\0no such user\n\nat all\n",),
        tokens=(b"\n", b"\n\n", b"\r\n", b"-@[]"),
    ),
    Target(
        name="dot-qmail",
        run=_dotqmail,
        seeds=(b"# list\n&a@b\n|program\n./Maildir/\n/var/mbox\n+list\nc@d\n",),
        tokens=(b"\n|", b"\n./", b"\n&", b"\n+list", b"/\n"),
    ),
    Target(name="dot-qmail name", run=_candidates, seeds=(b"-list-owner", b"-A.b/c")),
    Target(
        name="controls",
        run=_controls,
        legal=CONFIG,
        seeds=(
            b"virtualdomains=v.example:v\n.w.example:\nu@x.example:y\n",
            b"smtproutes=a.example:[192.0.2.1]:26\n:relay.example\n",
            b"smtplisten=0.0.0.0:25\n[::]:587 submission\n",
            b"tlspolicy=a.example must\n",
            b"rbl=a.example:text 127.0.0.2-4\n",
            b"smtpauth=relay.example user password\n",
            b"sqlserver=host=a user=b password=c database=d\n",
            b"sqlqueries=alias=SELECT a FROM b WHERE c = :address\n",
            b"milters=inet:127.0.0.1:8891\nunix:/run/m.sock\n",
            b"resolvers=127.0.0.1\n[::1]:53\n",
            b"queuelifetime=604800\n",
        ),
        tokens=(b":", b"\n", b"\0", b"99999999999999999999", b"[::", b"%"),
    ),
    Target(
        name="milters",
        run=lambda data: parse_milters(data, []),
        seeds=(b"inet:127.0.0.1:8891\nunix:/run/milter.sock\n",),
    ),
    Target(
        name="users/assign",
        run=_assign,
        legal=CONFIG,
        seeds=(b"=ann:ann:1:1:/home/ann:::\n+ann-:ann:1:1:/home/ann:-::\n.\n",),
        tokens=(b":", b"\n.\n", b"+"),
    ),
    Target(
        name="users/cdb record",
        run=_record,
        legal=CONFIG,
        seeds=(b"ann\x001\x001\0/home/ann\0-\0",),
    ),
    Target(name="cdb", run=_cdb, legal=CONFIG, seeds=(_made_cdb(),)),
    Target(name="cdb records", run=_cdb_records, legal=CONFIG, seeds=(_made_cdb(),)),
    Target(
        name="tcprules",
        run=_tcprules,
        legal=CONFIG,
        seeds=(b'192.0.2.1-9:allow,A="b"\n[2001:db8::/32]:deny\n=.a.example:allow\n',),
        tokens=(b":allow", b":deny", b",A=/b/", b"/99", b"0-255"),
    ),
    Target(
        name="tcprules record",
        run=_tcprule,
        legal=CONFIG,
        seeds=(b"D\0+A=b\0", b"24\x0016\0"),
    ),
    Target(name="tcpto", run=tcptofile.parse_table, seeds=(bytes(range(64)),)),
    Target(name="utmp", run=lambda data: drain(utmp.parse_utmp(data)), seeds=(b"\7",)),
    Target(
        name="passwd",
        run=_passwd,
        legal=CONFIG,
        seeds=(b"ann:x:1:1:Ann:/home/ann:/bin/sh\n",),
    ),
    Target(
        name="fastforward record",
        run=lambda data: fastforward.parse_commands(data),
        legal=FAILURE,
        seeds=(b"&a@b\0|prog\0",),
    ),
    Target(
        name="forward table",
        run=lambda data: drain(forwardtable.parse_table(data)),
        legal=FAILURE,
        seeds=(b'a: b@c, |prog;\n"q": d;\n# note\n',),
        tokens=(b";", b":", b",", b"\\", b'"', b"("),
    ),
    Target(
        name="mailing list",
        run=lambda data: drain(maillist.parse_lines(data)),
        legal=FAILURE,
        seeds=(b"a@b\n# c\nd@e\n",),
    ),
    Target(
        name="aliases items",
        run=addressitems.parse_items,
        legal=(*FAILURE, ValueError),
        seeds=(b'ann, "|prog a", <b@c>, (note) d@e',),
        tokens=(b"(", b"<", b'"', b"\\", b","),
    ),
    Target(
        name="serialmail",
        run=_serial,
        legal=FAILURE,
        seeds=(b"Return-Path: <a@b>\nDelivered-To: c@d\n\n",),
    ),
    Target(
        name="qmqpservers", run=qmqp.parse_servers, seeds=(b"192.0.2.1\n[::1]:629\n",)
    ),
    Target(
        name="RELAYHOST",
        run=relayhost.parse_relayhost,
        legal=FAILURE,
        seeds=(b"[2001:db8::1]:26", b"a.example:25"),
    ),
    Target(
        name="inject letters",
        run=injectenv.parse_letters,
        legal=FAILURE,
        seeds=(b"cisfmr",),
    ),
    Target(
        name="inject address",
        run=injectenv.parse_address,
        legal=FAILURE,
        seeds=(b'"a b"@c.example',),
        tokens=(b"(", b"<", b'"', b"\\"),
    ),
)
