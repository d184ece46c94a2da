"""Each process is given the control files that its code uses, and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from qsend.core.family import CONTROL_FILES
from qsend.formats.accesscontrols import ACCESS_FILES
from qsend.formats.control import KNOWN
from qsend.formats.popcontrols import POP_FILES
from qsend.formats.qmtpcontrols import QMTPD_FILES
from qsend.formats.runnercontrols import RUNNER_FILES
from qsend.formats.smtpdcontrols import SMTPD_FILES
from qsend.formats.sqlcontrols import SQL_FILES
from qsend.formats.tlscontrols import TLS_FILES

ROOT = Path(__file__).parents[1]
FOR_DEFAULTS = {"me", "locals"}
"""Everybody gets these: parse_controls cannot do without."""


def path_of(module: str) -> Path:
    return ROOT / (module.replace(".", "/") + ".py")


def modules_below(module: str, seen: set[str]) -> None:
    """`module` and all of ours that it imports."""
    if module in seen or not path_of(module).exists():
        return
    seen.add(module)
    for node in ast.walk(ast.parse(path_of(module).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qsend"):
            modules_below(str(node.module), seen)
            for alias in node.names:
                modules_below(f"{node.module}.{alias.name}", seen)


def used_by(kind: str) -> set[str]:
    seen: set[str] = set()
    modules_below(f"qsend.procs.{kind}", seen)
    if kind == "lspawn":
        modules_below("qsend.procs.local", seen)
    seen.discard("qsend.formats.control")
    text = "\n".join(path_of(module).read_text() for module in seen)
    found = re.findall(r"controls(?:_of)?(?:\([a-z]*\))?\.(\w+)", text)
    return set(found) & KNOWN


@pytest.mark.parametrize("kind", sorted(CONTROL_FILES))
def test_process_is_given_what_it_uses_and_no_more(kind: str) -> None:
    # These take their files by name: parse_sql is called by lookup alone, parse_pop
    # by login and pop3d, parse_tls by remote, parse_smtpd and parse_access by smtpd,
    # parse_qmtpd and parse_access by qmtpd, parse_runner by runner.
    given = CONTROL_FILES[kind] - SQL_FILES - POP_FILES - TLS_FILES
    given -= SMTPD_FILES | QMTPD_FILES | ACCESS_FILES | RUNNER_FILES
    assert used_by(kind) | FOR_DEFAULTS == given | FOR_DEFAULTS
