"""The classic servers where qmail-start closed descriptor 2, and all is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLOSED = ("/bin/sh", "-c", 'exec "$@" 2>&-', "sh")


@pytest.mark.parametrize("program", ["qmail_lspawn", "qmail_rspawn", "qmail_clean"])
def test_without_a_queue_it_ends_with_its_own_code(
    tmp_path: Path, program: str
) -> None:
    script = f"import sys; from qsend.cli.{program} import main; sys.exit(main(['x']))"
    ended = subprocess.run(
        [*CLOSED, sys.executable, "-c", script],
        env={**os.environ, "QSEND_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (111, b"")


def test_what_is_opened_later_is_not_descriptor_2() -> None:
    script = (
        "import os, sys\n"
        "from qsend.sysio.stderr import ensure_stderr\n"
        "ensure_stderr()\n"
        "fd = os.open('/', os.O_RDONLY)\n"
        "print('said', file=sys.stderr, flush=True)\n"
        "print(fd > 2, os.readlink('/proc/self/fd/2'))\n"
    )
    ended = subprocess.run(
        [*CLOSED, sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert ended.stdout == b"True /dev/null\n"
