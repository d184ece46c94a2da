"""What the programs that write tables and lists for fastforward share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qsend.core.errors import TempFail
from qsend.formats.addressitems import Domains
from qsend.formats.controllines import FILE_MAX, one_line
from qsend.sysio.boundedread import read_most
from qsend.sysio.home import find_home, read_control


@contextmanager
def written(tmp: str) -> Iterator[None]:
    """Say of an OSError inside that `tmp` could not be written. Raises: TempFail."""
    try:
        yield
    except OSError as exc:
        raise TempFail(f"unable to write to {tmp}: {exc.strerror}") from exc


def read_source(path: str) -> bytes:
    """A source file. Raises: TempFail when it cannot be read, or is too long."""
    try:
        with open(path, "rb") as file:
            content = read_most(file.fileno(), FILE_MAX + 1)
    except OSError as exc:
        raise TempFail(f"unable to read {path}: {exc.strerror}") from exc
    if len(content) > FILE_MAX:
        raise TempFail(f"{path} is longer than {FILE_MAX} bytes")
    return content


def read_domains(variables: Mapping[str, bytes]) -> Domains:
    """defaulthost, defaultdomain and plusdomain of this home.

    Args:
        variables: values that come before the controls, by the controls' names.
    Raises: TempFail.
    Source: newaliases.c readcontrols().
    """
    home = find_home(None, os.environ)
    me = read_control(home, "me")

    def value(name: str) -> bytes:
        if name in variables:
            return variables[name]
        content = read_control(home, name)
        if content is None:
            content = b"me" if me is None else me
        return one_line(content)

    return Domains(
        host=value("defaulthost"),
        domain=value("defaultdomain"),
        plus=value("plusdomain"),
    )
