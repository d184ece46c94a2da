"""Dot-qmail files through notqmail's qmail-local and through ours."""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop import notqmail
from tests.interop.pair import GENERATED, USER, Pair, Ran

pytestmark = notqmail.marks

CASES = 400
QUEUE_PROGRAM = """#!/bin/sh
cat >"$HOME/queued.message"
cat <&1 >"$HOME/queued.envelope"
exit ${QUEUE_CODE:-0}
"""
ENVIRONMENT = b"|env | grep -v -e ^PWD= -e ^QUEUE_CODE= | LC_ALL=C sort"


def odd(line: str) -> bool:
    """Whether it runs something in the background, or names a file above the home."""
    return bool(re.match(r"[|].*&|.*/[.]", line, re.DOTALL))


words = st.sampled_from(
    ["a", "B", "list", "default", "owner", "x.y", "..", "-", "a-b", "", "J.R", "\xe9"]
)
exts = st.lists(words, max_size=4).map("-".join)
locals_ = st.builds("{}-{}".format, st.sampled_from(["ann", "Ann"]), exts)
senders = st.sampled_from(
    [
        "", "#@[]", "me@elsewhere.example", "a b@h", "x", 'q"uo\\te@h.example',
        "list-@h.example-@[]", "tab\there@h", "line\nend@h.example", "\xe9@h", ".@h",
        "a..b@h", "@h", "two@ats@h.example",
    ]
)  # fmt: skip
domains = st.sampled_from(["here.example", "a.b.c.d.e", "h", "", "UPPER.Example", "."])
lines = st.one_of(
    st.sampled_from(
        [
            "./Mailbox", "./Maildir/", "./Other", "./None/", "./Broken/", "./Directory",
            "./locked", "./sub/box", "/nonexistent/box", "/nonexistent/dir/", "./",
            ".", "/", "./Maildir/ \t", "./Mailbox ", "./Maildir//",
            "&far@away.example", "near", "&", "& blank@x", "far@away.example \t",
            "two words@x", "\xe9@x", "-", "!x", "~", '"quoted"@x',
            "# comment", "#", "", " ", "\t", " ./Mailbox", "+list", "+list ", "+lists",
            "+", "+x", "&+list", "|", "| ", "|exit 0", "|exit 1", "|exit 99",
            "|exit 100", "|exit 111", "|exit 64", "|exit 65", "|exit 66", "|exit 70",
            "|exit 76", "|exit 77", "|exit 78", "|exit 112", "|exit 127", "|cat",
            "|echo said; echo too >&2", "|echo no; exit 100", "|echo later; exit 111",
            "|kill -9 $$", "|kill -TERM $$", "|nonexistent-program", "|head -c 20",
            "|cat >>taken", "|printf 'a\\0b'", "|pwd >/dev/null; umask",
            "|(exit 99", "|sed 1q; exit 99", ENVIRONMENT.decode(),
        ]
    ),
    st.integers(0, 255).map("|exit {}".format),
    st.text("ab|&./#+ -@\t\r\x80", max_size=6).filter(lambda each: not odd(each)),
)  # fmt: skip
contents = st.tuples(
    st.lists(lines, max_size=5), st.sampled_from(["\n", "", "\n\n"])
).map(lambda parts: "\n".join(parts[0]) + (parts[1] if parts[0] else ""))
modes = st.sampled_from([0o600] * 6 + [0o644, 0o700, 0o602, 0o620, 0o400, 0o000])
headers = st.lists(
    st.sampled_from(
        [
            "Subject: test", "Delivered-To: {recipient}", "delivered-to: {recipient}",
            "Delivered-To: {recipient} ", "Delivered-To: other@x", "From me", "From: x",
            ">From you", " continued", "x" * 1500, "\xe9\r", "Delivered-To:",
        ]
    ),
    max_size=4,
)  # fmt: skip
bodies = st.lists(
    st.sampled_from(
        ["From me", ">From you", ">>From us", " From", "body", "", "\0", "a\r", "."]
    ),
    max_size=4,
)
messages = st.builds(
    lambda header, is_cut, body, end: (
        "\n".join([*header, *([] if is_cut else ["", *body])]) + end
    ),
    headers,
    st.booleans(),
    bodies,
    st.sampled_from(["\n", ""]),
)


@dataclass(frozen=True)
class Case:
    """One delivery: arguments, files of the home, the message."""

    local: str
    dash: str
    ext: str
    domain: str
    sender: str
    default: str
    files: tuple[tuple[str, str, int], ...]
    message: str
    home_mode: int
    options: tuple[str, ...]
    queue_code: int
    inherited: tuple[tuple[str, str], ...] = field(default=())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    dash = draw(st.sampled_from(["-", "-", "-", "", "-/", "-list-"]))
    ext = draw(exts) if dash else draw(st.sampled_from(["", "", "", "a"]))
    safe = ext.lower().replace(".", ":")
    parts = [at for at, char in enumerate(safe) if char == "-"]
    ends = ["", "-owner", "-owner-default", "default"]
    names = [f".qmail{dash}{safe}{end}" for end in ends]
    names += [f".qmail{dash}{safe[: at + 1]}default" for at in parts]
    names += [f".qmail{dash}default", ".qmail", f".qmail{dash}{ext}"]
    chosen = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    # Most cases should do something, not only miss every file.
    if draw(st.integers(0, 9)):
        chosen.append(draw(st.sampled_from([names[0], names[0], *names[3:-2]])))
    local = draw(st.sampled_from([f"ann{dash}{ext}", f"Ann{dash}{ext}", "x\ny"]))
    return Case(
        local=local,
        dash=dash,
        ext=ext,
        domain=draw(domains),
        sender=draw(senders),
        default=draw(st.sampled_from(["./Mailbox", "./Maildir/\n", "|exit 99", ""])),
        files=tuple(
            (name, draw(contents), draw(modes)) for name in dict.fromkeys(chosen)
        ),
        message=draw(messages),
        home_mode=draw(st.sampled_from([0o755] * 20 + [0o1755, 0o757, 0o775, 0o500])),
        options=draw(st.sampled_from([()] * 5 + [("-n",), ("-N",), ("-n", "-N")])),
        queue_code=draw(st.sampled_from([0] * 9 + [11, 31, 51, 53, 54, 81, 91, 111])),
        inherited=draw(st.sampled_from([(), (("EXT9", "x"),)])),
    )


def fill(home: Path, case: Case) -> None:
    """Make the home of one delivery."""
    home.mkdir()
    for maildir in ("Maildir", "sub"):
        for part in ("tmp", "new", "cur"):
            (home / maildir / part).mkdir(parents=True)
    (home / "Broken/new").mkdir(parents=True)
    (home / "Directory").mkdir()
    (home / "Other").write_text("From x Mon Jan 01 00:00:00 2001\n\nold\n\n")
    (home / "locked").touch(mode=0o400)
    for name, content, mode in case.files:
        path = home / name
        if name.endswith(("/", "/.", "/..")):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("latin-1"))
        path.chmod(mode)
    for path in (home, *home.rglob("*")):
        os.lchown(path, USER, USER)
    home.chmod(case.home_mode)


def masked(text: bytes, home: Path) -> bytes:
    """Without the home's own name, times and numbers of processes."""
    text = text.replace(bytes(home), b"HOME")
    text = re.sub(rb"(?m)^qp \d+$", b"qp QP", text)
    when = rb" (Mon|Tue|Wed|Thu|Fri|Sat|Sun) (\w{3} \d\d) [\d:]{8} (\d{4})$"
    return re.sub(rb"(?m)(From .*)" + when, rb"\1 WHEN", text)


# What the system's error is called, and where ours says more.
REASONS = [
    (rb"(?m)^(Unable to open .*): [\w /]+\. (\(#\d\.\d\.\d\))$", rb"\1. \2"),
    (rb"(?m)^Unable to enter maildir .*\. (\(#4.2.1\))$", rb"NO MAILDIR \1"),
    (rb"(?m)^Unable to chdir to maildir\. (\(#4.2.1\))$", rb"NO MAILDIR \1"),
    (rb"(?m)^Unable to deliver into maildir .*\. (\(#4.3.0\))$", rb"MAILDIR \1"),
    (rb"(?m)^Temporary error on maildir delivery\. (\(#4.3.0\))$", rb"MAILDIR \1"),
    (rb"(?m)^The program was killed by signal \d+\. (\(#4.3.0\))$", rb"CRASH \1"),
    (rb"(?m)^Aack, child crashed\. (\(#4.3.0\))$", rb"CRASH \1"),
]


def report(text: bytes, home: Path) -> bytes:
    text = masked(text, home)
    for pattern, instead in REASONS:
        text = re.sub(pattern, instead, text)
    return text


def snapshot(home: Path) -> list[tuple[str, int, bytes]]:
    """Every file: its name, but not what is unique in a maildir; mode; content."""
    found = []
    for path in home.rglob("*"):
        name = str(path.relative_to(home))
        if path.parent.name in ("new", "tmp") and path.is_file():
            assert re.fullmatch(r"\d+\..*", path.name)
            name = f"{path.parent.relative_to(home)}/MESSAGE"
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((name, stat.S_IMODE(status.st_mode), masked(content, home)))
    return sorted(found)


def deliver(pair: Pair, shared: Path, side: str, case: Case) -> tuple[Ran, object]:
    """One delivery: how it ended, and what the home has then."""
    # Both names have the same length, and `env` prints them.
    home = shared / f"h{side}"
    fill(home, case)
    recipient = f"{case.local}@{case.domain}".replace("\n", "_")
    words = [
        *case.options, "--", "ann", str(home), case.local, case.dash, case.ext,
        case.domain, case.sender, case.default,
    ]  # fmt: skip
    run = pair.theirs if side == "theirs" else pair.ours
    ran = run(
        "qmail-local" if side == "theirs" else "qmail_local",
        [word.encode("latin-1") for word in words],
        stdin=case.message.replace("{recipient}", recipient).encode("latin-1"),
        env={
            "QMAILQUEUE": bytes(shared / "queue-program"),
            "QUEUE_CODE": b"%d" % case.queue_code,
            **{name: value.encode() for name, value in case.inherited},
        },
        is_joined=True,
        cwd="/",
    )
    result = Ran(ran.code, report(ran.out, home)), snapshot(home)
    shutil.rmtree(home)
    return result


@pytest.fixture(scope="module")
def queue_program(shared: Path) -> Path:
    path = shared / "queue-program"
    path.write_text(QUEUE_PROGRAM)
    path.chmod(0o755)
    return path


@settings(GENERATED, max_examples=CASES)
@given(case=cases())
def test_deliveries_are_the_same(
    pair: Pair, shared: Path, queue_program: Path, case: Case
) -> None:
    theirs, ours = (deliver(pair, shared, side, case) for side in ("theirs", "ours"))
    assert ours == theirs
