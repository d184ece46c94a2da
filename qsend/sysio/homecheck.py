"""What is wrong with a home besides its queue: owners, modes, who can read what.

Changes nothing. Whether a process can read a file is tried, in a child with that
process' uid, because modes do not tell all.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qsend.core.errors import ConfigFault
from qsend.core.model import Account, Accounts
from qsend.formats.tcprules import SERVICES, rules_name
from qsend.sysio import sandbox
from qsend.sysio.askchild import ask_child
from qsend.sysio.controldir import exposed
from qsend.sysio.homemaker import ALIASES, directories
from qsend.sysio.launchers import KEPT
from qsend.sysio.privilege import drop

INJECTING = ("me", "defaultdomain", "defaulthost", "idhost", "plusdomain")
"""Controls that qmail-inject reads as whoever sends mail."""
RECEIVING = (
    "me", "badmailfrom", "databytes", "envnoathost", "localiphost", "maxrecipients",
    "maxsmtperrors", "milters", "morercpthosts", "morercpthosts.cdb", "percenthack",
    "rbl", "rcpthosts", "recipientcheck", "smtpgreeting", "timeoutrbl", "timeoutsmtpd",
    *map(rules_name, SERVICES),
)  # fmt: skip
"""Controls that network services read as qmaild."""
DELIVERING = (
    "me", "helohost", "resolvers", "smtproutes", "timeoutconnect", "timeoutremote",
    "tlscafile", "tlspolicy",
)  # fmt: skip
"""Controls that qmail-remote under a classic qmail-send reads as qmailr."""

TELLING = ("clientcert.pem", "smtpauth")
"""Secrets of remote: start hands them over, but a qmail-remote under a classic
qmail-send reads them itself, if they are qmailr's."""

_NOBODY = 65534
_FILE_DIRS = ("alias", "bin", "control", "run", "users")
"""Where the home has files; the queue is looked through by queuemaker."""


def directory_faults(home: str, accounts: Accounts) -> Iterator[ConfigFault]:
    """Directories that are missing, not ours, or open to others."""
    for directory in directories(accounts):
        shown = directory.path or "home"
        path = os.path.join(home, directory.path)
        try:
            found = os.stat(path) if not directory.path else os.lstat(path)
        except OSError as exc:
            yield _fault(shown, f"expected a directory: {exc.strerror}")
            continue
        if not stat.S_ISDIR(found.st_mode):
            yield _fault(shown, "expected a directory, found something else")
            continue
        if found.st_uid != directory.owner.uid:
            yield _fault(
                shown, f"expected owner {directory.owner.uid}, found {found.st_uid}"
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode != directory.mode:
            yield _fault(shown, f"expected mode {directory.mode:04o}, found {mode:04o}")


def control_faults(home: str, accounts: Accounts) -> Iterator[ConfigFault]:
    """Control files that somebody other than root may change, or read secrets of."""
    root, remote = accounts.root.uid, accounts.qmailr.uid
    for name in _names(f"{home}/control"):
        try:
            found = os.stat(f"{home}/control/{name}")
        except FileNotFoundError:
            continue  # removed meanwhile
        owners = {0, root, remote} if name in TELLING else {0, root}
        if found.st_uid not in owners:
            yield _fault(
                f"control/{name}", f"expected owner {root}, found {found.st_uid}"
            )
        if found.st_mode & 0o022:
            yield _fault(f"control/{name}", "others than its owner may change it")
    for name in exposed(home):
        yield _fault(f"control/{name}", "is secret; expected mode 0600")


def alias_faults(home: str) -> Iterator[ConfigFault]:
    """System addresses whose mail would bounce."""
    if os.path.lexists(f"{home}/alias/.qmail-default"):
        return
    for name in ALIASES:
        if not os.path.lexists(f"{home}/alias/.qmail-{name}"):
            yield _fault(f"alias/.qmail-{name}", f"missing: mail for {name} bounces")


def privileged_faults(home: str) -> Iterator[ConfigFault]:
    """Files that run with more than their caller's privilege, and code that anybody
    may change: in the home, and where this code lies.
    """
    for directory in _FILE_DIRS:
        for name in _listed(f"{home}/{directory}"):
            if name.endswith(KEPT):
                continue  # see kept_notes
            shown = f"{directory}/{name}"
            yield from _setuid(f"{home}/{shown}", shown)
            if directory == "bin":
                yield from _changeable(f"{home}/{shown}", shown)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for directory, _, names in os.walk(package):
        yield from _changeable(directory, directory)
        for path in (f"{directory}/{name}" for name in names):
            yield from _setuid(path, path)
            yield from _changeable(path, path)


def kept_notes(home: str) -> Iterator[str]:
    """Setuid programs of another mail system, which setup has put aside."""
    for name in _listed(f"{home}/bin"):
        if name.endswith(KEPT) and any(_setuid(f"{home}/bin/{name}", name)):
            yield f"bin/{name} is setuid, and another mail system's"


def _setuid(path: str, shown: str) -> Iterator[ConfigFault]:
    mode = _mode(path)
    if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        yield _fault(shown, "is setuid or setgid; nothing of qsend's is")


def _changeable(path: str, shown: str) -> Iterator[ConfigFault]:
    mode = _mode(path)
    if mode & stat.S_IWOTH and not stat.S_ISLNK(mode):
        yield _fault(shown, "anybody may change this program")


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0  # removed meanwhile


def active_sandboxes(home: str) -> Mapping[str, Sequence[str]]:
    """Kind of process to what confines it on this machine, as tried in a child.

    Raises: TempFail when no child can be had.
    """
    return {role: _active(role, home) for role in sandbox.CONFINED}


def _active(role: str, home: str) -> Sequence[str]:
    def apply(write: int) -> int:
        os.write(write, " ".join(sandbox.apply(role, home)).encode())
        return 0

    return ask_child(apply).decode().split()


def reading_faults(home: str, accounts: Accounts) -> Iterator[ConfigFault]:
    """Controls that a program running as somebody else cannot read; needs root."""
    anybody = Account(uid=_NOBODY, gid=_NOBODY)
    readers = (
        ("a sender of mail", anybody, INJECTING),
        ("qmaild", accounts.qmaild, RECEIVING),
        ("qmailr", accounts.qmailr, DELIVERING),
    )
    for name, account, controls in readers:
        present = [each for each in controls if each in _names(f"{home}/control")]
        paths = [f"{home}/control/{each}" for each in present]
        for path, problem in unreadable(paths, account).items():
            yield _fault(
                f"control/{os.path.basename(path)}",
                f"{name} (uid {account.uid}) cannot read it: {problem}",
            )
    for problem in unreadable([f"{home}/run"], anybody).values():
        yield _fault("run", f"a sender of mail cannot enter it: {problem}")


def unreadable(paths: Sequence[str], account: Account) -> Mapping[str, str]:
    """Path to reason, for those that a process with `account` cannot open.

    Raises: TempFail when no child can be had.
    """
    answer = ask_child(lambda write: _try(paths, account, write))
    found = json.loads(answer or b"{}")
    return {path: str(found[path]) for path in paths if path in found}


def _try(paths: Iterable[str], account: Account, write: int) -> int:
    """In the child."""
    drop(account)
    found = {}
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        except OSError as exc:
            found[path] = exc.strerror
    with open(write, "w") as pipe:
        json.dump(found, pipe)
    return 0


def _names(directory: str) -> list[str]:
    """The names of regular files that are meant to be read."""
    try:
        return sorted(
            entry.name
            for entry in os.scandir(directory)
            if entry.is_file() and entry.name[0] != "." and entry.name[-1] != "~"
        )
    except OSError:
        return []  # told by those who look at the directory itself


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []  # told by those who look at the directory itself


def _fault(file: str, problem: str) -> ConfigFault:
    return ConfigFault(file=file, line=0, problem=problem)
