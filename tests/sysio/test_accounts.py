"""Accounts come from passwd and group, or are all the caller's."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import astuple

import pytest

from qsend.core.errors import ConfigError
from qsend.core.model import Account
from qsend.sysio import accounts

NAMES = ("alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails")


class Book:
    """A passwd and a group file of its own."""

    def __init__(self, uids: dict[str, int], gids: dict[str, int]) -> None:
        self.uids = uids
        self.gids = gids

    def getpwnam(self, name: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", self.uids[name], 7, "", "/", "/"))

    def getgrnam(self, name: str) -> grp.struct_group:
        return grp.struct_group((name, "x", self.gids[name], []))


def use(monkeypatch: pytest.MonkeyPatch, book: Book) -> None:
    monkeypatch.setattr(pwd, "getpwnam", book.getpwnam)
    monkeypatch.setattr(grp, "getgrnam", book.getgrnam)


def whole() -> Book:
    uids = {name: 200 + at for at, name in enumerate(NAMES)}
    return Book(uids, {"qmail": 300, "nofiles": 301})


def test_accounts_have_the_groups_of_the_architecture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, whole())
    loaded = accounts.load_accounts(single_user=False)
    assert loaded.root == Account(uid=0, gid=300)
    assert loaded.qmailq == Account(uid=204, gid=300)
    assert loaded.qmails == Account(uid=206, gid=300)
    for name in ("alias", "qmaild", "qmaill", "qmailp", "qmailr"):
        assert getattr(loaded, name).gid == 301, name


def test_single_user_accounts_are_all_the_caller() -> None:
    loaded = accounts.load_accounts(single_user=True)
    assert set(astuple(loaded)) == {(os.getuid(), os.getgid())}


def test_every_missing_name_is_told_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book = whole()
    del book.uids["qmailr"], book.gids["nofiles"]
    use(monkeypatch, book)
    with pytest.raises(ConfigError) as caught:
        accounts.load_accounts(single_user=False)
    assert [fault.file for fault in caught.value.faults] == [
        "group nofiles",
        "account qmailr",
    ]
    assert all("qsend setup" in fault.problem for fault in caught.value.faults)


def test_account_with_uid_zero_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    book = whole()
    book.uids["qmails"] = 0
    use(monkeypatch, book)
    with pytest.raises(ConfigError, match="account qmails: has uid 0"):
        accounts.load_accounts(single_user=False)
