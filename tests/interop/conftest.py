"""Fixtures of the tests that run notqmail."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.pair import Pair
from tests.tree.conftest import installation as installation
from tests.tree.conftest import login as login
from tests.tree.conftest import tree as tree
from tests.tree.harness import Installation, Tree

MODULES = [
    "bouncesaying",
    "condredirect",
    "except_",
    "forward",
    "preline",
    "qmail_inject",
    "qmail_local",
    "qmail_newu",
    "qmail_pw2u",
    "qmail_qmqpd",
    "qmail_qmtpd",
    "qmail_queue",
    "qreceipt",
    "sendmail",
]


@pytest.fixture(scope="module")
def shared(installation: Installation) -> Iterator[Path]:
    """A directory below which a module's tests have their homes."""
    path = Path(tempfile.mkdtemp(prefix="qsend-interop-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def idle(installation: Installation, shared: Path) -> Iterator[Tree]:
    """A home where nothing runs."""
    with Tree(installation, shared / "home") as made:
        yield made


@pytest.fixture(scope="module")
def pair(idle: Tree) -> Iterator[Pair]:
    """Both sides of a program, on that home."""
    with Pair(idle.home, MODULES) as pair:
        yield pair


@pytest.fixture
def home(tree: Tree) -> Tree:
    """A home whose aliases do what their names say."""
    tree.alias("ok", "./Maildir/\n")
    tree.alias("no", "|printf 'no\\n\\nsuch'; exit 100\n")
    tree.alias("later", "|test -e now || { echo later; exit 111; }\n./Maildir/\n")
    tree.alias("me-default", "./returned/\n")
    tree.alias("fwd", "&ok@here.example\n&a@good.example\n")
    tree.maildir()
    tree.alias("other", "./Other/\n")
    tree.maildir("returned")
    tree.maildir("Other")
    return tree
