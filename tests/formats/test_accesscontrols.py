"""rcpthosts, badmailfrom, localiphost, rbl: what is read, and what is refused."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.rbl import Action, Answers, Source
from qsend.formats.accesscontrols import AccessSettings, parse_access
from qsend.formats.control import parse_controls


def parse(files: dict[str, bytes]) -> AccessSettings:
    files = {"me": b"here.example\n", **files}
    return parse_access(files, parse_controls(files))


def numbers(first: int, last: int) -> Answers:
    return Answers(first=(127 << 24) + first, last=(127 << 24) + last)


def test_defaults() -> None:
    settings = parse({})
    assert settings.relay.rcpthosts is None
    assert settings.relay.badmailfrom == frozenset()
    assert settings.relay.localiphost == b"here.example"
    assert settings.relay.rewriting.envnoathost == b"here.example"
    assert (settings.rbl, settings.rbl_deadline_s) == ((), 10)


def test_all_files_are_read() -> None:
    settings = parse(
        {
            "rcpthosts": b"# ours\nHere.Example \n.sub.example\n",
            "badmailfrom": b"Spam@x\n@y\n",
            "localiphost": b"mail.example\n",
            "percenthack": b"p.example\n",
            "timeoutrbl": b"3\n",
        }
    )
    assert settings.relay.rcpthosts == frozenset({b"here.example", b".sub.example"})
    assert settings.relay.badmailfrom == {b"spam@x", b"@y"}
    assert settings.relay.localiphost == b"mail.example"
    assert settings.relay.rewriting.percenthack == {b"p.example"}
    assert settings.rbl_deadline_s == 3


def test_empty_rcpthosts_lists_nothing() -> None:
    assert parse({"rcpthosts": b"\n"}).relay.rcpthosts == frozenset()


@pytest.mark.parametrize(
    ("line", "want"),
    [
        (b"defer bl.example", Source(zone=b"bl.example", action=Action.DEFER)),
        (b"reject BL.example.", Source(zone=b"bl.example", action=Action.REJECT)),
        (
            b"allow\twl.example\tclosed",
            Source(zone=b"wl.example", action=Action.PASS, fails_closed=True),
        ),
        (
            b"log bl.example open See http://x/%IP% = this",
            Source(
                zone=b"bl.example", action=Action.NOTE, text=b"See http://x/%IP% = this"
            ),
        ),
        (
            b"reject bl.example=127.0.0.2,127.0.0.4-11 opened by mistake",
            Source(
                zone=b"bl.example",
                action=Action.REJECT,
                answers=(numbers(2, 2), numbers(4, 11)),
                text=b"opened by mistake",
            ),
        ),
    ],
)
def test_list(line: bytes, want: Source) -> None:
    assert parse({"rbl": b"# lists\n" + line + b"  \n"}).rbl == (want,)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("rbl", b"\nblock x", "rbl:2: expected one of allow, defer, reject, log"),
        ("rbl", b"defer", "rbl:1: expected ACTION ZONE[=ANSWERS]"),
        ("rbl", b"-r bl.example", "rbl:1: expected one of"),
        ("rbl", b"defer a..b", "rbl:1: expected the name of a list, found 'a..b'"),
        ("rbl", b"defer " + b"a." * 90 + b"bc", "rbl:1: expected the name of a list"),
        ("rbl", b"defer x=2", "rbl:1: expected answers as 127.0.0.2 or"),
        ("rbl", b"defer x=127.0.0.256", "rbl:1: expected answers as"),
        ("rbl", b"defer x=127.0.0.9-4", "rbl:1: expected answers as"),
        ("rbl", b"defer x=127.0.0.9-x", "rbl:1: expected answers as"),
        ("rbl", b"defer x=127.0.0.2,", "rbl:1: expected answers as"),
        ("rbl", b"defer x\n" * 33, "rbl: more than 32 lists"),
        ("rbl", b"\n\ndefer x\0", "rbl:3: expected"),
        ("rcpthosts", b"ok\n*.example", "rcpthosts:2: expected host.example or"),
        ("rcpthosts", b"joe@host", "rcpthosts:1: expected"),
        ("rcpthosts", b" host", "rcpthosts:1: expected"),
        ("badmailfrom", b"a\n\0", "badmailfrom:2: expected text, found a NUL byte"),
        ("timeoutrbl", b"0", "timeoutrbl:1: expected a number from 1 to 60, found '0'"),
        ("timeoutrbl", b"", "timeoutrbl:1: expected a number"),
        ("timeoutrbl", b"99999999999", "timeoutrbl:1: expected a number"),
    ],
)
def test_faults_are_told_with_file_and_line(
    name: str, content: bytes, fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({name: content})
    assert f"control/{fault}" in "; ".join(map(str, caught.value.faults)), fault


def test_every_fault_is_told() -> None:
    files = {"rbl": b"x y\nz w", "timeoutrbl": b"x", "rcpthosts": b"a b"}
    with pytest.raises(ConfigError) as caught:
        parse(files)
    assert len(caught.value.faults) == 4
