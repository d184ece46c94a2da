"""The scripts of daemontools' services: as a howto has them, and whatever the paths."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from qsend.formats.servicescripts import MARK, ScriptPlaces, render_rc, render_services

PLACES = ScriptPlaces(
    home="/var/qmail",
    logs="/var/log/qmail",
    host="mx.example",
    tools={
        name: f"/usr/local/bin/{name}"
        for name in ("multilog", "setuidgid", "softlimit", "tcpserver")
    },
    smtp_rules="/etc/tcp.smtp.cdb",
)


def test_services_are_those_of_a_howto() -> None:
    assert render_rc(PLACES) == (
        f"#!/bin/sh\n{MARK}"
        'exec env - PATH=/var/qmail/bin:"$PATH" \\\n'
        "qmail-start ./Maildir/\n"
    )
    files = render_services(PLACES)
    assert sorted(files) == [
        f"{name}/{run}"
        for name in ("qmail-pop3d", "qmail-send", "qmail-smtpd")
        for run in ("log/run", "run")
    ]
    assert files["qmail-send/run"] == f"#!/bin/sh\n{MARK}exec /var/qmail/rc\n"
    assert files["qmail-send/log/run"] == (
        f"#!/bin/sh\n{MARK}exec /usr/local/bin/setuidgid qmaill "
        "/usr/local/bin/multilog t s2500000 /var/log/qmail/qmail-send\n"
    )
    assert files["qmail-smtpd/run"] == (
        f"#!/bin/sh\n{MARK}"
        "QMAILDUID=`id -u qmaild`\n"
        "NOFILESGID=`id -g qmaild`\n"
        "exec /usr/local/bin/softlimit -m 80000000 \\\n"
        "/usr/local/bin/tcpserver -H -R -v -p -x /etc/tcp.smtp.cdb \\\n"
        "-u $QMAILDUID -g $NOFILESGID 0 smtp /var/qmail/bin/qmail-smtpd 2>&1\n"
    )
    assert files["qmail-pop3d/run"] == (
        f"#!/bin/sh\n{MARK}"
        "exec /usr/local/bin/softlimit -m 80000000 \\\n"
        "/usr/local/bin/tcpserver -H -R -v -X "
        "-x /var/qmail/control/tcp.pop3.cdb 0 pop3 \\\n"
        "/var/qmail/bin/qmail-popup mx.example \\\n"
        "/var/qmail/bin/checkpassword /var/qmail/bin/qmail-pop3d Maildir 2>&1\n"
    )


def test_any_path_and_default_delivery_reach_the_program(tmp_path: Path) -> None:
    home = tmp_path / 'it\'s a "home" $HOME `id`'
    (home / "bin").mkdir(parents=True)
    program = home / "bin/qmail-start"
    program.write_text('#!/bin/sh\nprintf "%s" "$1"\n')
    program.chmod(0o755)
    delivery = "|dot-forward .forward\n./Mail 'dir'/$x"
    places = replace(PLACES, home=str(home), default_delivery=delivery)
    rc = home / "rc"
    rc.write_text(render_rc(places))
    rc.chmod(0o755)
    run = home / "run"
    run.write_text(render_services(places)["qmail-send/run"])
    done = subprocess.run(["sh", str(run)], capture_output=True, check=True)
    assert done.stdout.decode() == delivery
