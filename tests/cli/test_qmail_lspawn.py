"""qmail-lspawn served by a fake send: real uids, a fake qmail-local."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsend.cli.qmail_lspawn import slots
from tests.classicpeer import FakeSend
from tests.localtree import ALIAS, made_accounts, make_home, write_users

# Numbers instead of this machine's accounts.
AS_ROOT = """
import sys
from qsend.cli import qmail_lspawn
from tests.localtree import made_accounts
qmail_lspawn.load_accounts = lambda single_user: made_accounts()
sys.exit(qmail_lspawn.main(sys.argv[1:]))
"""
AS_ONE_USER = """
import os, sys
from qsend.cli.qmail_lspawn import main
os.setgroups([])
os.setgid(67301)
os.setuid(67201)
sys.exit(main(sys.argv[1:]))
"""
PATH = b"5/5"
K, Z, D = b"K", b"Z", b"D"

# $6 is ext, as in: -- user home local dash ext domain sender default
FAKE_LOCAL = r"""#!/bin/sh
case "$6" in
    exit*)    echo said; exit "${6#exit}" ;;
    killed)   kill -9 $$ ;;
    argv)     for word; do printf '%s|' "$word"; done ;;
    ids)      printf '%s %s %s %s' "$(id -u)" "$(id -g)" "$(id -G)" "$(pwd)" ;;
    message)  cat; echo heard >&2 ;;
    fds)      exec ls /proc/self/fd ;;
    long)     head -c 3001 /dev/zero | tr '\0' a ;;
    longest)  head -c 3000 /dev/zero | tr '\0' a ;;
    sigpipe)  grep -q '^SigIgn:.*0$' /proc/self/status && printf default ;;
    *)        printf 'for %s' "$2" ;;
esac
"""


@pytest.fixture
def home(open_tmp: Path) -> Path:
    """Users ann, zero (uid 0) and que (qmailq), message 5, a fake qmail-local."""
    accounts = made_accounts()
    make_home(open_tmp, accounts)
    users = {
        "ann": (67201, 67301),
        "zero": (0, 0),
        "que": (accounts.qmailq.uid, 67301),
    }
    write_users(open_tmp, users)
    message = open_tmp / "queue/mess/5/5"
    message.write_bytes(b"the message\n")
    os.chown(message, accounts.qmailq.uid, -1)
    for name in ("control", "bin"):
        (open_tmp / name).mkdir()
        (open_tmp / name).chmod(0o755)
    local = open_tmp / "bin/qmail-local"
    local.write_text(FAKE_LOCAL)
    local.chmod(0o755)
    return open_tmp


@contextmanager
def lspawn(
    home: Path, script: str = AS_ROOT, wrapper: tuple[str, ...] = ()
) -> Iterator[FakeSend]:
    env = {**os.environ, "QSEND_HOME": str(home), "PYTHONPATH": os.getcwd()}
    argv = [*wrapper, sys.executable, "-c", script, "./Default"]
    with FakeSend(argv, cwd="/", env=env) as send:
        yield send


def one(send: FakeSend, recip: bytes, path: bytes = PATH) -> tuple[bytes, bytes]:
    """Letter and text of one delivery."""
    send.command(3, path, b"s@x", recip)
    delnum, letter, text = send.report()
    assert delnum == 3
    return letter, text


pytestmark = pytest.mark.root

FDS = b"0\n1\n2\n3\n"
"""What it has, and the directory that ls reads them from."""

ROWS = [
    (b"exit0", K, b"said\n"),
    (b"exit111", Z, b"said\n"),
    (b"exit71", Z, b"said\n"),
    (b"exit100", D, b"said\n"),
    (b"exit1", D, b"said\n"),
    (b"exit115", Z, None),
    (b"exit126", Z, None),
    (b"killed", Z, None),
    (b"message", K, b"the message\nheard\n"),
    (b"fds", K, FDS),
    (b"sigpipe", K, b"default"),
    (b"ids", K, None),
    (
        b"argv",
        K,
        b"--|ann|/home/ann|Ann-argv|-|argv|at.example|s@x|./Default|",
    ),
    (b"longest", K, b"a" * 3000),
]


def test_report_table_and_what_qmail_local_gets(home: Path) -> None:
    with lspawn(home) as send:
        assert send.start_byte == 120
        for slot, (ext, _letter, _text) in enumerate(ROWS):
            send.command(slot, PATH, b"s@x", b"Ann-%b@at.example" % ext)
        reports = {report[0]: report[1:] for report in (send.report() for _ in ROWS)}
        assert send.finish() == 0
    for slot, (ext, letter, text) in enumerate(ROWS):
        got_letter, got_text = reports[slot]
        assert got_letter == letter, ext
        if ext == b"ids":
            assert got_text == b"67201 67301 67301 %b" % os.fsencode(home)
        elif text is None:
            assert got_text.endswith(b".0)\n"), ext
        else:
            assert got_text == text, ext


def test_starts_without_descriptor_2_as_qmail_start_leaves_it(home: Path) -> None:
    with lspawn(home, wrapper=("/bin/sh", "-c", 'exec "$@" 2>&-', "sh")) as send:
        assert one(send, b"ann-fds@h") == (K, FDS)
        assert one(send, b"ann-message@h") == (K, b"the message\nheard\n")
        (home / "bin/qmail-local").unlink()
        assert one(send, b"ann@h")[0] == Z


def test_long_output_is_cut_with_a_note(home: Path) -> None:
    with lspawn(home) as send:
        letter, text = one(send, b"ann-long@h")
    assert letter == K
    assert len(text) <= 3000
    assert text.startswith(b"a" * 2900)
    assert text.endswith(b"\n")


def test_check_table_starts_nothing(home: Path) -> None:
    os.chown(home / "queue/mess/5/5", 0, 0)
    with lspawn(home) as send:
        for recip, path, letter, code in (
            (b"ann", PATH, D, b"#5.1.3"),
            (b"ann@h", b"x", D, b"#5.3.5"),
            (b"ann@h", b"5/6", Z, b"#4.3.0"),
            (b"ann@h", PATH, Z, b"#4.3.5"),
        ):
            got_letter, text = one(send, recip, path)
            assert (got_letter, code in text) == (letter, True)


def test_empty_local_part_is_success_without_a_text(home: Path) -> None:
    with lspawn(home) as send:
        assert one(send, b"@h") == (K, b"")


def test_others_are_alias_and_some_are_refused(home: Path) -> None:
    with lspawn(home) as send:
        assert one(send, b"bill@h") == (K, b"for alias")
        assert one(send, b"root-ids@h")[1] == b"for alias"
        for recip in (b"zero@h", b"que-ids@h"):
            letter, text = one(send, recip)
            assert (letter, b"#4.3.5" in text) == (Z, True)
        write_users(home, {"ids": (ALIAS.uid, ALIAS.gid)})
        letter, text = one(send, b"ids-ids@h")
        assert (letter, text.split()[0]) == (K, b"%d" % ALIAS.uid)


def test_trouble_to_find_the_user_defers(home: Path) -> None:
    (home / "users/cdb").write_bytes(b"broken")
    with lspawn(home) as send:
        letter, text = one(send, b"ann@h")
        assert (letter, b"users/cdb" in text) == (Z, True)
        (home / "users/cdb").unlink()
        (home / "alias").rmdir()
        letter, text = one(send, b"bill@h")
        assert (letter, b"alias" in text) == (Z, True)


@pytest.mark.parametrize("how", ["missing", "not-executable", "no-interpreter"])
def test_qmail_local_that_cannot_be_run_defers(home: Path, how: str) -> None:
    local = home / "bin/qmail-local"
    if how == "missing":
        local.unlink()
    elif how == "not-executable":
        local.chmod(0o644)
    else:
        local.write_text("#!/no/such/interpreter\n")
    with lspawn(home) as send:
        letter, text = one(send, b"ann@h")
    assert (letter, b"qmail-local" in text) == (Z, True)


def test_ordinary_user_serves_only_itself(home: Path) -> None:
    for path in (home / "queue", home / "queue/mess", home / "queue/mess/5"):
        path.chmod(0o755)
    for path in (home / "queue/mess", home / "queue/mess/5/5"):
        os.chown(path, 67201, 67301)
    write_users(home, {"ann": (67201, 67301), "bob": (67202, 67302)})
    with lspawn(home, AS_ONE_USER) as send:
        assert one(send, b"ann@h") == (K, b"for ann")
        assert one(send, b"bill@h") == (K, b"for alias")
        letter, text = one(send, b"bob@h")
        assert (letter, b"#4.3.5" in text) == (Z, True)


def test_without_an_argument_or_a_queue_it_ends(tmp_path: Path) -> None:
    env = {**os.environ, "QSEND_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    for argv, code, words in (
        ([], 100, b"usage"),
        (["./Mailbox"], 111, b"unable to start"),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", AS_ROOT, *argv],
            env=env,
            check=False,
            capture_output=True,
        )
        assert ended.returncode == code
        assert words in ended.stderr
        assert ended.stderr.count(b"\n") == 1
        assert ended.stdout == b""


@pytest.mark.parametrize(
    ("content", "want"),
    [(None, 120), (b"10\n", 120), (b"200\n", 200), (b"1000\n", 255), (b"x\n", 120)],
)
def test_slots(tmp_path: Path, content: bytes | None, want: int) -> None:
    (tmp_path / "control").mkdir()
    if content is not None:
        (tmp_path / "control/concurrencylocal").write_bytes(content)
    assert slots(str(tmp_path)) == want
