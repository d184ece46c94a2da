"""Programs called by symbolic links from elsewhere, as the system's own paths are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from qsend.core.model import Account
from qsend.sysio.launchers import PROGRAMS, make_launchers
from tests.tree.harness import Tree, until

PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with nothing but programs."""
    made = tmp_path_factory.mktemp("programs")
    (made / "bin").mkdir()
    make_launchers(str(made), Account(uid=os.getuid(), gid=os.getgid()))
    return made


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_works_through_a_link_to_a_link(
    program: str, home: Path, tmp_path: Path
) -> None:
    for name in ("lib", "sbin", "work"):
        (tmp_path / name).mkdir()
    installed = home / "bin" / program
    (tmp_path / "lib" / program).symlink_to(installed)
    (tmp_path / "sbin" / program).symlink_to(f"../lib/{program}")

    def taught(called: str) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [called, "--help"],
            cwd=tmp_path / "work",
            env=PATH,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    answer = taught(f"../sbin/{program}")
    assert answer == taught(str(installed))
    assert answer[::2] == (0, b"")
    assert b"usage" in answer[1].lower()


def test_links_that_replace_those_of_sendmail_do_its_work(tree: Tree) -> None:
    system = tree.home.parent / "usr"
    system.mkdir()
    links = {
        "sendmail": "sendmail",
        "newaliases": "newaliases",
        "mailq": "mailq",
        # As sendmail has them: one program, many names.
        "lib/newaliases": "sendmail",
        "lib/mailq": "sendmail",
    }
    for name, program in links.items():
        (system / name).parent.mkdir(exist_ok=True)
        (system / name).symlink_to(tree.home / "bin" / program)

    def call(name: str, *args: str, stdin: bytes = b"") -> bytes:
        # Nothing but the program itself says where its home is.
        command = ["env", "-u", "QSEND_HOME", str(system / name), *args]
        environ = {"ALIASES": str(aliases)}
        return tree.call(command, stdin=stdin, env=environ).stdout

    aliases = system / "aliases"
    table = system / "aliases.cdb"
    tree.alias("default", f"| fastforward -d {table}\n")
    box = tree.maildir("box")
    tree.alias("joe-box", "./box/\n")
    tree.control("concurrencylocal", "0\n")
    tree.start()
    aliases.write_text("joe: joe-box@here.example\n")
    for name in ("lib/newaliases", "newaliases"):
        table.unlink(missing_ok=True)
        call(name)
        assert table.exists()
    call("sendmail", "-t", "-i", stdin=b"To: joe@here.example\n\nbody\n")
    tree.wait_for(rb"info msg")
    # On hold, it is soon written down, and listed.
    until(lambda: b"\tlocal\tjoe@here.example\n" in call("mailq"))
    assert call("lib/mailq") == call("mailq")
    tree.control("concurrencylocal", None)
    tree.run("reload")
    tree.wait_for(rb"end msg", count=2)
    (message,) = (box / "new").iterdir()
    assert b"\nTo: joe@here.example\n" in message.read_bytes()
    assert tree.stop() == 0
