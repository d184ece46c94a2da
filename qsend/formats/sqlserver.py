"""control/sqlserver: where the database is, and who asks.

Lines are `key value` or `key=value` with any white space around the separator; a
comment has its `#` in the first column, so that passwords may hold any character.
Several `server` lines are tried in order.
Source: docs/VIRTUAL.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from qsend.core.errors import ConfigError, ConfigFault

SQLSERVER = "control/sqlserver"
SQLSERVER_MAX = 65536
"""Longest file read, in bytes: a few lines are meant."""

_ONCE = ("login", "password", "db", "port", "socket")
_NEEDED = ("server", "login", "password", "db")
_LINE = re.compile(rb"[ \t]*([^ \t=]+)(?:[ \t]*=[ \t]*|[ \t]+|$)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlServer:
    """One server and the account to use: by `socket` if there is one, else `host`.

    `port` is None when the file names none. The password is not in its repr.
    """

    host: str
    port: int | None = None
    socket: str | None = None
    login: str
    password: str = field(repr=False)
    db: str


def parse_sqlserver(content: bytes, file: str = SQLSERVER) -> tuple[SqlServer, ...]:
    """The servers, in the order in which they are tried.

    Args:
        content: the file.
        file: what faults call it.
    Raises: ConfigError with every fault and its line. No fault shows a value.
    """
    if len(content) > SQLSERVER_MAX:
        problem = f"longer than {SQLSERVER_MAX} bytes"
        raise ConfigError([ConfigFault(file=file, line=0, problem=problem)])
    reader = _Reader(file)
    for number, line in enumerate(content.split(b"\n"), start=1):
        reader.line(number, line.removesuffix(b"\r"))
    return reader.finish()


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._faults: list[ConfigFault] = []
        self._hosts: list[str] = []
        self._seen: dict[str, int] = {}
        self._values: dict[str, str] = {}

    def line(self, number: int, line: bytes) -> None:
        """Take one line."""
        if line[:1] == b"#" or not line.strip(b" \t"):
            return
        match = _LINE.fullmatch(line)
        key = match[1].decode("ascii", "backslashreplace") if match else ""
        if match is None or key not in ("server", *_ONCE):
            # It may be a line broken off a password: only what looks like a key
            # is shown.
            what = repr(key) if re.fullmatch("[a-z_]{1,20}", key) else "something else"
            keys = ", ".join(("server", *_ONCE))
            self._fault(number, f"expected one of {keys}, found {what}")
        elif key in self._seen and key != "server":
            self._fault(number, f"{key} again, it is already in line {self._seen[key]}")
        else:
            self._seen.setdefault(key, number)
            self._value(number, key, match[2])

    def _value(self, number: int, key: str, raw: bytes) -> None:
        # The blanks at the end of a password may be part of it.
        cut = raw if key == "password" else raw.rstrip(b" \t")
        try:
            value = cut.decode("utf-8")
        except UnicodeDecodeError:
            self._fault(number, f"the value of {key} is not UTF-8")
            return
        if "\0" in value:
            self._fault(number, f"the value of {key} has a NUL byte")
        elif not value and key != "password":
            self._fault(number, f"{key} has no value")
        elif key == "port" and not _is_port(value):
            self._fault(number, "expected a port from 1 to 65535")
        elif key == "socket" and value[0] != "/":
            self._fault(number, "expected the absolute path of a socket")
        elif key == "server":
            self._hosts.append(value)
        else:
            self._values[key] = value

    def finish(self) -> tuple[SqlServer, ...]:
        """What all lines say together."""
        for key in _NEEDED:
            if key not in self._seen:
                self._fault(0, f"no {key} line")
        if "port" in self._seen and "socket" in self._seen:
            last = max(self._seen["port"], self._seen["socket"])
            self._fault(last, "port and socket exclude each other")
        if self._faults:
            raise ConfigError(self._faults)
        return tuple(map(self._server, self._hosts))

    def _server(self, host: str) -> SqlServer:
        # A socket is on this machine: of several servers it is that of localhost.
        socket = self._values.get("socket")
        if len(self._hosts) > 1 and host != "localhost":
            socket = None
        port = self._values.get("port")
        return SqlServer(
            host=host,
            port=int(port) if port else None,
            socket=socket,
            login=self._values["login"],
            password=self._values["password"],
            db=self._values["db"],
        )

    def _fault(self, line: int, problem: str) -> None:
        fault = ConfigFault(file=self._file, line=line, problem=problem)
        self._faults.append(fault)


def _is_port(value: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", value) is not None and 0 < int(value) < 65536
