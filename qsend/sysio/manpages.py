"""The manual pages: where this copy of qsend has them, and putting them in a home.

Source: man-pages(7); docs/man.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio.launchers import keep_other, replace
from qsend.sysio.shipped import find_shipped

_MARK = b"qsend"
"""In the first line of every page of ours, and in no page of qmail."""


def find_pages() -> Mapping[str, bytes]:
    """Name, as `qsend.8`, to content of each page; none where they were left out.

    Raises: Fatal when they cannot be read.
    """
    directory = find_shipped("man")
    return {} if directory is None else _read(directory)


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
