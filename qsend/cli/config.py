"""config: the first control files, from what the DNS says of this machine.

The host's name has an address, and that address has a name: it becomes me. locals
gets the name of every address of the machine, rcpthosts is a copy of it. Exit codes:
0; 111, and nothing is written, when the DNS does not tell or a file cannot be written.
Source: config.sh, dnsfq.c; INSTALL.ctl. Unlike qmail's, it looks at IPv6 addresses
too, asks the servers of control/resolvers if there are any, and writes nothing until
it knows everything.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from qsend.cli.config_fast import put
from qsend.cli.options import teach, wants_help
from qsend.core.errors import ConfigError, TempFail
from qsend.core.firstcontrols import add_line, check_host_name, first_controls
from qsend.formats.control import Resolver, parse_controls
from qsend.sysio.dnsquery import system_resolvers
from qsend.sysio.home import find_home, read_control
from qsend.sysio.hostnames import HostNames, interface_addresses

_HELP = """\
usage: config

Asks the DNS for this machine's full name and for the names of all its addresses, and
makes the control files me, defaultdomain, plusdomain, locals and rcpthosts of them.
What these files held is replaced. If the DNS does not know the machine, nothing is
written: use config-fast, which takes the name as its argument.
"""


def main(argv: Sequence[str]) -> int:
    """Write the files, and say so; arguments are ignored, as config does."""
    if wants_help(argv):
        return teach(_HELP)
    try:
        home = find_home(None, os.environ)
        names = HostNames(_resolvers(home))
        host = socket.gethostname().lower()
        _say(f"Your hostname is {host}.")
        me = _full_name(names, host)
        if me is None:
            _say("Sorry, I couldn't find your host's canonical name in DNS.")
            _say("You will have to set up control/me yourself.")
            return 111
        _write(home, me, _names_of_addresses(names, me))
    except ConfigError as exc:
        return _die(str(exc.faults[0]))
    except TempFail as exc:
        return _die(str(exc))
    except OSError as exc:
        return _die(f"unable to write {exc.filename}: {exc.strerror}")
    return 0


def _resolvers(home: str) -> Sequence[Resolver]:
    content = read_control(home, "resolvers")
    given = {} if content is None else {"resolvers": content}
    return parse_controls({"locals": b"", **given}).resolvers or system_resolvers()


def _full_name(names: HostNames, host: str) -> bytes | None:
    """The name of the first address of `host` that has a full one."""
    for address in names.addresses(host):
        try:
            return check_host_name((names.name(address) or b"").decode())
        except ConfigError:
            continue
    return None


def _names_of_addresses(names: HostNames, me: bytes) -> bytes:
    """The content of locals. Raises: TempFail."""
    _say(f"Your host's fully qualified name in DNS is {me.decode()}.")
    _say("Checking local IP addresses:")
    content = b""
    known = [*names.addresses(me.decode()), *interface_addresses()]
    for address in dict.fromkeys(known):
        name = names.name(address)
        if name is None:
            _say(
                f"{address}: PTR lookup failed. I assume this address has no DNS name."
            )
        else:
            _say(f"{address}: Adding {name.decode()} to control/locals...")
            content = add_line(content, name)
    return content


def _write(home: str, me: bytes, local: bytes) -> None:
    """Raises: OSError."""
    files = {**first_controls(me), "locals": local, "rcpthosts": local}
    for control, content in files.items():
        _say(f"Putting {', '.join(content.decode().split())} into control/{control}...")
        put(home, control, content)
    _say("If there are any other domain names that point to you,")
    _say("you will have to add them to control/locals.")
    _say("Now qmail will refuse to accept SMTP messages except to those hosts.")
    _say("Make sure to change rcpthosts if you add hosts to locals or virtualdomains!")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _die(problem: str) -> int:
    sys.stderr.write(f"config: fatal: {problem}\n")
    return 111
