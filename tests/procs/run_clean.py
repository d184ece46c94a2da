"""Runs clean alone, for tests that trace or kill it: one process, real uids.

python -m tests.procs.run_clean HOME UID GID START_FD SEND_FD LEVEL
"""

from __future__ import annotations

import socket
import sys

from qsend.core.model import Account, Accounts
from qsend.formats.control import Controls, Durability
from qsend.procs import clean
from qsend.sysio.boot import Boot


def main() -> int:
    """Boot clean from the command line; its exit code."""
    home, uid, gid, start_fd, send_fd, level = sys.argv[1:]
    one = Account(uid=int(uid), gid=int(gid))
    accounts = Accounts(
        alias=one, qmaild=one, qmaill=one, qmailp=one, qmailq=one, qmailr=one,
        qmails=one, root=one,
    )  # fmt: skip
    boot = Boot(
        role="clean",
        home=home,
        single_user=False,
        accounts=accounts,
        controls=Controls(durability=Durability(level)),
        default_delivery=b"",
        socks={
            "start": socket.socket(fileno=int(start_fd)),
            "send": socket.socket(fileno=int(send_fd)),
        },
    )
    return clean.main(boot)


if __name__ == "__main__":
    sys.exit(main())
