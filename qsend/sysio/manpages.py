"""The manual pages: where this copy of qsend has them, and putting them in a home.

Source: man-pages(7); docs/man.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio.launchers import keep_other, replace

_MARK = b"qsend"
"""In the first line of every page of ours, and in no page of qmail."""
_PLACES = ("docs/man", "../../../share/qsend/man")
"""Beside the package: in a checkout, and as pip installs them."""


def find_pages() -> Mapping[str, bytes]:
    """Name, as `qsend.8`, to content of each page; none where they were left out.

    Raises: Fatal when they cannot be read.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for place in _PLACES:
        directory = os.path.join(os.path.dirname(package), place)
        if os.path.isdir(directory):
            return _read(directory)
    return {}


def _read(directory: str) -> dict[str, bytes]:
    pages = {}
    for name in sorted(os.listdir(directory)):
        if name[-2:-1] == "." and name[-1].isdigit():
            try:
                with open(os.path.join(directory, name), "rb") as file:
                    pages[name] = file.read()
            except OSError as exc:
                raise Fatal(
                    f"unable to read {directory}/{name}: {exc.strerror}"
                ) from exc
    return pages


def install_pages(home: str, owner: Account) -> list[str]:
    """Write all pages into `<home>/man/man<section>`.

    Pages of others, such as qmail's, are kept beside ours, as programs are.

    Returns: the pages written.
    Raises: Fatal, naming the one that cannot be read or written.
    """
    pages = find_pages()
    for name, content in pages.items():
        path = os.path.join(home, f"man/man{name[-1]}", name)
        try:
            keep_other(path, _MARK)
            replace(path, content, 0o644, owner)
        except OSError as exc:
            raise Fatal(f"unable to write {path}: {exc.strerror}") from exc
    return list(pages)
