"""What the command line says of a tree.

Source: qmail-start(8); docs/ARCHITECTURE.md.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """What the command line said.

    `home` is absolute; `lspawn`, `rspawn` and `clean` are absolute paths of
    classic programs, or None. `remotes` is the number of remote children, 0 for
    one per core. `pace` multiplies every delay; other than 1.0 only in tests.
    """

    home: str
    single_user: bool
    default_delivery: bytes = b"./Mailbox"
    lspawn: str | None = None
    rspawn: str | None = None
    clean: str | None = None
    remotes: int = 0
    pace: float = 1.0

    @property
    def classic(self) -> dict[str, str]:
        """Kind to path of the classic programs."""
        given = {"lspawn": self.lspawn, "rspawn": self.rspawn, "clean": self.clean}
        return {kind: path for kind, path in given.items() if path is not None}
