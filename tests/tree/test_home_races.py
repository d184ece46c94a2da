"""A user who moves what is in the home while mail for it is delivered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qsend.core.model import Account
from qsend.sysio import privilege
from qsend.sysio.fork import fork_child
from tests.tree.harness import Tree
from tests.tree.test_hostile_local import ANN, EVE, children_of, homes, instruct

__all__ = ["homes"]
pytestmark = pytest.mark.root

ROUNDS = 60


def snapshot(*tops: Path) -> dict[str, tuple[object, ...]]:
    """Owner, mode, links, times and content of everything there."""
    found: dict[str, tuple[object, ...]] = {}
    for top in tops:
        for path in (top, *sorted(top.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (
                status.st_uid, status.st_gid, status.st_mode, status.st_nlink,
                status.st_mtime_ns, content,
            )  # fmt: skip
    return found


def _put(kind: str, at: Path, target: Path, own: Path) -> None:
    """Make `at` something else, in one step."""
    made = at.with_name(f"{at.name}.{kind}")
    with suppress(OSError):
        made.unlink()
    match kind:
        case "symlink":
            made.symlink_to(target)
        case "hard link":
            made.hardlink_to(target)
        case "fifo":
            os.mkfifo(made)
        case _:
            made.symlink_to(own)
    made.replace(at)


def _race(home: Path, targets: dict[str, list[Path]]) -> int:
    """Never ends."""
    privilege.drop(Account(uid=EVE, gid=EVE))
    own = {"box": home / "own", "mbox": home / "own-mbox", ".qmail-dot": home / "dot"}
    for number in range(1 << 60):
        for name, others in targets.items():
            target = others[number % len(others)]
            kinds = ["symlink", "own", "own", "hard link"]
            kinds += [] if name == "box" else ["fifo"]
            for kind in kinds:
                with suppress(OSError):
                    _put(kind, home / name, target, own[name])
    return 0


@contextmanager
def racing(home: Path, targets: dict[str, list[Path]]) -> Iterator[None]:
    pid = fork_child(lambda: _race(home, targets), ())
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_links_and_renames_lead_no_delivery_out_of_ones_power(
    tree: Tree, homes: dict[str, Path], open_tmp: Path
) -> None:
    eve, ann = homes["eve"], homes["ann"]
    theirs = tree.maildir(home=ann)
    box = tree.maildir("own", home=eve)
    # Readable and executable for all, so that only the right to write is missing.
    for path in (theirs, *theirs.iterdir()):
        path.chmod(0o755)
    for path in (letter := ann / "mbox", eve / "own-mbox", eve / "dot"):
        path.write_text("./own-mbox\n")
    os.chown(letter, ANN, ANN)
    os.chown(eve / "own-mbox", EVE, EVE)
    canary = open_tmp / "canary"
    for name in ("tmp", "new", "cur"):
        (canary / name).mkdir(parents=True)
    (canary / "file").write_text("./own-mbox\n")
    instruct(eve, "box", "./box/\n")
    instruct(eve, "mbox", "./mbox\n")
    outside = [ann, canary, tree.home / "control", tree.home / "users"]
    before = snapshot(*outside)
    tree.start()
    targets = {
        "box": [theirs, canary, tree.home / "queue"],
        "mbox": [letter, canary / "file", tree.home / "control/me"],
        ".qmail-dot": [tree.home / "control/smtpauth", canary / "file", canary],
    }
    (tree.home / "control/smtpauth").touch(mode=0o600)
    before = snapshot(*outside)
    with racing(eve, targets):
        for _ in range(ROUNDS):
            names = (b"box", b"mbox", b"dot")
            tree.queue([b"eve-%b@here.example" % name for name in names])
        tree.wait_for(rb"\ndelivery \d+: ", count=3 * ROUNDS)
    assert snapshot(*outside) == before
    # Some got through, and nobody fell.
    assert len(list((box / "new").iterdir())) > 0
    assert b"crashed" not in tree.log
    assert len(children_of(EVE, tree)) <= 1
    instruct(ann, "box", "./Maildir/\n")
    tree.queue([b"ann-box@here.example"])
    [report] = tree.reports(b"ann-box@here.example")
    assert report.startswith(b"success")
    assert tree.stop() == 0
