"""Accounts are found, absent, or unknown for now; never mixed up."""

from __future__ import annotations

import errno
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from qsend.sysio import passwd


def test_by_name_agrees_with_the_pwd_module() -> None:
    for known in pwd.getpwall()[:20]:
        found = passwd.by_name(os.fsencode(known.pw_name))
        assert found is not None
        assert found.account.uid == pwd.getpwnam(known.pw_name).pw_uid
        assert found.account.gid == pwd.getpwnam(known.pw_name).pw_gid
        assert os.fsdecode(found.home) == pwd.getpwnam(known.pw_name).pw_dir


def test_by_uid_finds_root() -> None:
    found = passwd.by_uid(0)
    assert found is not None
    assert (found.name, found.account.gid) == (b"root", 0)


@pytest.mark.parametrize("name", [b"no-such-account", b"", b"\xff\xfe", b"a:b", b"x/y"])
def test_by_name_absent_is_none(name: bytes) -> None:
    assert passwd.by_name(name) is None


def test_by_uid_absent_is_none() -> None:
    assert passwd.by_uid(2**32 - 3) is None


ASK_WITHOUT_DESCRIPTORS = """
import resource
from qsend.sysio import passwd
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    print(passwd.by_name(b"root"))
except OSError as exc:
    print("errno", exc.errno)
"""


def test_source_that_cannot_be_read_is_an_error_not_an_absence() -> None:
    """A process of its own: libc remembers sources that it could open once."""
    asked = subprocess.run(
        [sys.executable, "-c", ASK_WITHOUT_DESCRIPTORS],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert asked.stdout == f"errno {errno.EMFILE}\n"
