"""sendmail, mailq and newaliases as processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.recorder import Outcome, Recorder

Run = Callable[..., Outcome]
MESSAGE = b"To: t@b.c\nBcc: u@b.c\n\nbody\n"


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


@pytest.fixture
def sendmail(recorder: Recorder) -> Run:
    def run(
        *args: str, content: bytes = MESSAGE, program: str = "sendmail", **environ: str
    ) -> Outcome:
        call = f"main(args, {program!r})"
        return recorder.run("sendmail", call, args, content, environ)

    return run


@pytest.mark.parametrize(
    ("args", "recips"),
    [
        (["a@b.c"], [b"a@b.c"]),
        ([], []),
        (["-t"], [b"u@b.c", b"t@b.c"]),
        (["-t", "a@b.c"], [b"a@b.c", b"u@b.c", b"t@b.c"]),
        (["-i", "-t", "-oi"], [b"u@b.c", b"t@b.c"]),
        (["-ti"], [b"u@b.c", b"t@b.c"]),
        (["-bm", "-v", "-oem", "-odb", "--", "a@b.c", "-x"], [b"a@b.c", b"-x"]),
        (["-o", "db", "a@b.c"], [b"a@b.c"]),
        (["-em", "-m", "-x", "-B8BITMIME", "a@b.c"], [b"a@b.c"]),
        (["-B", "7BIT", "-pESMTP:host", "a@b.c"], [b"a@b.c"]),
        (["-E", "a@b.c"], [b"a@b.c"]),
        (["-Exyz", "-Jq", "a@b.c"], [b"a@b.c"]),
        (["-Nnever", "-Rhdrs", "-Vid", "a@b.c"], [b"a@b.c"]),
        (["-N", "failure,delay", "-R", "full", "-V", "id", "a@b.c"], [b"a@b.c"]),
    ],
)
def test_options_of_other_sendmails_are_taken(
    sendmail: Run, args: list[str], recips: list[bytes]
) -> None:
    got = sendmail(*args)
    assert (got.code, got.stderr) == (0, b"")
    assert sorted(got.recips) == sorted(
        recip if b"@" in recip else recip + b"@me.example.org" for recip in recips
    )
    assert got.sender == b"joe@me.example.org"
    assert got.message.endswith(b"\n\nbody\n")
    assert b"Bcc" not in got.message


@pytest.mark.parametrize(
    ("args", "sender", "author"),
    [
        (["-fs@d.e"], b"s@d.e", b"s@d.e"),
        (["-f", "s@d.e"], b"s@d.e", b"s@d.e"),
        (["-f", "<s@d.e>"], b"s@d.e", b"s@d.e"),
        (["-f", "s"], b"s@me.example.org", b"s@me.example.org"),
        (["-f", "a b@d.e"], b"a b@d.e", b'"a b"@d.e'),
        (["-f", "s@d.e", "-F", "The S"], b"s@d.e", b'"The S" <s@d.e>'),
        (["-FThe S", "-fs@d.e"], b"s@d.e", b'"The S" <s@d.e>'),
        (["-F", "The S"], b"joe@h.i", b'"The S" <joe@h.i>'),
        (["-f", ""], b"", b'"N" <joe@h.i>'),
        (["-f", "<>"], b"", b'"N" <joe@h.i>'),
        ([], b"joe@h.i", b'"N" <joe@h.i>'),
    ],
)
def test_options_f_and_name_set_sender_and_author(
    sendmail: Run, args: list[str], sender: bytes, author: bytes
) -> None:
    got = sendmail(*args, "a@b.c", NAME="N", MAILHOST="h.i", LOGNAME="l")
    assert got.code == 0
    assert got.sender == sender
    assert b"From: " + author in got.header


def test_f_forgets_names_that_belong_to_the_caller(sendmail: Run) -> None:
    names = {"QMAILNAME": "a", "MAILNAME": "b", "NAME": "c", "QMAILHOST": "d.e"}
    got = sendmail("-f", "s", "a@b.c", **names)
    assert b"From: s@me.example.org" in got.header


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["-q"], "illegal option -- q"),
        (["-bd"], "mode -bd is not supported"),
        (["-b"], "option requires an argument -- b"),
        (["-f"], "option requires an argument -- f"),
        (["-C", "x"], "illegal option -- C"),
    ],
)
def test_anything_else_is_a_usage_error(
    sendmail: Run, args: list[str], text: str
) -> None:
    got = sendmail(*args)
    assert (got.code, got.envelope) == (100, None)
    first, second = got.stderr.decode().splitlines()
    assert first == f"sendmail: fatal: {text}"
    assert second.startswith("sendmail: usage: sendmail ")


def test_inject_failures_are_handed_on(sendmail: Run) -> None:
    assert sendmail("a@b.c", QUEUE_EXIT="31").code == 100
    assert sendmail("a@b.c", QUEUE_EXIT="53").code == 111
    assert sendmail("a@(b").code == 100


def test_newaliases_is_that_program(recorder: Recorder, sendmail: Run) -> None:
    path = recorder.path / "aliases"
    path.write_text("root: ann@x.y\n")
    got = sendmail(program="newaliases", ALIASES=str(path))
    assert (got.code, got.stdout, got.stderr, got.envelope) == (0, b"", b"", None)
    assert b":root@&ann@x.y\0" in (recorder.path / "aliases.cdb").read_bytes()


FAKE_QREAD = """
import sys
def main(argv):
    print("listing", argv)
    return 7
"""


@pytest.mark.parametrize(
    ("program", "args"), [("sendmail", ["-bp"]), ("mailq", []), ("mailq", ["-v"])]
)
def test_queue_listing_is_that_of_qmail_qread(
    recorder: Recorder, program: str, args: list[str]
) -> None:
    # Which module is called is this program's decision; what it prints is not.
    setup = (
        "(__import__('sys').modules.__setitem__('qsend.cli.qmail_qread', fake), "
        f"main(args, {program!r}))[1]"
    )
    call = (
        "(lambda fake: (exec(" + repr(FAKE_QREAD) + f", fake.__dict__), {setup})[1])"
        "(type(sys)('fake'))"
    )
    got = recorder.run("sendmail", call, args, b"", {})
    assert (got.code, got.stdout) == (7, b"listing []\n")


SMTPD = f"""#!{sys.executable}
import os, sys
print(os.getcwd())
print(sorted(name for name in os.environ if name.startswith(("TCP", "RELAY", "DATAB"))))
print(*(os.environ.get(name) for name in ("PROTO", "RELAYCLIENT", "TCPREMOTEINFO")))
print(sys.stdin.read())
"""


@pytest.mark.parametrize("proto", [None, "TCP"])
def test_bs_becomes_qmail_smtpd(recorder: Recorder, sendmail: Run, proto: str) -> None:
    program = recorder.home / "bin/qmail-smtpd"
    program.write_text(SMTPD)
    program.chmod(0o755)
    environ = {"PROTO": proto} if proto else {}
    got = sendmail("-bs", content=b"HELO x", **environ)
    assert (got.code, got.stderr) == (0, b"")
    home, names, values, dialogue = got.stdout.decode().splitlines()
    assert home == str(recorder.home)
    assert dialogue == "HELO x"
    if proto:
        assert (names, values) == ("[]", "TCP None None")
        return
    remote = ["TCPREMOTEHOST", "TCPREMOTEINFO", "TCPREMOTEIP"]
    local = ["DATABYTES", "RELAYCLIENT", "TCPLOCALHOST", "TCPLOCALIP"]
    assert names == str(local + remote)
    assert values == "TCP  sendmail-bs"


@pytest.mark.parametrize("home", ["home", "none"])
def test_bs_without_qmail_smtpd_is_temporary(
    recorder: Recorder, sendmail: Run, home: str
) -> None:
    got = sendmail("-bs", QSEND_HOME=str(recorder.path / home))
    assert got.code == 111
    text = b"sendmail: fatal: unable to run qmail-smtpd: No such file or directory\n"
    assert got.stderr == text
