"""Making qmail's accounts and groups where they are missing; root only.

Source: qmail INSTALL.ids; INSTALL.ids.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence

from qsend.core.errors import Fatal
from qsend.sysio.accounts import GROUPS, OUTSIDE_GROUP, QUEUE_GROUP
from qsend.sysio.home import DEFAULT_HOME

_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
_NOLOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false")


def make_accounts() -> list[str]:
    """Add every group and account that is missing, without password or shell.

    An account that exists is left as it is. Homes are the ones that qmail's
    accounts have everywhere; ours are not used. The group that qmail's own files
    expect is the account's group in passwd.
    Returns: what was added, as words for the operator.
    Raises: Fatal when one cannot be added.
    """
    # Two setups at once must not both find an account missing.
    with open("/etc/passwd") as passwd:
        fcntl.flock(passwd, fcntl.LOCK_EX)
        added = [
            f"group {name}"
            for name in (QUEUE_GROUP, OUTSIDE_GROUP)
            if not _has_group(name) and _add_group(name)
        ]
        added += [
            f"account {name}"
            for name in GROUPS
            if not _has_account(name) and _add_account(name)
        ]
    return added


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _has_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _add_group(name: str) -> bool:
    _run(["groupadd", "--system", name])
    return True


def _add_account(name: str) -> bool:
    home = f"{DEFAULT_HOME}/alias" if name == "alias" else DEFAULT_HOME
    # As qmail has it: qmailr reads the queue there, though our remote does not.
    group = QUEUE_GROUP if name == "qmailr" else GROUPS[name]
    _run(
        [
            "useradd",
            "--system",
            "--gid",
            group,
            "--home-dir",
            home,
            "--no-create-home",
            "--shell",
            next(filter(os.path.exists, _NOLOGIN), _NOLOGIN[-1]),
            "--comment",
            "mail system",
            name,
        ]
    )
    return True


def _run(words: Sequence[str]) -> None:
    program = shutil.which(words[0], path=_SBIN)
    if program is None:
        raise Fatal(f"{words[0]} is not installed; add {words[-1]} by hand")
    done = subprocess.run(
        [program, *words[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PATH": _SBIN, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode != 0:
        why = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise Fatal(f"cannot add {words[-1]}: {words[0]}: {why}")
