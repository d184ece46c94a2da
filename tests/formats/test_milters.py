from __future__ import annotations

import pytest

from qsend.core.errors import ConfigFault
from qsend.formats.milters import Down, Milter, parse_milters


def test_lines() -> None:
    faults: list[ConfigFault] = []
    found = parse_milters(
        b"# filters\nunix:/run/a.sock\nlocal:/run/b accept timeout=5 connect=2\n"
        b"inet:8891@127.0.0.1 reject submission content=60\n"
        b"inet6:25@[::1] smtp tempfail quarantine=jail@here.example\n",
        faults,
    )
    assert not faults
    assert found == (
        Milter(name="unix:/run/a.sock", path="/run/a.sock"),
        Milter(
            name="local:/run/b", path="/run/b", down=Down.ACCEPT, timeout_s=5,
            connect_s=2,
        ),
        Milter(
            name="inet:8891@127.0.0.1", host="127.0.0.1", port=8891,
            down=Down.REJECT, submission=True, content_s=60,
        ),
        Milter(
            name="inet6:25@[::1]", host="::1", port=25, submission=False,
            quarantine=b"jail@here.example",
        ),
    )  # fmt: skip
    assert [each.serves(is_submission=True) for each in found] == [1, 1, 1, 0]
    assert [each.serves(is_submission=False) for each in found] == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"/run/a", "expected unix:/path, inet:port@host or inet6:port@host"),
        (b"unix:relative", "expected unix:/path"),
        (b"inet:0@localhost", "expected unix:/path"),
        (b"inet:25@[::1", "expected unix:/path"),
        (b"unix:/a blah", "unknown word blah"),
        (b"unix:/a timeout=0", "expected timeout=SECONDS, 1 to 3600"),
        (b"unix:/a timeout=x", "expected timeout=SECONDS"),
        (b"unix:/a timeout", "unknown word timeout"),
        (b"unix:/a accept reject", "reject is one too many"),
        (b"unix:/a smtp submission", "submission is one too many"),
        (b"unix:/a timeout=1 timeout=2", "timeout=2 is one too many"),
        (b"unix:/a quarantine=", "expected quarantine=ADDRESS"),
        (b"unix:/a\nunix:/a", "is there twice"),
        (b"unix:/\xff", "is no UTF-8"),
        (b"\x0b", "expected unix:/path"),
        (b"\n".join(b"unix:/%d" % n for n in range(9)), "more than 8 lines"),
    ],
)
def test_faults(line: bytes, problem: str) -> None:
    faults: list[ConfigFault] = []
    parse_milters(line, faults)
    assert len(faults) == 1
    assert faults[0].problem.startswith(problem)
    assert faults[0].file == "control/milters"
