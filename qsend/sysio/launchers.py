"""The programs in `<home>/bin`: small scripts that start one module of qsend.cli.

They run without Python's site module, in isolated mode, because they must start
fast and whatever the caller's environment says.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Mapping

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio.home import is_null_client
from qsend.sysio.linker import link, linked_path

PROGRAMS: Mapping[str, tuple[str, int]] = {
    "qsend": ("main", 0o755),
    "sendmail": ("sendmail", 0o755),
    "mailq": ("sendmail", 0o755),
    "qmail-inject": ("qmail_inject", 0o755),
    "qmail-queue": ("qmail_queue", 0o755),
    "qmail-qmqpc": ("qmail_qmqpc", 0o755),
    "qmail-qread": ("qmail_qread", 0o755),
    "qmail-qstat": ("qmail_qstat", 0o755),
    "qmail-local": ("qmail_local", 0o755),
    "qmail-remote": ("qmail_remote", 0o755),
    "qmail-rspawn": ("qmail_rspawn", 0o755),
    "qmail-clean": ("qmail_clean", 0o755),
    "qmail-lspawn": ("qmail_lspawn", 0o700),
    "maildirmake": ("maildirmake", 0o755),
    "qmail-send": ("qmail_send", 0o755),
    "qmail-start": ("qmail_start", 0o700),
    "qmail-showctl": ("qmail_showctl", 0o755),
    "qmail-tcpto": ("qmail_tcpto", 0o755),
    "qmail-tcpok": ("qmail_tcpok", 0o755),
    "qmail-newu": ("qmail_newu", 0o700),
    "qmail-newmrh": ("qmail_newmrh", 0o700),
    "qmail-pw2u": ("qmail_pw2u", 0o755),
    "qmail-getpw": ("qmail_getpw", 0o755),
    "qmail-popup": ("qmail_popup", 0o755),
    "qmail-pop3d": ("qmail_pop3d", 0o755),
    "qmail-smtpd": ("qmail_smtpd", 0o755),
    "qmail-qmtpd": ("qmail_qmtpd", 0o755),
    "qmail-qmqpd": ("qmail_qmqpd", 0o755),
    "checkpassword": ("checkpassword", 0o700),
    "splogger": ("splogger", 0o755),
    "config": ("config", 0o755),
    "config-fast": ("config_fast", 0o755),
    "newaliases": ("newaliases", 0o755),
    "forward": ("forward", 0o755),
    "preline": ("preline", 0o755),
    "condredirect": ("condredirect", 0o755),
    "bouncesaying": ("bouncesaying", 0o755),
    "except": ("except_", 0o755),
    "mailsubj": ("mailsubj", 0o755),
    "qreceipt": ("qreceipt", 0o755),
    "maildir2mbox": ("maildir2mbox", 0o755),
    "qbiff": ("qbiff", 0o755),
    "predate": ("predate", 0o755),
    "datemail": ("datemail", 0o755),
    "dot-forward": ("dot_forward", 0o755),
    "fastforward": ("fastforward", 0o755),
    "setforward": ("setforward", 0o755),
    "printforward": ("printforward", 0o755),
    "newinclude": ("newinclude", 0o755),
    "setmaillist": ("setmaillist", 0o755),
    "printmaillist": ("printmaillist", 0o755),
    "mboxdeliver": ("mboxdeliver", 0o755),
    "maildirserial": ("maildirserial", 0o755),
    "serialsmtp": ("serialsmtp", 0o755),
    "maildirsmtp": ("maildirsmtp", 0o755),
    "setlock": ("setlock", 0o755),
    "maildirpush": ("maildirpush", 0o755),
}
"""Program to (module of qsend.cli, mode); none is setuid. A script must be
readable to be run, so what qmail installs as 0711 is 0755 here."""

_SHORT = frozenset({"qmail_inject", "qmail_queue", "sendmail"})
"""Modules that many short processes run. What they import is kept small
(tests/cli/test_startup.py), and they do not wait for Python's own end."""

KEPT = ".before-qsend"
"""What is added to the name of a program that was there and is not ours."""

_MARK = "# Written by `qsend setup`.\n"
_MARK_WITHIN = 4096
"""Both kinds of first lines end before this."""
_SHEBANG_MAX = 127
"""Longest first line that every Linux reads whole."""

_LOAD = """\
import gc
import marshal
from _frozen_importlib_external import MAGIC_NUMBER

gc.disable()
try:
    with open({path!r} + MAGIC_NUMBER.hex(), "rb", 0) as file:
        loader, parts = marshal.loads(file.read())
except (OSError, EOFError, ValueError, TypeError):
    pass  # as with a .pyc that is not there, or not whole
else:
    exec(loader)
    load(parts)
"""
"""Has the program's modules loaded from their one file. Looking for qsend.prelinked by
its name would take longer than all that it does; looking for garbage, of which one
message makes none, takes a fortieth of the run."""


def launcher(program: str, home: str) -> str:
    """The text of one program, for the Python that runs this."""
    module, _ = PROGRAMS[program]
    name = ', sys.argv[0].rpartition("/")[2]' if module == "sendmail" else ""
    run = f"main(sys.argv[1:]{name})"
    is_short = module in _SHORT
    load = _LOAD.format(path=linked_path(module, b""))
    leave = "from qsend.cli.options import leave\n"
    return (
        f"{_first_lines(sys.executable)}"
        f"{_MARK}"
        "import posix\n"
        "import sys\n"
        "\n"
        f"sys.path += {_paths()!r}\n"
        'if b"QSEND_HOME" not in posix.environ:\n'
        f'    posix.environ[b"QSEND_HOME"] = home = {os.fsencode(home)!r}\n'
        '    posix.putenv(b"QSEND_HOME", home)\n'
        f"{load if is_short else ''}"
        f"from qsend.cli.{module} import main\n"
        f"{leave if is_short else ''}"
        "\n"
        f"{'leave' if is_short else 'sys.exit'}({run})\n"
    )


def _first_lines(python: str) -> str:
    line = f"#!{python} -IS\n"
    if len(os.fsencode(line)) <= _SHEBANG_MAX and " " not in python:
        return line
    # A shell reads this as exec, Python as a string.
    return f"#!/bin/sh\n'''exec' \"{python}\" -IS \"$0\" \"$@\"\n'''\n"


def _paths() -> list[str]:
    """Where the package and what it needs is found without the site module."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    site = [sysconfig.get_paths()[name] for name in ("purelib", "platlib")]
    return list(dict.fromkeys([os.path.abspath(package), *site]))


def make_launchers(home: str, owner: Account) -> list[str]:
    """Write all programs, replacing what an older qsend wrote.

    What somebody else put there, such as qmail's own programs, stays beside ours
    under its name and KEPT, so that renaming is enough to go back.

    Returns: the programs kept now.
    Raises: Fatal, naming the one that cannot be written.
    """
    for module in _SHORT:
        with contextlib.suppress(OSError):  # then they start more slowly
            link(module)
    kept = []
    for program, (_, mode) in PROGRAMS.items():
        path = os.path.join(home, "bin", program)
        if program == "qmail-queue" and is_null_client(home):
            continue
        try:
            if keep_other(path, _MARK.encode()):
                kept.append(program)
            replace(path, launcher(program, home).encode(), mode, owner)
        except OSError as exc:
            raise Fatal(f"unable to write {path}: {exc.strerror}") from exc
    return kept


def keep_other(path: str, mark: bytes) -> bool:
    """Give a file that is not ours its second name; whether it got one now.

    `mark` is what our own files have near their beginning.
    """
    try:
        with open(path, "rb") as file:
            if mark in file.read(_MARK_WITHIN):
                return False
    except FileNotFoundError:
        if not os.path.islink(path):
            return False
    try:
        os.link(path, path + KEPT, follow_symlinks=False)
    except FileExistsError:
        return False  # the first that was found is the one to go back to
    return True


def replace(path: str, content: bytes, mode: int, owner: Account) -> None:
    """Write a file; whoever reads it meanwhile sees the old one or the new one."""
    new = f"{path}.new"
    # What lies there may be a second name of another file: it is never written to.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        if os.geteuid() == 0:
            os.fchown(fd, owner.uid, owner.gid)
        os.fchmod(fd, mode)
    os.rename(new, path)
