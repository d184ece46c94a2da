"""The part of dot-forward that is loaded when there is a .forward file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qsend.cli import delivery, outcome
from qsend.cli.tables import read_domains
from qsend.core.errors import PermFail, TempFail
from qsend.sysio.forwardfile import Fate, ForwardFiles, Recipient


def obey(paths: Sequence[str], is_dry: bool) -> int:
    """Do, or say, what the first file wants that wants anything; the exit code.

    Raises: PermFail, TempFail.
    """
    files = ForwardFiles(
        Recipient(
            user=_variable(b"USER"),
            host=_variable(b"HOST"),
            lines=b"".join(map(_variable, (b"UFLINE", b"RPLINE", b"DTLINE"))),
        ),
        read_domains({}),
        _forward,
        outcome.say if is_dry else None,
    )
    for path in paths:
        fate = files.obey(path)
        if fate is Fate.DONE:
            return 99
        if fate is Fate.DIRECT:
            break
        if is_dry and os.path.exists(path):
            outcome.say(f"skipping empty file {path}")
    if is_dry:
        outcome.say("direct delivery")
    return 0


def _variable(name: bytes) -> bytes:
    return os.environb.get(name, b"")


def _forward(recips: Sequence[bytes]) -> None:
    try:
        qp = delivery.forward(_variable(b"DTLINE"), _variable(b"NEWSENDER"), recips)
    except PermFail as exc:
        raise PermFail(f"unable to forward message: {exc}") from exc
    except TempFail as exc:
        raise TempFail(f"unable to forward message: {exc}") from exc
    outcome.say(f"dot-forward: qp {qp}")
