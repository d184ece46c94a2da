"""splogger: what reaches syslog; syslog itself is recorded."""

from __future__ import annotations

import json
import re
import syslog

import pytest

from tests.programs import Done, run_program

RECORDING = """
import json, syslog
def record(*words):
    print(json.dumps(words), flush=True)
syslog.openlog = lambda *words: record('open', *words)
syslog.syslog = lambda *words: record(*words)
"""


def splogger(*args: str, stdin: bytes = b"") -> tuple[Done, list[list[object]]]:
    done = run_program("splogger", *args, stdin=stdin, before=RECORDING)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("args", "want"),
    [
        ((), ["open", "splogger", 0, syslog.LOG_MAIL]),
        (("qmail",), ["open", "qmail", 0, syslog.LOG_MAIL]),
        (("qmail", "16"), ["open", "qmail", 0, syslog.LOG_LOCAL0]),
        (("qmail", "0", "more"), ["open", "qmail", 0, 0]),
    ],
)
def test_tag_and_facility(args: tuple[str, ...], want: list[object]) -> None:
    done, records = splogger(*args)
    assert (done.returncode, done.stderr, records) == (0, b"", [want])


@pytest.mark.parametrize("facility", ["mail", "", "24", "-1", "9" * 400])
def test_facility_that_is_none_is_refused(facility: str) -> None:
    done, records = splogger("qmail", facility)
    assert (done.returncode, records) == (100, [])
    assert done.stderr.startswith(b"splogger: ")


def test_line_of_1700_bytes_gives_three_records_with_one_stamp() -> None:
    line = b"warning: " + b"x" * 1691
    done, (_, *records) = splogger(stdin=line + b"\nnew msg 1\n\nlost")
    assert done.returncode == 0
    texts = [str(text) for _, text in records]
    stamp = re.match(r"\d{10,}\.\d{6} ", texts[0])
    assert stamp is not None
    assert [text[: stamp.end()] for text in texts[:3]] == [
        stamp[0], stamp[0][:-1] + "+", stamp[0][:-1] + "+",
    ]  # fmt: skip
    assert "".join(text[stamp.end() :] for text in texts[:3]).encode() == line
    assert [len(text) - stamp.end() for text in texts[:3]] == [799, 799, 102]
    assert [priority for priority, _ in records] == [syslog.LOG_WARNING] * 3 + [
        syslog.LOG_INFO
    ]
    assert texts[3].endswith(" new msg 1")
    assert len(records) == 4
