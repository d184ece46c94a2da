"""qsend setup: makes all that is missing, changes nothing that is there."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.cli.main import main
from qsend.core.model import Account
from qsend.sysio import launchers, queuemaker
from qsend.sysio.accounts import GROUPS, load_accounts
from qsend.sysio.fork import fork_child
from qsend.sysio.privilege import drop

UID = 64400


def setup(home: Path, *more: str) -> int:
    return main(["setup", "--home", str(home), "--me", "mx.a.example", *more])


def as_user(run: Callable[[], int]) -> int:
    """The exit code of `run` in a child with an ordinary uid."""

    def child() -> int:
        if os.getuid() == 0:
            drop(Account(uid=UID, gid=UID))
        # pytest's own files are closed here.
        with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as err:
            sys.stdout, sys.stderr = out, err
            return run()

    pid = fork_child(child, (), "setup")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def snapshot(home: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Everything below the home: mode, owner, group, content."""
    found = {}
    for path in (home, *sorted(home.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        name = str(path.relative_to(home))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


@pytest.mark.root
def test_root_setup_makes_the_tree_of_the_spec_and_is_idempotent(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_tmp / "deep/home"
    assert setup(home) == 0
    first = snapshot(home)
    said = capsys.readouterr().out.splitlines()
    assert "made control/: me defaultdomain plusdomain locals rcpthosts" in said
    accounts = load_accounts(single_user=False)
    assert queuemaker.verify(str(home), accounts) == []
    qmail = accounts.qmailq.gid
    table = {
        ".": (0o40755, 0, qmail),
        "control": (0o40755, 0, qmail),
        "users": (0o40755, 0, qmail),
        "run": (0o40755, 0, qmail),
        "run/send": (0o40700, accounts.qmails.uid, qmail),
        "run/milter": (0o40700, accounts.qmaild.uid, qmail),
        "bin": (0o40755, 0, qmail),
        "alias": (0o42755, accounts.alias.uid, qmail),
        "control/me": (0o100644, 0, qmail),
        "alias/.qmail-root": (0o100644, accounts.alias.uid, accounts.alias.gid),
        "alias/.qmail-postmaster": (0o100644, accounts.alias.uid, accounts.alias.gid),
        "alias/.qmail-mailer-daemon": (
            0o100644, accounts.alias.uid, accounts.alias.gid,
        ),
        "man": (0o40755, 0, qmail),
        "man/man8": (0o40755, 0, qmail),
        "man/man8/qmail-queue.8": (0o100644, 0, qmail),
        "man/man5/qmail-control.5": (0o100644, 0, qmail),
        "bin/qmail-queue": (0o100755, 0, qmail),
        "bin/qmail-lspawn": (0o100700, 0, qmail),
    }  # fmt: skip
    assert {name: first[name][:3] for name in table} == table
    assert first["control/defaultdomain"][3] == b"a.example\n"
    assert not any(mode & 0o4000 for mode, *_ in first.values())
    assert setup(home) == 0
    assert snapshot(home) == first
    assert "kept alias/" in capsys.readouterr().out


@pytest.mark.root
def test_setup_makes_accounts_without_shell_or_password(open_tmp: Path) -> None:
    assert setup(open_tmp / "home") == 0
    for name, group in GROUPS.items():
        entry = pwd.getpwnam(name)
        assert entry.pw_uid > 0
        assert entry.pw_shell.endswith(("nologin", "false"))
        want = "qmail" if name == "qmailr" else group
        assert grp.getgrgid(entry.pw_gid).gr_name == want
    shadow = dict(
        line.split(":")[:2] for line in Path("/etc/shadow").read_text().splitlines()
    )
    assert all(shadow[name][:1] in "!*" for name in GROUPS)


def test_single_user_setup_belongs_to_the_caller_and_is_idempotent(
    open_tmp: Path,
) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"
    assert as_user(lambda: setup(home)) == 0
    first = snapshot(home)
    uid = UID if os.getuid() == 0 else os.getuid()
    assert {owner for _, owner, _, _ in first.values()} == {uid}
    assert as_user(lambda: setup(home, "--single-user")) == 0
    assert snapshot(home) == first


def test_every_program_is_installed_with_its_page(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"
    assert as_user(lambda: setup(home)) == 0
    programs = set(os.listdir(home / "bin"))
    assert programs == set(launchers.PROGRAMS)
    assert programs <= {page.stem for page in home.glob("man/man?/*.?")}


def test_existing_files_are_never_changed(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"

    def prepare() -> int:
        (home / "control").mkdir(parents=True)
        (home / "alias").mkdir()
        (home / "control/me").write_text("other.example\n")
        (home / "control/locals").write_text("")
        (home / "alias/.qmail-root").write_text("&admin\n")
        return setup(home)

    assert as_user(prepare) == 0
    assert sorted(os.listdir(home / "control")) == ["locals", "me"]
    assert (home / "control/me").read_text() == "other.example\n"
    assert (home / "alias/.qmail-root").read_text() == "&admin\n"
    assert (home / "alias/.qmail-postmaster").read_text() == ""


@pytest.mark.root
def test_alias_may_be_a_link_of_the_owner_to_where_the_account_lives(
    open_tmp: Path,
) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"

    def prepare() -> int:
        home.mkdir()
        (open_tmp / "elsewhere").mkdir()
        (home / "alias").symlink_to(open_tmp / "elsewhere")
        return setup(home)

    assert as_user(prepare) == 0
    assert (open_tmp / "elsewhere/.qmail-root").exists()
    os.lchown(home / "alias", UID + 1, UID + 1)
    assert as_user(lambda: setup(home)) == 111


def test_a_default_of_the_aliases_goes_on_answering_for_all(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"

    def prepare() -> int:
        (home / "alias").mkdir(parents=True)
        (home / "alias/.qmail-default").write_text("&admin\n")
        return setup(home) or main(["check", "--home", str(home)])

    assert as_user(prepare) == 0
    assert os.listdir(home / "alias") == [".qmail-default"]


def test_wrong_modes_are_mended(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"
    assert as_user(lambda: setup(home)) == 0
    first = snapshot(home)
    for name in ("run", "alias", "queue/todo"):
        (home / name).chmod(0o711)
    assert as_user(lambda: setup(home)) == 0
    assert snapshot(home) == first


def test_directory_that_is_a_link_is_refused(
    open_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"

    def prepare() -> int:
        home.mkdir()
        (open_tmp / "elsewhere").mkdir()
        (home / "control").symlink_to(open_tmp / "elsewhere")
        return setup(home)

    assert as_user(prepare) == 111
    assert f"unable to make {home}/control: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--me", "localhost"], 100, "expected a full host name"),
        (["--mee", "a.b"], 100, "unrecognized arguments: --mee a.b"),
    ],
)
def test_wrong_usage_is_told(
    tmp_path: Path,
    argv: list[str],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["setup", "--home", str(tmp_path / "h"), *argv]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "h").exists()


@pytest.mark.root
def test_root_has_no_single_user_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(tmp_path / "h", "--single-user") == 100
    assert "not for root" in capsys.readouterr().err


def test_programs_start_in_any_environment(open_tmp: Path) -> None:
    open_tmp.chmod(0o777)
    home = open_tmp / "home"
    assert as_user(lambda: setup(home)) == 0
    for program in launchers.PROGRAMS:
        assert os.access(home / "bin" / program, os.R_OK)
    hostile = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "PATH": "/nowhere"}
    done = subprocess.run(
        [home / "bin/qmail-qstat"], env=hostile, capture_output=True, check=False
    )
    assert done.stdout.startswith(b"messages in queue: 0\n"), done.stderr
    done = subprocess.run(
        [home / "bin/newaliases", "--help"], env={}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    link = open_tmp / "maker"
    link.symlink_to(home / "bin/maildirmake")
    subprocess.run([link, open_tmp / "Maildir"], env={}, check=True)
    assert sorted(os.listdir(open_tmp / "Maildir")) == ["cur", "new", "tmp"]


@pytest.mark.parametrize("plant", ["link", "second name"])
def test_program_is_never_written_into_another_file(tmp_path: Path, plant: str) -> None:
    (tmp_path / "bin").mkdir()
    precious, new = tmp_path / "precious", tmp_path / "bin/sendmail.new"
    precious.write_text("old")
    if plant == "link":
        new.symlink_to(precious)
    else:
        new.hardlink_to(precious)
    me = Account(uid=os.getuid(), gid=os.getgid())
    launchers.make_launchers(str(tmp_path), me)
    assert precious.read_text() == "old"
    assert (tmp_path / "bin/sendmail").read_text().startswith("#!")
    assert not os.path.lexists(new)


@pytest.mark.root
def test_programs_of_another_mail_system_stay_beside_ours(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_tmp / "home"
    (home / "bin").mkdir(parents=True)
    queue, link = home / "bin/qmail-queue", home / "bin/sendmail"
    queue.write_bytes(b"\x7fELF theirs")
    queue.chmod(0o4711)
    link.symlink_to("/nowhere/sendmail")
    (home / "bin/vdelivermail").write_text("not ours")
    for is_first in (True, False):
        assert setup(home) == 0
        said = "kept as bin/NAME.before-qsend: sendmail qmail-queue\n"
        assert (said in capsys.readouterr().out) == is_first
        kept = home / "bin/qmail-queue.before-qsend"
        assert kept.read_bytes() == b"\x7fELF theirs"
        assert kept.stat().st_mode & 0o7777 == 0o4711
        assert os.readlink(f"{link}.before-qsend") == "/nowhere/sendmail"
        assert queue.stat().st_mode & 0o7777 == 0o755
        assert not link.is_symlink()
        assert (home / "bin/vdelivermail").read_text() == "not ours"


def test_python_with_a_long_path_is_started_by_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100) / "with blank"
    deep.mkdir(parents=True)
    python = deep / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    text = launchers.launcher("qmail-qstat", str(tmp_path))
    assert text.startswith("#!/bin/sh\n")
    program = tmp_path / "qmail-qstat"
    program.write_text(text)
    program.chmod(0o755)
    done = subprocess.run([program], env={}, capture_output=True, check=False)
    assert done.stderr.startswith(b"qmail-qstat: fatal: unable to read the queue")
    assert done.returncode == 111


def test_every_program_names_a_module_with_a_main() -> None:
    package = Path(launchers.__file__).parents[1] / "cli"
    for module, _ in launchers.PROGRAMS.values():
        assert "def main(" in (package / f"{module}.py").read_text()
