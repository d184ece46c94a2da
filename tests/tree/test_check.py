"""qsend check as root, on the home of a running tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qsend.sysio import sandbox
from tests.tree.harness import Tree

pytestmark = pytest.mark.root


def check(tree: Tree) -> tuple[int, list[str]]:
    done = tree.run("check", check=False)
    assert not done.stderr
    return done.returncode, done.stdout.decode().splitlines()


def test_running_tree_is_well_and_its_sandboxes_are_told(tree: Tree) -> None:
    tree.start()
    tree.run("hold", "local")
    tree.queue([b"postmaster@here.example"])
    tree.wait_for(rb"new msg \d+\n")
    code, lines = check(tree)
    features = " ".join(sandbox.features()) or "this kernel has none"
    assert code == 0
    assert lines[-1] == f"{tree.home}: all is well"
    told = [line.split(": ") for line in lines[:-1]]
    assert {word for word, _, _ in told} == {"sandbox"}
    [most] = [names.split() for _, names, what in told if what == features]
    assert set(most) >= {"remote", "lookup", "clean", "enqueue", "send"}
    assert {
        ("start lspawn local runner", "none, because others' programs would inherit it")
    } <= {(names, what) for _, names, what in told}


def test_each_breach_is_found_and_setup_mends_what_is_its_own(tree: Tree) -> None:
    tree.control("smtproutes", ":relay.example\n")
    home = tree.home
    (home / "control/smtproutes").chmod(0o600)
    (home / "control").chmod(0o777)
    (home / "bin/sendmail").chmod(0o4755)
    os.chown(home / "queue/info", 0, -1)
    (home / "queue/bounce/77").touch()
    code, lines = check(tree)
    assert code == 1
    for want in (
        "control: expected mode 0755, found 0777",
        "control/smtproutes: qmailr (uid ",
        "bin/sendmail: is setuid or setgid; nothing of qsend's is",
        "queue/info: expected owner ",
        "queue/bounce/77: expected owner ",
    ):
        assert [line for line in lines if line.startswith(want)], (want, lines)
    assert len([line for line in lines if not line.startswith("sandbox: ")]) == 5
    tree.run("setup")
    code, lines = check(tree)
    assert code == 1
    mine = [line.split(":")[0] for line in lines if not line.startswith("sandbox: ")]
    assert mine == ["control/smtproutes", "queue/bounce/77"]


def test_missing_accounts_and_groups_are_told(tree: Tree, open_tmp: Path) -> None:
    """As on a machine where somebody has removed them.

    All of /etc is covered: a mount on /etc/passwd itself would go as soon as another
    test's useradd renames a new file to that name.
    """
    etc = open_tmp / "etc"
    # A file of another test that goes meanwhile is not missed.
    subprocess.run(["cp", "-a", "/etc", etc], stderr=subprocess.DEVNULL, check=False)
    for name in ("passwd", "group"):
        rows = Path("/etc", name).read_text().splitlines(keepends=True)
        gone = ("qmailr:", "qmailp:", "nofiles:")
        (etc / name).write_text(
            "".join(row for row in rows if not row.startswith(gone))
        )
    mount = f"mount --bind {etc} /etc || exit 99"
    inside = ["unshare", "-m", "sh", "-c", f'{mount}; exec "$@"', "sh"]
    done = subprocess.run(
        [*inside, *tree.command("check")], capture_output=True, check=False
    )
    if done.returncode == 99 or b"unshare failed" in done.stderr:
        pytest.skip("this machine lets root mount nothing")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[:3] == [
        "group nofiles: missing; `qsend setup`, run as root, adds it",
        "account qmailp: missing; `qsend setup`, run as root, adds it",
        "account qmailr: missing; `qsend setup`, run as root, adds it",
    ]
    started = subprocess.run(
        [*inside, *tree.command("start")], capture_output=True, check=False, timeout=60
    )
    assert started.returncode == 100
    assert started.stdout.count(b"alert: cannot start: ") == 3
