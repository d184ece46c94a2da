"""Debian's Postfix: a private instance with its own directories.

It is started as `master` and ended by its pid. A queue is filled by its own SMTP
server while it has no queue manager; then the files wait beside incoming/ until `go`.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from grp import getgrnam
from pathlib import Path
from pwd import getpwnam

from bench import source
from bench.letters import Letter
from bench.namespace import OWN_HOST
from bench.peers.base import HOST, SMTP_PORT, STOP_S, Site, System, count_files
from bench.sink import reachable

DAEMONS = Path("/usr/lib/postfix/sbin")
SESSIONS = 20
"""That fill the queue."""
_PRIVATE = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
    "private", "saved", "trace",
)  # fmt: skip
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
{qmgr}
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
local     unix  - n n -     - local
virtual   unix  - n n -     - virtual
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
"""
_QMGR = "qmgr      unix  n - n 300   1 qmgr"


class Postfix(System):
    """With the settings that Debian gives it."""

    name = "postfix"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._queue = self.path / "queue"
        self._config = self.path / "etc"
        self._stash = self.path / "queue/stash"
        self._wakes_qmgr = self._queue / "public/qmgr"

    def set_up(self) -> None:
        self._make_directories()
        text = "".join(f"{name} = {value}\n" for name, value in self._main().items())
        (self._config / "main.cf").write_text(text)

    def settings(self) -> dict[str, str]:
        return self._routes() | self.tuning()

    def tuning(self) -> dict[str, str]:
        """What differs from the defaults for speed's sake."""
        return {}

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "MAIL_CONFIG": str(self._config)}

    def boot(self) -> None:
        self._start(has_qmgr=not self.site.is_held)

    def release(self) -> None:
        self.stop()
        self._start(has_qmgr=True)

    def queue(self, letters: Sequence[Letter]) -> None:
        self.stop()
        self._start(has_qmgr=False)
        source.send(letters, SMTP_PORT, keep=True, sessions=SESSIONS)
        self.stop()
        incoming = self._queue / "incoming"
        if self._stash.exists():
            self._stash.rmdir()
        incoming.rename(self._stash)
        self._own_directory("incoming")
        self._start(has_qmgr=True)

    def go(self) -> None:
        if not self._stash.exists():
            return  # A queue manager that has just been started looks by itself.
        incoming = self._queue / "incoming"
        for name in os.listdir(self._stash):
            os.rename(self._stash / name, incoming / name)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self._wakes_qmgr))
            sock.sendall(b"I")

    def backlog(self) -> int:
        top = self._queue
        flat = [top / name for name in ("maildrop", "incoming", "active")]
        hashed = [top / "deferred", *(top / "deferred").glob("?")]
        return count_files(flat + hashed)

    def sendmail(self, recip: str) -> list[str]:
        return ["/usr/sbin/sendmail", "-f", "bench@sender.example", recip]

    def settle(self) -> None:
        maildrop = [self.path / "queue/maildrop"]
        self.wait(lambda: count_files(maildrop) == 0, "maildrop/ is not empty")

    def stop(self, patience_s: float = STOP_S) -> None:
        # The group of master's children is its own; it ends them all.
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        super().stop(patience_s)

    def _start(self, *, has_qmgr: bool) -> None:
        text = _MASTER.format(port=SMTP_PORT, qmgr=_QMGR if has_qmgr else "")
        (self._config / "master.cf").write_text(text)
        self._wakes_qmgr.unlink(missing_ok=True)
        self.process = self.spawn([str(DAEMONS / "master"), "-c", str(self._config)])
        self.wait(lambda: reachable("127.0.0.1", SMTP_PORT), "is not up")
        if has_qmgr:
            self.wait(self._wakes_qmgr.exists, "has no queue manager")

    def _main(self) -> dict[str, str]:
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self._queue),
            "data_directory": str(self.path / "data"),
            "daemon_directory": str(DAEMONS),
            "command_directory": "/usr/sbin",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": HOST,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            # The sink's address must not be one of its own.
            "inet_interfaces": OWN_HOST,
            "inet_protocols": "ipv4",
            "maillog_file": str(self.path / "log"),
            "maillog_file_prefixes": str(self.path),
            "alias_maps": "",
            "local_recipient_maps": "",
            **self._routes(),
            **self.tuning(),
        }

    def _routes(self) -> dict[str, str]:
        # Large messages and lists are measured, and a queue is filled without a queue
        # manager, for which Postfix would wait a second with each message.
        found = {"message_size_limit": "0", "mailbox_size_limit": "0"}
        found |= {"virtual_mailbox_limit": "0", "smtpd_recipient_limit": "10000"}
        found["in_flow_delay"] = "0"
        if self.site.relay is not None:
            found["relayhost"] = f"[127.0.0.1]:{self.site.relay}"
        if self.site.mailboxes is not None:
            found |= {
                "virtual_mailbox_domains": HOST,
                "virtual_mailbox_base": str(self.site.mailboxes.path),
                "virtual_mailbox_maps": self._map("boxes"),
                "virtual_uid_maps": self._map("uids"),
                "virtual_gid_maps": self._map("uids"),
            }
        return found

    def _map(self, name: str) -> str:
        boxes = self.site.mailboxes
        assert boxes is not None
        path = self._config / name
        if not path.exists():
            values = {"boxes": "u{0}/Maildir/", "uids": "{1}"}[name]
            lines = [
                f"u{n}@{HOST} {values.format(n, boxes.uid(n))}\n"
                for n in range(boxes.count)
            ]
            path.write_text("".join(lines))
        # Kept in memory: the fastest there is.
        return f"texthash:{path}"

    def _make_directories(self) -> None:
        for path in (self._config, self._queue):
            path.mkdir(mode=0o755)
        data = self.path / "data"
        data.mkdir(mode=0o700)
        owner = getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        (self._queue / "pid").mkdir(mode=0o755)
        for name in _PRIVATE:
            self._own_directory(name)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            self._own_directory(name)
            path = self._queue / name
            os.chown(path, -1, getgrnam("postdrop").gr_gid)
            path.chmod(mode)

    def _own_directory(self, name: str) -> None:
        path = self._queue / name
        path.mkdir(mode=0o700)
        os.chown(path, getpwnam("postfix").pw_uid, 0)


class TunedPostfix(Postfix):
    """With as many connections to a destination as the others may have."""

    name = "postfix-tuned"

    def tuning(self) -> dict[str, str]:
        return {
            "default_process_limit": "200",
            "default_destination_concurrency_limit": "100",
            "initial_destination_concurrency": "20",
            "qmgr_message_active_limit": "40000",
        }
