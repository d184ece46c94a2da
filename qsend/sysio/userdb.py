"""Whose mail a local part is, asked of users/cdb and the machine's accounts.

Every failure to find out is an outcome of its own, Trouble: only a clear "no"
lets the search go on to the next candidate and at last to alias.
Source: qmail-lspawn.c nughde_get(), qmail-getpw.c, qmail-users(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from qsend.core import users
from qsend.core.errors import ConfigError, TempFail
from qsend.core.model import Account, Accounts, User
from qsend.core.sqlrules import Judged, shown
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats import usersdb
from qsend.sysio import passwd
from qsend.sysio.watchedcdb import WatchedCdb


class UsersCdb:
    """users/cdb, opened again whenever the file has become another."""

    def __init__(self, path: str) -> None:
        self._cdb = WatchedCdb(path, usersdb.FILE)
        self._wildcards: frozenset[int] = frozenset()

    def refresh(self) -> bool:
        """Look whether the file changed; True if answers may differ from now on.

        Raises: ConfigError when it cannot be used, OSError when it cannot be read;
            the next call tries again.
        """
        if not self._cdb.refresh():
            return False
        try:
            found = self._cdb.get(usersdb.WILDCARDS_KEY)
            self._wildcards = usersdb.parse_wildcards(found)
        except BaseException:
            self._cdb.close()
            raise
        return True

    def find(self, local: bytes) -> User | None:
        """The user of the first key that matches, or None.

        Raises: ConfigError when the file or the record is damaged; OSError.
        """
        if not self._cdb.is_there:
            return None
        for key, rest in usersdb.keys(local, self._wildcards):
            value = self._cdb.get(key)
            if value is not None:
                return usersdb.parse_record(value, rest)
        return None

    def close(self) -> None:
        """Give the descriptor back; `refresh` opens the file again."""
        self._cdb.close()


class UserDb:
    """Answers whose a local part is."""

    def __init__(self, home: str, accounts: Accounts, *, single_user: bool) -> None:
        """Look in `home` (qsend's, absolute) for users/cdb and alias."""
        self._alias_home = os.fsencode(f"{home}/alias")
        self._accounts = accounts
        self._single_user = single_user
        self._cdb = UsersCdb(f"{home}/{usersdb.FILE}")

    def refresh(self) -> bool:
        """Whether earlier answers may be wrong now; call it before `find`.

        A users/cdb that cannot be used counts as changed; `find` says why.
        """
        try:
            return self._cdb.refresh()
        except (ConfigError, OSError):
            return True

    def find(self, local: bytes) -> Outcome:
        """The user `local` (not empty) belongs to.

        Never raises for what it meets on disk or in the accounts: that is Trouble.
        """
        return self.judge(local).answer

    def judge(self, local: bytes) -> Judged[Outcome]:
        """The same, and how it was found."""
        steps: list[str] = []
        answer: Outcome
        try:
            answer = self._judge(local, steps)
        except TempFail as exc:
            steps.append(str(exc))
            answer = Trouble(text=str(exc).encode("utf-8", "backslashreplace"))
        return Judged(answer=answer, steps=tuple(steps))

    def _judge(self, local: bytes, steps: list[str]) -> Outcome:
        user = self.assigned(local)
        if user is not None:
            steps.append(f"users/cdb has {shown(local)}")
            return user
        steps.append(f"users/cdb has no {shown(local)}")
        for candidate in users.passwd_candidates(local):
            user = self.account(candidate)
            if user is not None:
                steps.append(f"an account {shown(candidate.name)}")
                return user
            steps.append(f"no account {shown(candidate.name)}")
        steps.append("alias takes it")
        return self.fallback(local)

    def assigned(self, local: bytes) -> User | None:
        """The user that users/cdb gives `local`. Raises: TempFail."""
        with _translated():
            self._cdb.refresh()
            return self._cdb.find(local)

    def account(self, candidate: users.Candidate) -> User | None:
        """The user that an account of the machine with that name is, or None.

        In single-user mode only the one user and alias are. Raises: TempFail.
        """
        with _translated():
            if self._single_user:
                return self._own_account(candidate)
            entry = self._entry(candidate.name)
            if entry is None or not passwd.is_user(entry):
                return None
            return _user(candidate, entry)

    def fallback(self, local: bytes) -> User | NoUser:
        """alias, with all of `local` as its extension. Raises: TempFail."""
        with _translated():
            try:
                os.stat(self._alias_home)
            except (FileNotFoundError, NotADirectoryError):
                return NoUser(text=b"unable to find alias user")
            return users.alias_user(local, self._accounts.alias, self._alias_home)

    def close(self) -> None:
        """Give descriptors back."""
        self._cdb.close()

    def _entry(self, name: bytes) -> passwd.PasswdEntry | None:
        entry = passwd.by_name(name)
        if entry is None or entry.account.uid != self._accounts.alias.uid:
            return entry
        # Mail to the alias account by name goes where its other mail goes, also
        # when this qsend does not live where the account was made for.
        return replace(entry, home=self._alias_home)

    def _own_account(self, candidate: users.Candidate) -> User | None:
        account = self._accounts.alias
        entry = passwd.by_uid(account.uid)
        if entry is not None and candidate.name == entry.name.lower():
            return _user(candidate, entry) if passwd.is_user(entry) else None
        if candidate.name != users.ALIAS:
            return None
        # virtualdomains says `alias-name` here as it does on any other system.
        return users.passwd_user(
            candidate, name=users.ALIAS, account=account, home=self._alias_home
        )


def owner_of(path: bytes) -> Account | None:
    """Whose a directory is; None when there is none. Raises: TempFail."""
    with _translated():
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Account(uid=found.st_uid, gid=found.st_gid)


@contextmanager
def _translated() -> Iterator[None]:
    """What cannot be found out now is a TempFail that says why."""
    try:
        yield
    except ConfigError as exc:
        raise TempFail(str(exc)) from exc
    except OSError as exc:
        where = f" ({os.fsdecode(exc.filename)})" if exc.filename else ""
        text = f"unable to look up the user: {exc.strerror}{where}"
        raise TempFail(text) from exc


def _user(candidate: users.Candidate, entry: passwd.PasswdEntry) -> User:
    return users.passwd_user(
        candidate, name=entry.name, account=entry.account, home=entry.home
    )
