"""Headers through notqmail's qmail-inject and sendmail, and through ours."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.interop import notqmail
from tests.interop.injection import Case, inject
from tests.interop.injection import ground as ground
from tests.interop.pair import GENERATED, Pair

pytestmark = notqmail.marks

HEADERS = 500
COMMANDS = 300

_QUOTED_LINE_END = re.compile(r'"[^"]*\n[^"]*"|[(][^()]*\n|\[[^]]*\n')
"""Where notqmail writes a backslash and the line end, and we one blank."""

atoms = st.sampled_from(
    ["a", "b.c", "joe", "J", "x+", "+", "x.y.", ".", "..", "1", "a-b", "h", "=", "a=b",
     "user%h", "!", "*", "~", "/", "{}", "a\\b", "a\\\\"]
)  # fmt: skip
quoted = st.sampled_from(
    ['"a b"', '""', '"q\\"q"', '"a@b"', '"a,b"', '"\\\\"', '"a\\b"', '"', '"(x)"',
     '"a.b"', '"<"', '"a']
)  # fmt: skip
literals = st.sampled_from(["[1.2.3.4]", "[]", "[a b]", "[\\]]", "[", "]", "[[x]"])
comments = st.sampled_from(
    ["(c)", "()", "(a(b)c)", "(\\))", "(", ")", "(a, b)", '("x)', "(  )", "((()))"]
)
marks = st.sampled_from([*".,@<>:;", " ", "  ", "\t", "\n ", "\n\t", ", "])
hosts = st.sampled_from(
    ["h", "h.d", "h.d.", "here+", "h+", "[1.2.3.4]", "[]", "x.y.z", "H.D", "h .d"]
)
addresses = st.one_of(
    st.builds("{}@{}".format, atoms, hosts),
    st.builds("{}@{}".format, quoted, hosts),
    st.builds("<{}@{}>".format, atoms, hosts),
    st.builds('"{}" <{}@{}>'.format, st.sampled_from(["N", "N. M", ""]), atoms, hosts),
    st.builds("{} {} <{}@{}>".format, atoms, comments, atoms, hosts),
    st.builds("<@{}:{}@{}>".format, hosts, atoms, hosts),
    st.builds("<@{},@{}:{}@{}>".format, hosts, hosts, atoms, hosts),
    st.builds("{}: {}@{}, {};".format, atoms, atoms, hosts, atoms),
    st.builds("{}:;".format, st.sampled_from(["g", "g h", '"g"', "g (c)", ""])),
    st.builds("{} {}".format, atoms, atoms),
    st.builds("{}{}@{}".format, comments, atoms, hosts),
    st.sampled_from(["<>", "<x>", "x", "x@", "@h", "x@y@z", "x@h.", "<x@h.>", "a b c"]),
    atoms,
)
soup = st.lists(
    st.one_of(atoms, quoted, literals, comments, marks, marks, hosts), max_size=8
).map("".join)
lists = st.one_of(
    st.lists(addresses, min_size=1, max_size=4).map(", ".join),
    st.lists(addresses, min_size=1, max_size=12).map(",\n  ".join),
    st.lists(addresses, max_size=3).map(" ".join),
    soup,
).filter(lambda text: not _QUOTED_LINE_END.search(text))
names = st.sampled_from(
    ["To", "Cc", "Bcc", "From", "Sender", "Reply-To", "Return-Path", "Errors-To",
     "Return-Receipt-To", "Apparently-To", "Resent-To", "Resent-Cc", "Resent-Bcc",
     "Resent-From", "Resent-Sender", "Resent-Reply-To", "to", "TO", "tO ", "bCC",
     "Cc\t"]
)  # fmt: skip
plain = st.sampled_from(
    ["Subject: x", "Date: today", "Message-ID: <x@y>", "Message-Id : x", "Received: y",
     "Resent-Date: z", "Resent-Message-ID: <q>", "Content-Length: 5", "X-y: z\n more",
     "Mail-Followup-To: a@b", "Content-Type: text/plain", "DATE: now", "date:", "x:",
     "From someone Thu Jan 1", "From: ", "To:", "Delivered-To: x@y", "Subject:\n ",
     "A B: c", "nocolon", ": x", " cont", "\tcont", "", "Cc :\n a@b",
     "Notice-Requested-Upon-Delivery-To: x"]
)  # fmt: skip
fields_ = st.one_of(
    st.builds("{}: {}".format, names, lists),
    st.builds("{}:{}".format, names, lists),
    st.builds("To: {}".format, lists),
    plain,
)
headers = st.lists(fields_, max_size=5).map("\n".join)
bodies = st.sampled_from(["", "\n", "\n\n", "\n\nbody\n", "\n\nbody", "\n\n.\r\n\0\n"])
letters = st.text("csfirmx", max_size=3)
variables = st.fixed_dictionaries(
    {},
    optional={
        "QMAILUSER": st.sampled_from(["joe", "j b", "", "a.", 'q"', "a@b", "x(y"]),
        "MAILUSER": st.sampled_from(["mary"]),
        "USER": st.sampled_from(["sue", "s u"]),
        "LOGNAME": st.sampled_from(["log"]),
        "QMAILHOST": st.sampled_from(["qh", "q.h", "q+", "", "a b"]),
        "MAILHOST": st.sampled_from(["mh.x"]),
        "QMAILNAME": st.sampled_from(["Joe B", "", 'J "Q" B', "J (x) B", "J\\B", "a)"]),
        "MAILNAME": st.sampled_from(["Mail Name"]),
        "NAME": st.sampled_from(["Name"]),
        "QMAILSUSER": st.sampled_from(["suser", "s u", ""]),
        "QMAILSHOST": st.sampled_from(["sh", "s.h"]),
        "QMAILINJECT": letters,
        "QMAILDEFAULTDOMAIN": st.sampled_from(["dd", "d.d", ""]),
        "QMAILDEFAULTHOST": st.sampled_from(["dh", "d.h", "d+"]),
        "QMAILIDHOST": st.sampled_from(["id.h", ""]),
        "QMAILPLUSDOMAIN": st.sampled_from(["plus", "p.d"]),
        "QMAILMFTFILE": st.sampled_from(["lists", "none"]),
    },
)
words = st.sampled_from(
    ["a", "a@b", "x@h+", "joe b@h", "a,b@c", "", "@", "x@[1.2.3.4]", "x@", "u@h.d.",
     "<a@b>", "a@b@c", 'q"q@h', "x@[", "(c)@h", "x@a b", "#@[]", "u@h.d"]
)  # fmt: skip
options = st.lists(
    st.one_of(
        st.sampled_from([["-n"], ["-N"], ["-a"], ["-A"], ["-h"], ["-H"], ["-nh"]]),
        words.map(lambda word: ["-f", word]),
        words.map(lambda word: [f"-f{word}"]),
    ),
    max_size=3,
).map(lambda each: list(chain(*each)))

# Left out: -f with -F, without an address or with a literal, and -N, -R and -V.
senders = words.filter(lambda word: bool(word) and word[0] != "<" and "[" not in word)
sendmail_words = st.sampled_from(
    [["-t"], ["-i"], ["-v"], ["-m"], ["-x"], ["-oi"], ["-oem"], ["-odb"], ["-o", "i"],
     ["-em"], ["-e", "q"], ["-bm"], ["-B8BITMIME"], ["-E"], ["-B", "7BIT"], ["-b", "m"],
     ["-pprotocol"], ["-p", "x"], ["-Jx"], ["-Exyz"], ["-ti"], ["-tv"], ["-bd"], ["-b"],
     ["-bt"], ["-q"], ["-q30m"], ["-X"], ["-oQ/tmp"], ["-U"], ["-C/etc/x"], ["--"],
     ["-"]]
)  # fmt: skip
personal = st.sampled_from([["-FJoe B"], ["-F", "Joe (x)"], ["-F", ""]])


def commands(some: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    many = st.lists(st.one_of(sendmail_words, some), max_size=4)
    return many.map(lambda each: list(chain(*each)))


sendmail_options = st.one_of(
    commands(senders.map(lambda sender: ["-f", sender])),
    commands(senders.map(lambda sender: [f"-f{sender}"])),
    commands(personal),
)


def cases(some: st.SearchStrategy[list[str]]) -> st.SearchStrategy[Case]:
    return st.builds(
        lambda args, recips, header, body, env, code: Case(
            (*args, "--", *recips), header + body, tuple(env.items()), code
        ),
        some,
        st.lists(words, max_size=2),
        headers,
        bodies,
        variables,
        st.sampled_from([0] * 9 + [11, 31, 53, 81, 91]),
    )


@settings(GENERATED, max_examples=HEADERS)
@given(case=cases(st.just(["-n"])))
def test_headers_are_rewritten_alike(pair: Pair, ground: Path, case: Case) -> None:
    programs = ("qmail-inject", "qmail_inject")
    theirs, ours = (
        inject(pair, ground, side, programs, case) for side in (False, True)
    )
    assert ours == theirs


@settings(GENERATED, max_examples=COMMANDS)
@given(case=cases(options))
def test_messages_are_queued_alike(pair: Pair, ground: Path, case: Case) -> None:
    programs = ("qmail-inject", "qmail_inject")
    theirs, ours = (
        inject(pair, ground, side, programs, case) for side in (False, True)
    )
    assert ours == theirs


@settings(GENERATED, max_examples=COMMANDS)
@given(case=cases(sendmail_options))
def test_sendmail_takes_the_same_options(pair: Pair, ground: Path, case: Case) -> None:
    # notqmail looks for such a file in its home, we where the caller is.
    assume(("QMAILMFTFILE", "lists") not in case.variables)
    programs = ("sendmail", "sendmail")
    theirs, ours = (
        inject(pair, ground, side, programs, case) for side in (False, True)
    )
    assert ours == theirs
