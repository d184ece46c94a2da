"""Options by which a command becomes the administrator of the database."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from dataclasses import replace

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.sqlserver import SQLSERVER, SqlServer, parse_sqlserver
from qsend.sysio.sqladmin import Denied, SqlAdmin, read_secret

ADMIN_TEACHING = """\
The running system reads with the account in control/sqlserver, which needs SELECT
and no more. What writes uses an administrator's account:

  --admin-file FILE   lines as in control/sqlserver, and like it not for others to
                      read: server, login, password, db
  --admin-login NAME  at the server of control/sqlserver; default root. The password
                      is the first line of --admin-password-file (`-`: of standard
                      input). Without it none is tried, as the root of many systems
                      needs none on the local socket; a terminal is then asked.

No password is taken from the command line, where every process could see it."""


def add_admin(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The options of ADMIN_TEACHING."""
    for name, value, words in (
        ("--admin-file", "FILE", "who may write, and where"),
        ("--admin-login", "NAME", "who may write"),
        ("--admin-password-file", "FILE", "the password, `-` to read it"),
    ):
        parser.add_argument(name, metavar=value, default=default, help=words)


def running_server(home: str) -> SqlServer:
    """The first server of control/sqlserver and the account that runs.

    Raises: ConfigError when it is missing, or cannot be used.
    """
    try:
        with open(f"{home}/{SQLSERVER}", "rb") as file:
            return parse_sqlserver(file.read())[0]
    except OSError as exc:
        problem = f"unreadable: {exc.strerror}"
        fault = ConfigFault(file=f"{home}/{SQLSERVER}", line=0, problem=problem)
        raise ConfigError([fault]) from exc


def open_admin(
    args: argparse.Namespace, running: Callable[[], SqlServer], *, uses_db: bool = True
) -> SqlAdmin:
    """Connect as the options say; the caller closes it.

    Args:
        args: with the options of `add_admin`.
        running: gives the server of control/sqlserver, where it is needed.
        uses_db: whether the database is there already.
    Raises: ConfigError for options or files that cannot be used; TempFail.
    """
    if args.admin_file is not None:
        if args.admin_login is not None or args.admin_password_file is not None:
            raise _usage("--admin-file has login and password; give no others")
        content = read_secret(args.admin_file)
        server = parse_sqlserver(content, args.admin_file)[0]
        return SqlAdmin(server, uses_db=uses_db)
    login = args.admin_login or "root"
    server = replace(running(), login=login, password=_password(args))
    try:
        return SqlAdmin(server, uses_db=uses_db)
    except Denied:
        if args.admin_password_file is not None or not sys.stdin.isatty():
            raise
    password = getpass.getpass(f"password of {login} at {server.host}: ")
    return SqlAdmin(replace(server, password=password), uses_db=uses_db)


def _password(args: argparse.Namespace) -> str:
    if args.admin_password_file is None:
        return ""
    if args.admin_password_file == "-":
        content = sys.stdin.buffer.readline(65536)
    else:
        content = read_secret(args.admin_password_file)
    try:
        return content.split(b"\n")[0].removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise _usage("the password is not UTF-8") from None


def _usage(problem: str) -> ConfigError:
    fault = ConfigFault(file="options", line=0, problem=problem)
    return ConfigError([fault])
