"""What listeners and login say to each other."""

from __future__ import annotations

import pytest

from qsend.core.errors import RemoteProtocolError
from qsend.formats import frames, loginwire
from qsend.formats.loginwire import LoginOutcome


@pytest.mark.parametrize("outcome", list(LoginOutcome))
def test_outcome_comes_back(outcome: LoginOutcome) -> None:
    [(kind, body)] = frames.split(loginwire.render_outcome(2**32 - 1, outcome))
    assert kind == loginwire.OUTCOME
    assert loginwire.parse_outcome(body) == (2**32 - 1, outcome)
    for bad in (body[:-1], body + b"x", body[:-1] + b"\x09"):
        with pytest.raises(RemoteProtocolError):
            loginwire.parse_outcome(bad)


def test_cancel_comes_back() -> None:
    [(kind, body)] = frames.split(loginwire.render_cancel(7))
    assert (kind, loginwire.parse_cancel(body)) == (loginwire.CANCEL, 7)
    for bad in (body[:-1], body + b"x"):
        with pytest.raises(RemoteProtocolError):
            loginwire.parse_cancel(bad)
