"""Whose mail a local part is, asked of users/cdb and the machine's accounts.

Every failure to find out is an outcome of its own, Trouble: only a clear "no"
lets the search go on to the next candidate and at last to alias.
Source: qmail-lspawn.c nughde_get(), qmail-getpw.c, qmail-users(5).
"""

from __future__ import annotations

import os
from dataclasses import replace

from qsend.core import users
from qsend.core.errors import ConfigError
from qsend.core.model import Accounts, User
from qsend.core.users import NoUser, Outcome, Trouble
from qsend.formats import usersdb
from qsend.sysio import passwd
from qsend.sysio.cdbfile import CdbFile

_Stamp = tuple[int, int, int, int]


class UsersCdb:
    """users/cdb, opened again whenever the file has become another."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._cdb: CdbFile | None = None
        self._wildcards: frozenset[int] = frozenset()

    def refresh(self) -> bool:
        """Look whether the file changed; True if answers may differ from now on.

        Raises: ConfigError when it cannot be used, OSError when it cannot be read;
            the next call tries again.
        """
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            changed = self._stamp is not None
            self._forget()
            return changed
        if self._stamp == _stamp(status):
            return False
        self._forget()
        self._open()
        return True

    def find(self, local: bytes) -> User | None:
        """The user of the first key that matches, or None.

        Raises: ConfigError when the file or the record is damaged; OSError.
        """
        if self._cdb is None:
            return None
        for key, rest in usersdb.keys(local, self._wildcards):
            value = self._cdb.get(key)
            if value is not None:
                return usersdb.parse_record(value, rest)
        return None

    def close(self) -> None:
        """Give the descriptor back; `refresh` opens the file again."""
        self._forget()

    def _open(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            stamp = _stamp(os.fstat(fd))
            cdb = CdbFile(fd, usersdb.FILE)
            wildcards = usersdb.parse_wildcards(cdb.get(usersdb.WILDCARDS_KEY))
        except BaseException:
            os.close(fd)
            raise
        self._stamp, self._cdb, self._wildcards = stamp, cdb, wildcards

    def _forget(self) -> None:
        if self._cdb is not None:
            self._cdb.close()
        self._stamp, self._cdb, self._wildcards = None, None, frozenset()


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


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
        try:
            self._cdb.refresh()
            return (
                self._cdb.find(local)
                or self._find_account(local)
                or self._find_alias(local)
            )
        except ConfigError as exc:
            return Trouble(text=str(exc).encode("utf-8", "backslashreplace"))
        except OSError as exc:
            where = f" ({os.fsdecode(exc.filename)})" if exc.filename else ""
            text = f"unable to look up the user: {exc.strerror}{where}"
            return Trouble(text=text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Give descriptors back."""
        self._cdb.close()

    def _find_account(self, local: bytes) -> User | None:
        if self._single_user:
            return self._find_own(local)
        for candidate in users.passwd_candidates(local):
            entry = self._entry(candidate.name)
            if entry is not None and passwd.is_user(entry):
                return _user(candidate, entry)
        return None

    def _entry(self, name: bytes) -> passwd.PasswdEntry | None:
        entry = passwd.by_name(name)
        if entry is None or entry.account.uid != self._accounts.alias.uid:
            return entry
        # Mail to the alias account by name goes where its other mail goes, also
        # when this qsend does not live where the account was made for.
        return replace(entry, home=self._alias_home)

    def _find_own(self, local: bytes) -> User | None:
        account = self._accounts.alias
        entry = passwd.by_uid(account.uid)
        if entry is not None and passwd.is_user(entry):
            candidate = users.own_candidate(local, entry.name)
            if candidate is not None:
                return _user(candidate, entry)
        # virtualdomains says `alias-name` here as it does on any other system.
        candidate = users.own_candidate(local, users.ALIAS)
        if candidate is None:
            return None
        return users.passwd_user(
            candidate, name=users.ALIAS, account=account, home=self._alias_home
        )

    def _find_alias(self, local: bytes) -> User | NoUser:
        try:
            os.stat(self._alias_home)
        except (FileNotFoundError, NotADirectoryError):
            return NoUser(text=b"unable to find alias user")
        return users.alias_user(local, self._accounts.alias, self._alias_home)


def _user(candidate: users.Candidate, entry: passwd.PasswdEntry) -> User:
    return users.passwd_user(
        candidate, name=entry.name, account=entry.account, home=entry.home
    )
