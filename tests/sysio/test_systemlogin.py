"""Accounts of the machine as logins; real accounts, made for the test."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pwd import getpwnam

import pytest

from qsend.core.lookups import Login, Proof, Verdict, Verification
from qsend.core.model import Account, Ownership
from qsend.sysio import passwd, privilege, systemlogin
from qsend.sysio.fork import fork_child

pytestmark = pytest.mark.root
PASSWORD = b"pass word\xc3\xa9"


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    name = f"qp{secrets.token_hex(4)}"
    command = ["useradd", "-M", "-d", "/home/nowhere", "-s", "/bin/false", name]
    subprocess.run(command, check=True, capture_output=True)
    try:
        set_password(name)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def set_password(name: str, *options: str, password: bytes = PASSWORD) -> None:
    told = b"%b:%b\n" % (name.encode(), password)
    subprocess.run(["chpasswd", *options], input=told, check=True, capture_output=True)


def verify(name: str | bytes, secret: bytes = PASSWORD) -> Verification:
    name = os.fsencode(name)
    return systemlogin.verify(Login(proof=Proof.PASS, name=name, secret=secret))


def test_right_password_of_an_account_is_accepted(account: str) -> None:
    shadow = passwd.shadow_by_name(account.encode())
    assert shadow is not None
    assert shadow.password.startswith(b"$y$")
    found = verify(account)
    assert found.verdict is Verdict.OK
    entry = getpwnam(account)
    assert found.user is not None
    assert (found.user.uid, found.user.gid) == (entry.pw_uid, entry.pw_gid)
    assert found.user.home == b"/home/nowhere"
    assert found.user.ownership is Ownership.UID


@pytest.mark.parametrize("method", ["SHA512", "SHA256", "MD5", "DES", "YESCRYPT"])
def test_every_method_of_chpasswd_is_understood(account: str, method: str) -> None:
    set_password(account, "-c", method, password=b"secret")
    try:
        assert verify(account, b"secret").verdict is Verdict.OK
        assert verify(account, b"Secret").verdict is Verdict.WRONG
    finally:
        set_password(account)


def test_wrong_and_empty_passwords_are_wrong(account: str) -> None:
    for wrong in (b"", b"x", PASSWORD[:-1], PASSWORD + b"x"):
        found = verify(account, wrong)
        assert (found.verdict, found.user) == (Verdict.WRONG, None)


def test_apop_is_wrong(account: str) -> None:
    login = Login(
        proof=Proof.APOP, name=account.encode(), secret=b"0" * 32, challenge=b"<1@x>"
    )
    assert systemlogin.verify(login).verdict is Verdict.WRONG


def test_locked_account_is_refused(account: str) -> None:
    subprocess.run(["usermod", "-L", account], check=True, capture_output=True)
    try:
        assert verify(account).verdict is Verdict.WRONG
    finally:
        subprocess.run(["usermod", "-U", account], check=True, capture_output=True)


def test_expired_account_is_suspended(account: str) -> None:
    def expire(day: str) -> None:
        subprocess.run(["usermod", "-e", day, account], check=True, capture_output=True)

    expire("2001-01-01")
    try:
        assert verify(account).verdict is Verdict.SUSPENDED
        assert verify(account, b"wrong").verdict is Verdict.WRONG
    finally:
        expire("")
    assert verify(account).verdict is Verdict.OK


@pytest.mark.parametrize(
    "name", [b"", b"no-such-account-here", b"x" * 300, b"root\0", b"\xff/../x"]
)
def test_unknown_names(name: bytes) -> None:
    assert verify(name).verdict is Verdict.UNKNOWN


def test_root_is_not_served() -> None:
    found = verify("root", b"whatever")
    assert (found.verdict, found.user) == (Verdict.WRONG, None)


def test_who_may_not_read_shadow_gets_no_verdict(account: str) -> None:
    read, write = os.pipe()

    def ask() -> int:
        privilege.drop(Account(uid=64123, gid=64123))
        os.write(write, str(int(verify(account).verdict)).encode())
        return 0

    pid = fork_child(ask, (write,))
    os.close(write)
    with open(read, "rb") as pipe:
        assert int(pipe.read()) == Verdict.TROUBLE
    os.waitpid(pid, 0)
