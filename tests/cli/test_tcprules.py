"""qsend tcprules, compared with Debian's tcprules and tcprulescheck."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, Done

RULES = b"""\
# as in any /etc/tcp.smtp
127.:allow,RELAYCLIENT=""
192.168.1.10-12:allow,RELAYCLIENT="@fix.me",DATABYTES="0"
10.2-3.:deny
joe@192.0.2.1:allow,A="ident"
joe@=mail.example.org:allow,A="ident and name"
192.0.2.1:deny
=mail.example.org:allow,A='by "name"'
=.example.org:allow,RBLSMTPD=""
=:allow,A="some name"
:deny,RBLSMTPD="-go away"
"""
CLIENTS = [
    {"TCPREMOTEIP": "127.0.0.1"},
    {"TCPREMOTEIP": "192.168.1.10"},
    {"TCPREMOTEIP": "192.168.1.13"},
    {"TCPREMOTEIP": "10.3.0.1"},
    {"TCPREMOTEIP": "192.0.2.1"},
    {"TCPREMOTEIP": "192.0.2.1", "TCPREMOTEINFO": "joe"},
    {"TCPREMOTEIP": "192.0.2.1", "TCPREMOTEINFO": "jim"},
    {
        "TCPREMOTEIP": "192.0.2.9",
        "TCPREMOTEINFO": "joe",
        "TCPREMOTEHOST": "mail.example.org",
    },
    {"TCPREMOTEIP": "192.0.2.9", "TCPREMOTEHOST": "mail.example.org"},
    {"TCPREMOTEIP": "192.0.2.9", "TCPREMOTEHOST": "a.b.example.org"},
    {"TCPREMOTEIP": "192.0.2.9", "TCPREMOTEHOST": "example.org"},
    {"TCPREMOTEIP": "192.0.2.9"},
    {"TCPREMOTEIP": "2001:db8::1"},
]


def run(
    *args: str | Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "qsend", "tcprules", *args],
        input=stdin,
        env={"PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )


def make(directory: Path, source: bytes) -> Path:
    cdb = directory / "rules.cdb"
    done = run(cdb, directory / "rules.tmp", stdin=source)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    return cdb


def test_database_is_read_by_tcprulescheck_and_answers_agree(tmp_path: Path) -> None:
    cdb = make(tmp_path, RULES)
    assert sorted(os.listdir(tmp_path)) == ["rules.cdb"]
    assert cdb.stat().st_mode & 0o777 == 0o644
    for client in CLIENTS:
        command = ["/usr/bin/tcprulescheck", str(cdb)]
        want = subprocess.run(command, env=client, capture_output=True, check=True)
        done = run("--check", cdb, env=client)
        assert (done.returncode, done.stdout) == (0, want.stdout), client


def test_database_of_tcprules_is_read(tmp_path: Path) -> None:
    cdb = tmp_path / "theirs.cdb"
    command = ["/usr/bin/tcprules", str(cdb), str(tmp_path / "theirs.tmp")]
    subprocess.run(command, input=RULES, check=True)
    assert make(tmp_path, RULES).read_bytes() == cdb.read_bytes()
    done = run("--check", cdb, "--ip", "10.2.3.4")
    assert done.stdout == b"rule 10.2.:\ndeny connection\n"
    done = run("--check", cdb, "--ip", "192.0.2.1", "--info", "joe", "--host", "x.y")
    assert done.stdout.startswith(b"rule joe@192.0.2.1:\nset environment variable A")


def test_list_gives_a_source_of_the_same_database(tmp_path: Path) -> None:
    cdb = make(tmp_path, RULES + b"[2001:db8::/32]:deny\n10.0.0.0/8:allow\n")
    before = cdb.read_bytes()
    listed = run("--list", cdb)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b'192.168.1.11:allow,RELAYCLIENT="@fix.me",DATABYTES="0"' in listed.stdout
    assert make(tmp_path, listed.stdout).read_bytes() == before


def test_networks_are_ours_alone(tmp_path: Path) -> None:
    cdb = make(tmp_path, b"[2001:db8::/32]:deny\n198.51.100.0/25:deny\n")
    for ip, rule in (("2001:db8::9", "2001:db8::/32"), ("198.51.100.1", None)):
        done = run("--check", cdb, "--ip", ip)
        assert done.stdout.endswith(b"deny connection\n")
        assert rule is None or f"rule {rule}:".encode() in done.stdout
        command = ["/usr/bin/tcprulescheck", str(cdb)]
        env = {"TCPREMOTEIP": ip}
        theirs = subprocess.run(command, env=env, capture_output=True, check=True)
        assert theirs.stdout == b"default:\nallow connection\n"
    assert run("--check", cdb, "--ip", "198.51.100.200").stdout.startswith(b"default:")


def test_bad_rule_is_told_and_the_old_database_stays(tmp_path: Path) -> None:
    cdb = make(tmp_path, b":allow\n")
    before = cdb.read_bytes()
    done = run(cdb, tmp_path / "tmp", stdin=b":allow\n\n1.2.3.4:alow\n")
    assert done.returncode == 100
    assert done.stderr == (
        b"qsend tcprules: standard input:3: expected allow or deny, found 'alow'\n"
    )
    assert cdb.read_bytes() == before
    assert os.listdir(tmp_path) == ["rules.cdb"]
    done = run(cdb, tmp_path / "tmp", stdin=b"#" * 70000 + b"\n")
    assert (done.returncode, b"longer than" in done.stderr) == (100, True)


def test_service_stands_for_its_files(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.mkdir()
    (control / "tcp.smtp").write_bytes(RULES)
    home = f"--home={tmp_path}"
    done = run(home, "smtp")
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(os.listdir(control)) == ["tcp.smtp", "tcp.smtp.cdb"]
    done = run(home, "--check", "smtp", "--ip", "10.2.3.4")
    assert done.stdout == b"rule 10.2.:\ndeny connection\n"
    (control / "tcp.smtp").write_bytes(b"x:y\n")
    done = run("smtp", env={"QSEND_HOME": str(tmp_path)})
    assert done.returncode == 100
    assert b"control/tcp.smtp:1: expected allow or deny" in done.stderr
    assert run(home, "--list", "smtp").returncode == 0
    assert run(home, "qmtp").returncode == 111


def test_ignored_line_is_warned_of(tmp_path: Path) -> None:
    done = run(tmp_path / "a", tmp_path / "b", stdin=b"127.0.0.1 allow\n")
    assert done.returncode == 0
    assert b"warning: standard input:1: has no colon and is ignored" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("/nonexistent/a", "/nonexistent/b"), 111, b"/nonexistent"),
        (("--check", "/nonexistent/a", "--ip", "::1"), 111, b"No such file"),
        (("--list", "/nonexistent/a"), 111, b"No such file"),
        (("--list", "/dev/null"), 111, b"not a constant database"),
        (("--check", "/dev/null", "--ip", "::1"), 111, b"not a constant database"),
        (("--check", "/dev/null"), 100, b"expected an IP address"),
        (("only",), 100, b"expected a service, CDB TMP"),
        (("a", "b", "--list"), 100, b"expected a service, CDB TMP"),
        (("a", "--list", "--check"), 100, b"exclude each other"),
    ],
)
def test_trouble(args: tuple[str, ...], code: int, words: bytes) -> None:
    done = run(*args)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert done.stdout == b""
