"""The one exception tree of qsend.

Everything a caller may meet derives from QsendError; Bug stands outside it,
because it means that our own code is wrong and nothing may handle it.
An exception outside the tree counts as temporary wherever mail is concerned.
"""

from __future__ import annotations

from qsend.core.light import dataclass


class QsendError(Exception):
    """Base of every failure qsend knows a fate for."""


class TempFail(QsendError):
    """It may work later: the report is Z, the exit code 111."""


class OutOfDescriptors(TempFail):
    """What a peer sent along was lost: this process may open no more files."""


class PermFail(QsendError):
    """It will not work as it is: the report is D, the exit code 100."""


class LocalProtocolError(QsendError):
    """Our side asked for something a protocol does not allow."""


class RemoteProtocolError(QsendError):
    """A peer sent what its protocol does not allow; drop the peer."""


class QueueCorrupt(QsendError):
    """A queue file cannot be parsed; set the message aside, never delete it."""


class Fatal(QsendError):
    """This process cannot go on; it exits 111 and its parent restarts it."""


class Bug(Exception):
    """Our own code broke an invariant; no handler, the traceback is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFault:
    """One thing wrong in one configuration file.

    `line` counts from 1; 0 means the file as a whole. `problem` says what was
    found and what was expected, without the file's name.
    """

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.problem}"


class ConfigError(QsendError):
    """Configuration that cannot be used; `faults` lists every reason found."""

    def __init__(self, faults: list[ConfigFault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults
