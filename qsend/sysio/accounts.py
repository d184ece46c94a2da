"""Which uid and gid each process runs with, looked up by qmail's account names.

Source: INSTALL.ids (accounts), docs/ARCHITECTURE.md (groups).
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from dataclasses import fields

from qsend.core.errors import ConfigError, ConfigFault
from qsend.core.model import Account, Accounts

QUEUE_GROUP = "qmail"
"""The group that may read the queue."""
OUTSIDE_GROUP = "nofiles"
"""The group of processes with no business in the queue; it owns no files."""

GROUPS: Mapping[str, str] = {
    "alias": OUTSIDE_GROUP,
    "qmaild": OUTSIDE_GROUP,
    "qmaill": OUTSIDE_GROUP,
    "qmailp": OUTSIDE_GROUP,
    "qmailq": QUEUE_GROUP,
    # qmail gives qmailr the queue's group; our remote gets descriptors instead.
    "qmailr": OUTSIDE_GROUP,
    "qmails": QUEUE_GROUP,
}
"""The group each account's process runs with, whatever passwd says."""

_FIX = "`qsend setup`, run as root, adds it"


def load_accounts(single_user: bool) -> Accounts:
    """The accounts of this machine; in single-user mode all are the caller.

    Raises: ConfigError naming every missing account and group; also when an
        account has uid 0, which would be no separation at all.
    """
    if single_user:
        me = Account(uid=os.getuid(), gid=os.getgid())
        return Accounts(**{field.name: me for field in fields(Accounts)})
    gids = {name: _gid(name) for name in sorted(set(GROUPS.values()))}
    uids = {name: _uid(name) for name in GROUPS}
    faults = [fault for fault in _faults(uids, gids) if fault is not None]
    if faults:
        raise ConfigError(faults)
    named = {
        name: Account(uid=uids[name] or 0, gid=gids[group] or 0)
        for name, group in GROUPS.items()
    }
    return Accounts(**named, root=Account(uid=0, gid=gids[QUEUE_GROUP] or 0))


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _faults(
    uids: Mapping[str, int | None], gids: Mapping[str, int | None]
) -> list[ConfigFault | None]:
    return [
        *(_fault(f"group {name}", gid, "gid") for name, gid in gids.items()),
        *(_fault(f"account {name}", uid, "uid") for name, uid in uids.items()),
    ]


def _fault(what: str, number: int | None, kind: str) -> ConfigFault | None:
    if number is None:
        return ConfigFault(file=what, line=0, problem=f"missing; {_FIX}")
    if number == 0:
        return ConfigFault(
            file=what, line=0, problem=f"has {kind} 0; it needs one of its own"
        )
    return None
