"""Where qsend lives, and one control file read on its own.

For programs that need few controls and a fast start; the processes of the tree
get a whole snapshot from start instead.
Source: docs/ARCHITECTURE.md; qmail control.c control_readfile().
"""

from __future__ import annotations

import posix

from qsend.core.errors import TempFail
from qsend.core.light import TYPE_CHECKING
from qsend.formats.controllines import FILE_MAX
from qsend.sysio.boundedread import read_most
from qsend.sysio.native import to_text

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOME = "/var/qmail"
"""The home of qmail itself (conf-qmail)."""

HOME_FILE = "/etc/qsend/home"
"""Names the home of this machine on its first line."""

_HOME_FILE_MAX = 8192
"""More than PATH_MAX (4096); what lies beyond cannot be a path."""


def find_home(explicit: str | None, environ: Mapping[str, str]) -> str:
    """The home directory: `explicit`, $QSEND_HOME, /etc/qsend/home, /var/qmail.

    Args:
        explicit: value of `--home`, or None when the option was not given.
        environ: the environment; an empty QSEND_HOME counts as unset.
    Returns: a path, not checked for existence; absolute if its source was.
    Raises: TempFail when /etc/qsend/home exists and cannot be read.
    """
    if explicit:
        return explicit
    if from_environ := environ.get("QSEND_HOME"):
        return from_environ
    return _home_from_file(HOME_FILE) or DEFAULT_HOME


def _home_from_file(path: str) -> str | None:
    content = _read_bounded(path, _HOME_FILE_MAX)
    if content is None:
        return None
    return to_text(content.split(b"\n", 1)[0].strip()) or None


def read_control(home: str, name: str) -> bytes | None:
    """The whole content of `<home>/control/<name>`; None when there is no such file.

    Args:
        home: the home directory.
        name: a file name that our own code chose, without `/`.
    Raises: TempFail when the file exists and cannot be read, or is longer than
        FILE_MAX: mail waits while the operator repairs it.
    """
    return _read_bounded(f"{home}/control/{name}", FILE_MAX)


def read_users(home: str, name: str) -> bytes | None:
    """The whole content of `<home>/users/<name>`; as read_control."""
    return _read_bounded(f"{home}/users/{name}", FILE_MAX)


def is_null_client(home: str) -> bool:
    """Whether bin/qmail-queue is a link to qmail-qmqpc: no queue is kept here.

    Source: qmail's mini-qmail, qmail-qmqpc(8).
    """
    try:
        target = posix.readlink(f"{home}/bin/qmail-queue")
    except OSError:
        return False
    return target.rpartition("/")[2] == "qmail-qmqpc"


def _read_bounded(path: str, limit: int) -> bytes | None:
    try:
        content = _read(path, limit + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    if len(content) > limit:
        raise TempFail(f"{path} is longer than {limit} bytes")
    return content


def _read(path: str, most: int) -> bytes:
    """The first `most` bytes, in a third of the time that `open` takes."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return read_most(fd, most)
    finally:
        posix.close(fd)
