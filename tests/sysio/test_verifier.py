"""Logins that are judged in threads, and what becomes of them without any."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from qsend.core.lookups import Login, Proof, Verdict, Verification
from qsend.core.model import Ownership, User
from qsend.core.sqllogin import MailboxLogin, PasswordType
from qsend.sysio import clock, threads
from qsend.sysio.loop import Loop
from qsend.sysio.resolver import Resolver
from qsend.sysio.verifier import Verifier

SECRET = b"geheim"
USER = User(
    name=b"joe",
    uid=1000,
    gid=1000,
    home=b"/",
    dash=b"",
    ext=b"",
    ownership=Ownership.UID,
)
ROW = MailboxLogin(user=USER, kind=PasswordType.PLAIN, suspended=False, password=SECRET)


class _Rows:
    """The database's part: one mailbox."""

    def login(self, _name: bytes, found: Callable[[MailboxLogin], None]) -> None:
        found(ROW)


def judged(loop: Loop, verifier: Verifier, secret: bytes) -> Verification:
    """The verdict on a password, waited for."""
    got: list[Verification] = []
    verifier.verify(Login(proof=Proof.PASS, name=b"joe", secret=secret), got.append)
    deadline_mono = clock.mono() + 20
    while not got:
        assert clock.mono() < deadline_mono
        loop.turn(1.0)
    return got[0]


def test_password_is_judged_and_without_a_thread_it_is_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_thread(_target: Callable[[], None]) -> None:
        raise RuntimeError("a thread had no memory to begin")

    loop = Loop()
    verifier = Verifier(loop, cast(Resolver, _Rows()))
    with monkeypatch.context() as patch:
        patch.setattr(threads, "start", no_thread)
        found = judged(loop, verifier, SECRET)
    assert (found.verdict, found.text) == (Verdict.TROUBLE, b"no thread is to be had")
    assert judged(loop, verifier, SECRET) == Verification(verdict=Verdict.OK, user=USER)
    assert judged(loop, verifier, b"wrong").verdict is Verdict.WRONG
    loop.close()
