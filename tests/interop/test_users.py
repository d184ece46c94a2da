"""users/assign and users/cdb: what notqmail or qsend writes, the other reads."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsend.formats import paths
from tests.classicpeer import FakeSend
from tests.interop import notqmail
from tests.interop.pair import GENERATED, USER, Pair, Ran
from tests.interop.whole import queue_by_theirs, start_ours, start_theirs
from tests.tree.classicqueue import ClassicQueue
from tests.tree.harness import Tree
from tests.tree.outcomes import contents

pytestmark = notqmail.marks

FILES = 300
LOOKUPS = 400
REPORTS_ARGUMENTS = """#!/bin/sh
printf '<%s>' "$@"
id -u; id -g; id -G
"""
"""Stands for qmail-local."""

locals_ = st.sampled_from(
    ["joe", "Joe", "joe-", "jo", "j", "joe-list", "joe-list-", "JOE-", "a.b", "", "-",
     "x+", "\xe9", "joe=", "alias", "root", "qt", "list-x-"]
)  # fmt: skip
homes = st.sampled_from(["/tmp", "/nonexistent", ""])
dashes = st.sampled_from(["", "-", "-/", "--"])
exts = st.sampled_from(["", "pre", "Pre-", "a:b"])
entries = st.builds(
    "{}{}:{}:{}:{}:{}:{}:{}:{}".format,
    st.sampled_from("=+"),
    locals_,
    st.sampled_from(["joe", "u"]),
    st.just(USER),
    st.just(USER),
    homes,
    dashes,
    exts,
    st.sampled_from(["", "", "more", ":"]),
)
assigns = st.lists(entries, max_size=8).map(lambda lines: "\n".join([*lines, ".\n"]))
odd_lines = st.sampled_from(
    ["", "joe", "=joe:joe:1:2:/h:-", "=joe:joe:1:2:/h:-:x", ":a:b:c:d:e:f:", "#x", "+",
     "xjoe:a:1:2:/h:::", "=a\0b:u:1:2:/h:::", "=:::::::", " =joe:a:1:2:/h:::", ". more"]
)  # fmt: skip
files = st.one_of(
    assigns,
    st.lists(st.one_of(entries, odd_lines), max_size=4).map(
        lambda lines: "\n".join(lines)
    ),
    st.lists(st.one_of(entries, odd_lines), max_size=4).map(
        lambda lines: "\n".join([*lines, "."])
    ),
    st.lists(st.one_of(entries, odd_lines), max_size=4).map(
        lambda lines: "\n".join([*lines, ".", "after\n"])
    ),
)


def made(pair: Pair, home: Path, is_ours: bool, assign: bytes) -> tuple[int, object]:
    """The exit code of qmail-newu, and users/cdb with its mode."""
    (home / "users/assign").write_bytes(assign)
    cdb = home / "users/cdb"
    cdb.write_bytes(b"old")
    if is_ours:
        ran: Ran = pair.ours("qmail_newu", [], uid=0)
    else:
        ran = pair.theirs("qmail-newu", [], uid=0)
    return ran.code, (cdb.read_bytes(), cdb.stat().st_mode)


@settings(GENERATED, max_examples=FILES)
@given(content=files)
def test_files_are_the_same(pair: Pair, idle: Tree, content: str) -> None:
    assign = content.encode("latin-1")
    theirs, ours = (made(pair, idle.home, side, assign) for side in (False, True))
    assert ours == theirs


@contextmanager
def spawner(tree: Tree, bin_: Path, is_ours: bool) -> Iterator[FakeSend]:
    """One side's qmail-lspawn, over `bin_` as its programs."""
    name = "qmail-lspawn"
    own = str(tree.home / "bin" / name) if is_ours else notqmail.program(name)
    command = notqmail.on_home(tree.home, [own, "./Mailbox"], bin_)
    with FakeSend(command, cwd="/", env={"PATH": "/usr/bin:/bin"}) as made:
        yield made


@pytest.fixture(scope="module")
def reporting(idle: Tree) -> Path:
    """Programs of both sides, where a script stands for both qmail-locals."""
    theirs = idle.home / "theirs"
    theirs.mkdir()
    for name in ("qmail-lspawn", "qmail-getpw"):
        shutil.copy(notqmail.program(name), theirs / name)
    for bin_ in (theirs, idle.home / "bin"):
        program = bin_ / "qmail-local"
        program.unlink(missing_ok=True)
        program.write_text(REPORTS_ARGUMENTS)
        program.chmod(0o755)
    return theirs


ASSIGN = f"""\
=joe:joe:{USER}:{USER}:/tmp:::
+joe-:joe:{USER}:{USER}:/tmp:-::
=joe-x:joe:{USER}:{USER}:/:-:x:
+joe-list-:u:{USER}:{USER}:/:-:pre-:
+joe-list-z=:u:{USER}:{USER}:/:-:eq:
=Mixed.Case:u:{USER}:{USER}:/:::
+UP-:u:{USER}:{USER}:/:-:Up:
=twice:first:{USER}:{USER}:/:::
=twice:second:{USER}:{USER}:/:::
=\xe9:u:{USER}:{USER}:/:-:acute:
=root-user:root:0:0:/root:::
"""
CATCH_ALL = f"+:rest:{USER}:{USER}:/:-::\n"
parts = st.sampled_from(
    ["joe", "Joe", "x", "list", "z=", "mixed.case", "up", "twice", "", "qmails", "\xe9",
     "alias", "root", "root-user", "nobody", "X", "a.b", "a b", "daemon", "bin"]
)  # fmt: skip
wanted = st.lists(parts, min_size=1, max_size=4).map("-".join)


@pytest.mark.parametrize("rest", ["", CATCH_ALL])
def test_lookups_are_the_same(idle: Tree, reporting: Path, rest: str) -> None:
    """Each reads what the other's qmail-newu has written."""
    home = idle.home
    (home / "users/assign").write_bytes(f"{ASSIGN}{rest}.\n".encode("latin-1"))
    messid = ClassicQueue(idle).add([b"unused"])
    path = paths.split_name(messid).encode()
    asked: list[str] = []

    @settings(GENERATED, max_examples=LOOKUPS // 2)
    @given(local=wanted)
    def collect(local: str) -> None:
        asked.append(local)

    collect()
    answers = []
    for is_ours in (False, True):
        writer = ["qmail-newu"] if is_ours else []
        if writer:
            idle.call(notqmail.on_home(home, [notqmail.program("qmail-newu")]))
        else:
            assert idle.program("qmail-newu").returncode == 0
        with spawner(idle, reporting, is_ours) as lspawn:
            answers.append([_ask(lspawn, path, local) for local in asked])
    (home / "users/cdb").unlink()
    assert list(zip(asked, answers[1], strict=True)) == list(
        zip(asked, answers[0], strict=True)
    )


def _ask(lspawn: FakeSend, path: bytes, local: str) -> tuple[bytes, bytes]:
    lspawn.command(0, path, b"s@h", local.encode("latin-1") + b"@here.example")
    _, letter, text = lspawn.report()
    # What the spawners say of themselves is each one's; alias lives in our home.
    home = b"<%b>" % getpwnam("alias").pw_dir.encode()
    text = re.sub(rb"<[^>]*/home/alias>", home, text)
    return letter, text if letter == b"K" else b""


@pytest.mark.parametrize("start", [start_ours, start_theirs])
def test_users_of_either_get_their_mail(
    tree: Tree, open_tmp: Path, start: Callable[[Tree], None]
) -> None:
    """The system that runs has not written the file."""
    home = open_tmp / "box"
    home.mkdir()
    os.chown(home, USER, USER)
    alias = getpwnam("alias")
    (tree.home / "users/assign").write_text(
        f"+box-:box:{USER}:{USER}:{home}:-::\n"
        f"+:alias:{alias.pw_uid}:{alias.pw_gid}:{tree.home}/alias:-::\n.\n"
    )
    if start is start_ours:
        tree.call(notqmail.on_home(tree.home, [notqmail.program("qmail-newu")]))
    else:
        assert tree.program("qmail-newu").returncode == 0
    (home / ".qmail-in-default").write_text("|echo $DEFAULT $EXT >> seen\n")
    tree.alias("other-default", "./Maildir/\n")
    tree.maildir()
    start(tree)
    queue_by_theirs(tree, [b"Box-In-Here@here.example", b"other-x@here.example"])
    tree.wait_for(rb"end msg \d+\n")
    assert (home / "seen").read_text() == "Here In-Here\n"
    assert len(contents(tree, "Maildir")) == 1
    assert tree.stop() == 0
