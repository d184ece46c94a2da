"""qsend setup --supervise: writes what is ours, keeps what is not, starts nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from pwd import getpwnam

import pytest

from qsend.cli.main import main
from tests.cli.test_setup import as_user, setup, snapshot

SERVICES = ("qmail-pop3d", "qmail-send", "qmail-smtpd")


@pytest.mark.root
def test_daemontools_services_are_made_once(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, logs = open_tmp / "home", open_tmp / "log/qmail"
    words = ("--supervise", "daemontools", "--logs", str(logs))
    assert setup(home, *words) == 0
    said = capsys.readouterr().out.splitlines()
    where = next(i for i, line in enumerate(said) if line.endswith("to run them:"))
    assert said[where] == (
        f"{home}/supervise has the services {' '.join(SERVICES)}; to run them:"
    )
    assert said[where + 1].startswith(f"  ln -s {home}/supervise/qmail-send /")
    assert "made control/: tcp.smtp tcp.smtp.cdb" in said
    uid = getpwnam("qmaill").pw_uid
    for name in SERVICES:
        service = home / "supervise" / name
        assert stat.S_IMODE(service.stat().st_mode) == 0o1755
        for run in (service / "run", service / "log/run", home / "rc"):
            assert stat.S_IMODE(run.stat().st_mode) == 0o755
        log = (logs / name).stat()
        assert (log.st_uid, stat.S_IMODE(log.st_mode)) == (uid, 0o750)
    first = snapshot(open_tmp)
    assert setup(home, *words) == 0
    assert snapshot(open_tmp) == first


@pytest.mark.root
def test_what_is_an_operators_own_stays(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, into, logs = (open_tmp / name for name in ("home", "services", "logs"))
    other = into / "qmail-smtpd"
    other.mkdir(parents=True)
    (other / "run").write_text("#!/bin/sh\nexec mine\n")
    (other / "down").touch()
    neighbour = into / "dnscache"
    neighbour.mkdir()
    (neighbour / "run").write_text("#!/bin/sh\n")
    (logs / "qmail-smtpd").mkdir(parents=True)
    home.mkdir()
    (home / "rc").write_text("#!/bin/sh\nexec qmail-start ./Mailbox\n")
    before = snapshot(neighbour)
    words = ["--supervise", "daemontools", "--into", str(into), "--logs", str(logs)]
    for _ in range(2):
        assert setup(home, *words) == 0
        said = capsys.readouterr().out
        for path in (other / "run", home / "rc"):
            assert f"kept {path}, which is not from here\n" in said
        assert f"kept {logs}/qmail-smtpd, which is not qmaill's" in said
        assert (other / "run").read_text() == "#!/bin/sh\nexec mine\n"
        assert (home / "rc").read_text().endswith("./Mailbox\n")
        assert (other / "down").exists()
        assert (other / "log/run").exists()
        assert other.stat().st_mode & stat.S_ISVTX
        assert snapshot(neighbour) == before
    # What was written by an older version is written anew.
    run = into / "qmail-send/run"
    wanted = run.read_text()
    run.write_text(wanted.replace("exec", "old"))
    run.chmod(0o700)
    assert setup(home, *words) == 0
    assert run.read_text() == wanted
    assert stat.S_IMODE(run.stat().st_mode) == 0o755


@pytest.mark.root
def test_rules_that_are_not_in_force_are_told(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_tmp / "home"
    (home / "control").mkdir(parents=True)
    (home / "control/tcp.smtp").write_text("127.:deny\n")
    words = ("--supervise", "daemontools", "--logs", str(open_tmp / "logs"))
    assert setup(home, *words) == 0
    assert "control/tcp.smtp is not in force yet: qsend tcprules smtp" in (
        capsys.readouterr().out
    )
    assert not (home / "control/tcp.smtp.cdb").exists()


@pytest.mark.root
def test_units_follow_the_controls(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, into = open_tmp / "home", open_tmp / "units"
    words = ("--supervise", "systemd", "--into", str(into))
    assert setup(home, *words) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"{into} has qsend.service qsend.socket; to run them:",
        "  systemctl daemon-reload",
        "  systemctl enable --now qsend.socket qsend.service",
    ]
    (home / "control/smtplisten").write_text("0.0.0.0:25\n")
    (home / "control/pop3listen").write_text("[::1]:110\n")
    assert setup(home, *words) == 0
    assert "enable --now qsend-network.socket qsend.socket" in capsys.readouterr().out
    network = (into / "qsend-network.socket").read_text()
    for address in ("0.0.0.0:25", "[::1]:110"):
        assert f"\nListenStream={address}\n" in network
    first = snapshot(into)
    (into / "other.service").write_text("[Unit]\n")
    assert setup(home, *words) == 0
    (into / "other.service").unlink()
    assert snapshot(into).keys() == first.keys()
    for name in ("smtplisten", "pop3listen"):
        (home / "control" / name).unlink()
    assert setup(home, *words) == 0
    assert f"removed {into}/qsend-network.socket: " in capsys.readouterr().out
    assert sorted(os.listdir(into)) == ["qsend.service", "qsend.socket"]
    # One that an operator wrote is no business of ours.
    (into / "qsend-network.socket").write_text("[Socket]\nListenStream=25\n")
    assert setup(home, *words) == 0
    assert (into / "qsend-network.socket").exists()


@pytest.mark.root
def test_home_that_cannot_stand_in_a_unit_is_told(
    open_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, into = open_tmp / "my home", open_tmp / "units"
    assert setup(home, "--supervise", "systemd", "--into", str(into)) == 100
    assert f"{home}: expected a home without blanks" in capsys.readouterr().err
    assert not into.exists()


def test_supervisors_are_for_root(
    open_tmp: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_tmp.chmod(0o777)
    home = str(open_tmp / "home")
    words = ["setup", "--home", home, "--me", "a.b", "--supervise", "systemd"]
    assert as_user(lambda: main(words)) == 100
    assert "--supervise is for root" in capfd.readouterr().err
    assert not os.path.exists(home)
