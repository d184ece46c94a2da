"""Real mail filters: any on Debian's libmilter, opendkim, rspamd."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qsend.sysio import clock
from tests.ports import free_ports
from tests.smtpdtree import WAIT_S

PROGRAM = Path(__file__).with_name("milterprogram.py")


_LISTENS = "00010000"
"""__SO_ACCEPTCON in the flags of /proc/net/unix."""


@contextmanager
def running(command: list[str], socket: Path | None, port: int = 0) -> Iterator[None]:
    """A filter, once it can be connected to."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C.UTF-8"},
    ) as process:  # fmt: skip
        try:
            end = clock.mono() + WAIT_S
            while not (is_there(socket) if socket else listens(port)):
                assert process.poll() is None, process.communicate()[0].decode()
                assert clock.mono() < end, f"{command[0]} does not listen"
                os.sched_yield()
            yield
        finally:
            process.terminate()
            try:
                process.communicate(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def is_there(path: Path) -> bool:
    """Whether somebody listens there: a bound socket alone refuses clients."""
    with open("/proc/net/unix") as table:
        return any(
            words[-1] == str(path) and words[3] == _LISTENS
            for words in map(str.split, table)
        )


def listens(port: int) -> bool:
    with open("/proc/net/tcp") as table:
        return any(
            words[1].endswith(f":{port:04X}") and words[3] == "0A"
            for words in map(str.split, table)
        )


class Libmilter:
    """A filter that does what `plan` says (milterprogram.py)."""

    def __init__(self, directory: Path, name: str = "lib") -> None:
        self.socket = directory / f"{name}.sock"
        self.log = directory / f"{name}.log"
        self.line = f"unix:{self.socket}"

    @contextmanager
    def run(self, **plan: Any) -> Iterator[Libmilter]:
        self.log.write_text("")
        self.log.chmod(0o666)
        command = ["/usr/bin/python3", str(PROGRAM), f"local:{self.socket}"]
        with running([*command, str(self.log), json.dumps(plan)], self.socket):
            yield self

    def heard(self) -> list[list[Any]]:
        """All that it was told so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stages(self) -> list[str]:
        return [each[0] for each in self.heard()]


class Opendkim:
    """Signers and verifiers of far.example's mail, with one key."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        key = ["openssl", "genrsa", "-out", str(directory / "key.pem"), "2048"]
        subprocess.run(key, check=True, capture_output=True)
        (directory / "key.pem").chmod(0o600)
        public = subprocess.run(
            ["openssl", "rsa", "-in", str(directory / "key.pem"), "-pubout"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        text = "".join(public.splitlines()[1:-1])
        (directory / "keys").write_text(
            f"sel._domainkey.far.example v=DKIM1; k=rsa; p={text}\n"
        )

    @contextmanager
    def run(self, mode: str, *lines: str) -> Iterator[str]:
        """`mode`: s to sign, v to verify. The line for control/milters."""
        (port,) = free_ports(1)
        config = self._directory / f"{mode}.conf"
        config.write_text(
            "\n".join(
                (
                    f"Socket inet:{port}@127.0.0.1",
                    f"Mode {mode}",
                    "Domain far.example",
                    "Selector sel",
                    f"KeyFile {self._directory}/key.pem",
                    f"TestPublicKeys {self._directory}/keys",
                    "Canonicalization simple/simple",
                    "AlwaysAddARHeader yes",
                    "RequireSafeKeys no",
                    "AuthservID here.example",
                    *lines,
                    "",
                )
            )
        )
        command = ["/usr/sbin/opendkim", "-f", "-x", str(config)]
        if mode == "v":
            # Mail of loopback is not verified, else.
            config.write_text(
                config.read_text() + f"InternalHosts {self._directory}/none\n"
            )
            (self._directory / "none").write_text("192.0.2.1\n")
        with running(command, None, port):
            yield f"inet:{port}@127.0.0.1"


_RSPAMD = """\
options {
  tempdir = "%(directory)s";
  url_tld = "%(directory)s/tld";
  filters = "";
  dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }
  gtube_patterns = "all";
}
logging { type = "console"; level = "warning"; }
actions { reject = 15; add_header = 6; greylist = 4; }
worker "rspamd_proxy" {
  bind_socket = "127.0.0.1:%(port)d";
  milter = yes;
  count = 1;
  upstream "local" { default = yes; self_scan = yes; }
}
lua = "%(directory)s/rspamd.lua";
"""
_RSPAMD_LUA = """\
rspamd_config:register_symbol({
  name = 'ADDS', type = 'postfilter',
  callback = function(task)
    task:set_milter_reply({ add_headers = { ['X-Rspamd'] = 'seen' } })
  end
})
"""


@contextmanager
def rspamd(directory: Path) -> Iterator[str]:
    """One that adds a field and knows GTUBE; the line for control/milters."""
    (port,) = free_ports(1)
    (directory / "tld").write_text("com\nexample\n")  # the real list takes a minute
    (directory / "rspamd.lua").write_text(_RSPAMD_LUA)
    config = directory / "rspamd.conf"
    config.write_text(_RSPAMD % {"directory": directory, "port": port})
    command = ["/usr/bin/rspamd", "-f", "-i", "-c", str(config)]
    with running(command, None, port):
        yield f"inet:{port}@127.0.0.1"
