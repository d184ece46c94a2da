"""Programs for dot-qmail lines, and qmail-pw2u, of notqmail and of qsend."""

from __future__ import annotations

import os
import re
from itertools import chain
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop import notqmail
from tests.interop.injection import Case, inject
from tests.interop.injection import ground as ground
from tests.interop.pair import GENERATED, USER, Pair
from tests.tree.harness import Tree

pytestmark = notqmail.marks

LINES = 400
ACCOUNTS = 300

addresses = st.sampled_from(["a@b", "x", "", "a b@c", "#@[]", "-x@y", "\xe9@h"])
codes = st.sampled_from([0, 1, 64, 77, 99, 100, 111, 112, 127])
commands = st.one_of(
    codes.map(lambda code: ["sh", "-c", f"cat; exit {code}"]),
    st.sampled_from([["cat"], ["sh", "-c", "cat >&2"], ["sh", "-c", "kill -9 $$"]]),
)
conditions = st.one_of(
    commands,
    codes.map(lambda code: ["sh", "-c", f"exit {code}"]),
    st.sampled_from(
        [[], ["true"], ["no-such-program"], ["/dev/null"], ["head", "-c3"]]
    ),
)
flags = st.lists(
    st.sampled_from(["-f", "-r", "-d", "-F", "-R", "-D", "-fd"]), max_size=3
)
prelines = st.builds(
    lambda options, command: ["preline", *options, "--", *command], flags, commands
)
programs = st.one_of(
    st.lists(addresses, max_size=3).map(lambda recips: ["forward", *recips]),
    prelines,
    st.sampled_from([["preline"], ["preline", "-x"], ["except"], ["bouncesaying"]]),
    st.builds(lambda to, done: ["condredirect", to, *done], addresses, conditions),
    st.builds(lambda said, done: ["bouncesaying", said, *done], addresses, conditions),
    conditions.map(lambda done: ["except", *done]),
    addresses.map(lambda address: ["qreceipt", address]),
)
notices = st.sampled_from(
    ["a@b", "x", "a@b, c@d", "<a@b>", "(c) a@b", "A@B", "a@b, (", '"a"@b', "", "a b@c"]
)
messages = st.builds(
    "{}{}\n\nbody\n".format,
    st.sampled_from(
        ["", "Subject: x\n", "Message-ID: <m@h>\n", "Message-ID: <m@h>\n y\n"]
    ),
    st.one_of(
        notices.map("Notice-Requested-Upon-Delivery-To: {}".format), st.just("To: x")
    ),
)
ALL = {
    "SENDER": "s@t",
    "NEWSENDER": "n@t",
    "DTLINE": "Delivered-To: a@b\n",
    "RPLINE": "Return-Path: <s@t>\n",
    "UFLINE": "From s@t x\n",
}
some_set = st.lists(st.sampled_from(sorted(ALL)), unique=True).map(
    lambda names: {name: ALL[name] for name in names}
)
senders = st.sampled_from(["", "#@[]", "s t@u"]).map(lambda sender: {"SENDER": sender})
# Most of the time all are set, as in a delivery.
variables = st.one_of(st.just(ALL), senders.map(lambda sender: ALL | sender), some_set)


@settings(GENERATED, max_examples=LINES)
@given(
    command=programs,
    message=messages,
    env=variables,
    code=st.sampled_from([0, 0, 0, 31, 53]),
)
def test_programs_of_dot_qmail_lines_are_the_same(
    pair: Pair, ground: Path, command: list[str], message: str, env: dict[str, str],
    code: int,
) -> None:  # fmt: skip
    name, *args = command
    case = Case(tuple(args), message, tuple(env.items()), code)
    module = "except_" if name == "except" else name
    theirs, ours = (
        unworded(inject(pair, ground, side, (name, module), case))
        for side in (False, True)
    )
    assert ours == theirs


NOTICE = b"Subject: success notice\n\n"


def unworded(result: tuple[int, list[bytes]]) -> tuple[int, list[bytes]]:
    """Without the sentences of qreceipt's notice, which are each one's.

    Left are the address in it and what is copied of the message.
    """
    code, outputs = result
    for at, output in enumerate(outputs):
        head, mark, body = output.partition(NOTICE)
        if mark:
            copied = re.findall(rb"(?m)a@b|^Message-ID:.*(?:\n .*)*", body)
            outputs[at] = head + mark + b" ".join(copied)
    return code, outputs


names = st.sampled_from(["joe", "Joe", "root", "alias", "toor", "bob", "", "a:b"])
uids = st.sampled_from(["0", str(USER), "1000", "007"])
accounts = st.builds(
    "{}:x:{}:{}:gecos:{}:/bin/sh".format,
    names,
    uids,
    st.just("100"),
    st.sampled_from(["{home}/own", "{home}/root", "{home}/none", "/"]),
)
passwds = st.lists(
    st.one_of(
        accounts,
        st.sampled_from(
            ["", "short:x:1", "alias:x:7:100::{home}/own:", "x:x:5:6:7:8:9"]
        ),
    ),
    max_size=6,
).map(lambda lines: "\n".join(["alias:x:7790:2108::{home}/own:/bin/true", *lines, ""]))
tables = st.fixed_dictionaries(
    {},
    optional={
        "include": st.sampled_from(["joe\n", "joe\nbob\nalias\n", ""]),
        "exclude": st.sampled_from(["joe\n", "alias\n", "# x\n"]),
        "mailnames": st.sampled_from(["joe:jim:j-d\n", "bob:\n", "alias:x\n", "joe\n"]),
        "subusers": st.sampled_from(
            ["sub:joe:pre:\n", "sub:nobody:pre:\n", "#\n\nsub:joe:pre:more\n", "bad\n"]
        ),
        "append": st.sampled_from(["=x:y:1:2:/:::\n", "# any\n"]),
    },
)
pw2u_options = st.lists(
    st.sampled_from(
        [["-/"], ["-o"], ["-h"], ["-H"], ["-u"], ["-U"], ["-C"], ["-c", "+"], ["-c="],
         ["-uH"], ["-x"]]
    ),
    max_size=3,
).map(lambda some: list(chain(*some)))  # fmt: skip


@settings(GENERATED, max_examples=ACCOUNTS)
@given(passwd=passwds, users=tables, options=pw2u_options)
def test_assign_of_a_password_file_is_the_same(
    pair: Pair, idle: Tree, passwd: str, users: dict[str, str], options: list[str]
) -> None:
    own, roots = idle.home / "own", idle.home / "root"
    for directory in (own, roots):
        directory.mkdir(exist_ok=True)
    os.chown(own, USER, USER)
    for name, content in users.items():
        (idle.home / "users" / name).write_text(content)
    stdin = passwd.replace("{home}", str(idle.home)).encode()
    args = [word.encode() for word in options]
    theirs = pair.theirs("qmail-pw2u", args, stdin=stdin)
    ours = pair.ours("qmail_pw2u", args, stdin=stdin)
    for name in users:
        (idle.home / "users" / name).unlink()
    assert ours.code == theirs.code
    # What fails prints nothing, where notqmail may have begun.
    assert ours.out == (b"" if ours.code else theirs.out)
