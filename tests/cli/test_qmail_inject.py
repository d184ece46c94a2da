"""qmail-inject as a process, queueing through a program that records."""

from __future__ import annotations

import os
import re
import subprocess
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.recorder import Outcome, Recorder

Inject = Callable[..., Outcome]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


@pytest.fixture
def inject(recorder: Recorder) -> Inject:
    def run(*args: str, content: bytes = b"", **environ: str) -> Outcome:
        return recorder.run("qmail_inject", "main(args)", args, content, environ)

    return run


def test_message_is_completed_and_queued(inject: Inject) -> None:
    got = inject(content=b"To: a b\nBcc: c\nSubject: x\n\nbody\n.\nlast")
    assert (got.code, got.stderr, got.stdout) == (0, b"", b"")
    date, message_id, author, *rest = got.header
    assert re.fullmatch(rb"Date: \d+ [A-Z][a-z]{2} \d{4} [\d:]{8} -0000", date)
    pattern = rb"Message-ID: <\d{14}\.\d+\.[0-9a-f]{12}\.qmail@me\.example\.org>"
    assert re.fullmatch(pattern, message_id)
    assert author == b"From: joe@me.example.org"
    assert rest == [b"To: a@me.example.org, b@me.example.org", b"Subject: x"]
    assert got.message.endswith(b"\n\nbody\n.\nlast\n")
    assert got.sender == b"joe@me.example.org"
    assert sorted(got.recips) == [
        letter + b"@me.example.org" for letter in (b"a", b"b", b"c")
    ]


def test_empty_message_gets_a_header_and_no_blank_line(inject: Inject) -> None:
    got = inject()
    assert got.code == 0
    assert len(got.message.splitlines()) == 4
    assert got.message.endswith(b"\nCc: recipient list not shown: ;\n")
    assert got.recips == []


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"From x y\nTo: a@b.c\n\n", b"MBOX-Line: From x y\nTo: a@b.c\n\n"),
        (b"To: a@b.c\nbogus line\nTo: d\n", b"To: a@b.c\n\nbogus line\nTo: d\n"),
        (b"To: a@b.c\nbogus", b"To: a@b.c\n\nbogus\n"),
        (b"To: a@b.c", b"To: a@b.c\n"),
        (b"To: a@b.c\n\n\n\n", b"To: a@b.c\n\n\n\n"),
        (b"To: a@b.c\n\nx\0\xff\r\n", b"To: a@b.c\n\nx\0\xff\r\n"),
        (b"To: a@b.c\nContent-Length: 3\n\nx", b"To: a@b.c\n\nx\n"),
    ],
)
def test_header_ends_where_qmail_ends_it(
    inject: Inject, content: bytes, want: bytes
) -> None:
    got = inject(content=content)
    assert got.message.split(b"From: joe@me.example.org\n")[1] == want
    assert got.recips == [b"a@b.c"]


@pytest.mark.parametrize(
    ("args", "want"),
    [
        ([], ["t"]),
        (["x"], ["x"]),
        (["-a"], []),
        (["-a", "x", "y"], ["x", "y"]),
        (["-h", "x"], ["t"]),
        (["-H", "x"], ["x", "t"]),
        (["-hA", "x"], ["x"]),
        (["-nN", "x"], ["x"]),
        (["--", "-x"], ["-x"]),
        (["-", "-n"], ["-", "-n"]),
        (["-Hfs@b.c", "x"], ["x", "t"]),
    ],
)
def test_options_choose_recipients(
    inject: Inject, args: list[str], want: list[str]
) -> None:
    got = inject(*args, content=b"To: t\n\n")
    assert got.code == 0
    assert got.recips == [name.encode() + b"@me.example.org" for name in want]


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (["-f", "s"], b"s@me.example.org"),
        (["-fs@h+"], b"s@h.plus.example.org"),
        (["-f", "a b@c.d"], b"a b@c.d"),
        (["-f", ""], b""),
        (["-f", "a@b.c", "-f", "d@e.f"], b"d@e.f"),
    ],
)
def test_option_f_is_the_sender_and_is_rewritten(
    recorder: Recorder, inject: Inject, args: list[str], want: bytes
) -> None:
    recorder.control("plusdomain", "plus.example.org")
    got = inject(*args, content=b"Return-Path: <r@b.c>\n\n")
    assert got.sender == want


def test_option_n_prints_instead(inject: Inject) -> None:
    content = b"Date: d\nMessage-ID: m\nFrom: f@b.c\nTo: a b\nBcc: c@d.e\n\nbody"
    got = inject("-n", "-f", "a b@c.d", content=content)
    assert (got.code, got.envelope) == (0, None)
    assert got.stdout == (
        b'Return-Path: <"a b"@c.d>\nDate: d\nMessage-ID: m\nFrom: f@b.c\n'
        b"To: a@me.example.org, b@me.example.org\n\nbody\n"
    )


def test_option_n_null_sender_prints_empty_brackets(inject: Inject) -> None:
    got = inject("-nf", "", content=b"To: a@b.c\n\n")
    assert got.stdout.startswith(b"Return-Path: <>\nDate: ")


@pytest.mark.parametrize(
    ("args", "want"),
    [
        (["-z"], "illegal option -- z"),
        (["--help", "a@b"], "illegal option -- -"),
        (["-f"], "option requires an argument -- f"),
        (["a@(b"], "unable to parse address: a@(b"),
        (["-f", "a@(b"], "unable to parse address: a@(b"),
        (["-f", "a@(b", "-f", "c@d"], "unable to parse address: a@(b"),
    ],
)
def test_bad_usage_is_permanent(inject: Inject, args: list[str], want: str) -> None:
    got = inject(*args)
    assert (got.code, got.envelope) == (100, None)
    assert got.stderr.decode().startswith(f"qmail-inject: fatal: {want}")
    assert got.stderr.count(b"\n") == 1


def test_unparsable_sender_field_is_permanent(inject: Inject) -> None:
    got = inject("a@b.c", content=b"From: (\n\nbody\n")
    assert (got.code, got.envelope) == (100, None)
    assert got.stderr == b"qmail-inject: fatal: unable to parse this line: From: (\n"


def test_unparsable_recipient_field_passes_with_a_warning(inject: Inject) -> None:
    got = inject("-H", "a@b.c", content=b"To: (\x1b\n\nbody\n")
    assert got.code == 0
    assert got.recips == [b"a@b.c"]
    assert b"To: (\x1b\n" in got.message
    assert got.stderr == b"qmail-inject: warning: unable to parse this line: To: (?\n"


def test_environment_overrides_controls(recorder: Recorder, inject: Inject) -> None:
    for name in ("defaultdomain", "defaulthost", "plusdomain", "idhost"):
        recorder.control(name, f"{name}.control  ")
    content = b"To: a, b@h, c@h+\n\n"
    from_files = inject(content=content)
    from_environ = inject(
        content=content,
        QMAILDEFAULTDOMAIN="dd.x",
        QMAILDEFAULTHOST="dh",
        QMAILPLUSDOMAIN="p.x",
        QMAILIDHOST="id.x",
    )
    assert from_files.header[3] == (
        b"To: a@defaulthost.control, b@h.defaultdomain.control, c@h.plusdomain.control"
    )
    assert from_files.header[1].endswith(b".qmail@idhost.control>")
    assert from_environ.header[3] == b"To: a@dh.dd.x, b@h.dd.x, c@h.p.x"
    assert from_environ.header[1].endswith(b".qmail@id.x>")


def test_absent_controls_default_to_their_names(
    recorder: Recorder, inject: Inject
) -> None:
    (recorder.home / "control/me").unlink()
    got = inject(content=b"To: a, c@h+\n\n")
    assert got.header[3] == b"To: a@defaulthost.defaultdomain, c@h.plusdomain"
    assert got.header[1].endswith(b".qmail@idhost>")


def test_user_name_and_letters_come_from_the_environment(inject: Inject) -> None:
    got = inject(
        "a@b.c",
        content=b"Return-Path: <x@y.z>\nFrom: evil\nMessage-ID: m\n\n",
        QMAILINJECT="csfirm",
        QMAILUSER="u v",
        QMAILHOST="h.i",
        QMAILNAME="N",
        QMAILSUSER="s",
        QMAILSHOST="t.u",
    )
    assert b'From: "u v"@h.i (N)' in got.header
    assert b"evil" not in got.message
    assert b"Message-ID: m\n" not in got.message
    assert re.fullmatch(rb"s-\d+\.\d+-@t\.u-@\[\]", got.sender)


@pytest.mark.parametrize("name", ["lists", "{path}/lists"])
def test_followup_file_may_be_relative(
    recorder: Recorder, inject: Inject, name: str
) -> None:
    (recorder.path / "lists").write_text("# ours\nL@b.c\n")
    got = inject(
        content=b"To: l@B.C\nCc: x@y.z\n\n",
        QMAILMFTFILE=name.format(path=recorder.path),
    )
    assert b"Mail-Followup-To: x@y.z,\n  l@B.C\n" in got.message


def test_followup_file_absent_is_nothing_and_unreadable_is_temporary(
    inject: Inject,
) -> None:
    assert inject(content=b"To: l@b.c\n\n", QMAILMFTFILE="none").code == 0
    got = inject(content=b"To: l@b.c\n\n", QMAILMFTFILE=".")
    assert (got.code, got.stderr) == (
        111,
        b"qmail-inject: fatal: unable to read .: Is a directory\n",
    )


@pytest.mark.parametrize(
    ("queue_exit", "says", "code", "stderr"),
    [
        ("0", "", 0, b""),
        ("11", "", 100, b"(#5.1.3)\n"),
        ("31", "", 100, b"(#5.3.0)\n"),
        ("53", "", 111, b"(#4.3.0)\n"),
        ("71", "", 111, b"(#4.3.0)\n"),
        ("82", "Dno way (#5.7.1)", 100, b"qmail-inject: fatal: no way (#5.7.1)\n"),
        ("82", "Zlater", 111, b"qmail-inject: fatal: later\n"),
        ("120", "", 111, b"(#4.3.0)\n"),
    ],
)
def test_queue_result_decides_the_exit_code(
    inject: Inject, queue_exit: str, says: str, code: int, stderr: bytes
) -> None:
    got = inject("a@b.c", QUEUE_EXIT=queue_exit, QUEUE_SAYS=says)
    assert got.code == code
    assert got.stderr.endswith(stderr)
    assert got.stderr.startswith(b"qmail-inject: fatal: ") is (code != 0)


@pytest.mark.parametrize(
    ("home", "text"),
    [("{path}/none", b"unable to switch to home directory"), ("{path}/bad", b"me:")],
)
def test_home_trouble_is_temporary(
    recorder: Recorder, inject: Inject, home: str, text: bytes
) -> None:
    (recorder.path / "bad/control/me").mkdir(parents=True)
    got = inject("a@b.c", QSEND_HOME=home.format(path=recorder.path))
    assert (got.code, got.envelope) == (111, None)
    assert text in got.stderr


def test_closed_stdin_is_temporary(recorder: Recorder) -> None:
    command = recorder.command("qmail_inject", "main(args)", ["a@b.c"])
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command],
        env=recorder.environ,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 111
    assert done.stderr == b"qmail-inject: fatal: read error: Bad file descriptor\n"


def test_read_error_in_the_body_queues_nothing(recorder: Recorder) -> None:
    # A terminal that hangs up: what was typed can be read, then comes EIO.
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        os.write(slave, b"To: a@b.c\n\nbody\n")
        os.close(slave)
        done = subprocess.run(
            recorder.command("qmail_inject", "main(args)", []),
            stdin=master,
            env=recorder.environ,
            capture_output=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(master)
    assert done.returncode == 111
    assert done.stderr == b"qmail-inject: fatal: read error: Input/output error\n"
    assert (recorder.record / "envelope").read_bytes() == b""


def test_full_stdout_is_temporary(recorder: Recorder) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            recorder.command("qmail_inject", "main(args)", ["-n"]),
            input=b"To: a@b.c\n\nx\n",
            stdout=full,
            stderr=subprocess.PIPE,
            env=recorder.environ,
            check=False,
            timeout=60,
        )
    assert done.returncode == 111
    assert done.stderr.startswith(b"qmail-inject: fatal: write error: No space left")


def test_large_body_is_not_held_in_memory(recorder: Recorder) -> None:
    script = '#!/bin/sh\nwc -c >"$RECORD/size"\ncat <&1 >/dev/null\n'
    recorder.script.write_text(script)
    body = recorder.path / "body"
    with body.open("wb") as file:
        file.write(b"To: a@b.c\n\n")
        file.truncate(128 << 20)
    call = "[main(args), print(*__import__('fileinput').input('/proc/self/status'))][0]"
    with body.open("rb") as file:
        done = subprocess.run(
            recorder.command("qmail_inject", call, []),
            stdin=file,
            env=recorder.environ,
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0
    assert int((recorder.record / "size").read_text()) > 128 << 20
    peak = re.search(rb"VmHWM:\s+(\d+) kB", done.stdout)
    assert peak is not None
    assert int(peak[1]) < 64 << 10


def test_message_ids_of_one_second_and_pid_differ(recorder: Recorder) -> None:
    call = "[main(args) for _ in range(3)].count(0) - 3"
    content = b"To: a@b.c\n\n"
    done = recorder.run("qmail_inject", call, ["-n", "x"], content, {})
    assert done.code == 0
    found = re.findall(rb"Message-ID: <(\S+)>", done.stdout)
    assert len(found) == len(set(found)) == 3
