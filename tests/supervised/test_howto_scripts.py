"""The run scripts of a qmail howto, word by word, but for what softlimit is given."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.formats.servicescripts import LIMIT_BYTES
from tests.daemontools import STAMPED, Services
from tests.tree.harness import Tree, until

pytestmark = pytest.mark.root

DIRECTORIES = """\
mkdir -p /var/qmail/supervise/qmail-send/log
mkdir -p /var/qmail/supervise/qmail-smtpd/log
chmod +t /var/qmail/supervise/qmail-send
chmod +t /var/qmail/supervise/qmail-smtpd
mkdir -p /var/log/qmail/qmail-send
mkdir -p /var/log/qmail/qmail-smtpd
chown -R qmaill /var/log/qmail
"""
SEND = """\
#!/bin/sh
exec /var/qmail/rc
"""
LOG = """\
#!/bin/sh
exec /usr/local/bin/setuidgid qmaill /usr/local/bin/multilog t s2500000 \
/var/log/qmail/{}
"""
SMTPD = """\
#!/bin/sh
QMAILDUID=`id -u qmaild`
NOFILESGID=`id -g qmaild`
exec /usr/local/bin/softlimit -m 2000000 \\
/usr/local/bin/tcpserver -H -R -v -p -x /etc/tcp.smtp.cdb \\
-u $QMAILDUID -g $NOFILESGID 0 smtp {}/var/qmail/bin/qmail-smtpd 2>&1
"""
RC = """\
#!/bin/sh
exec env - PATH="/var/qmail/bin:$PATH" \\
qmail-start '|dot-forward .forward
./Maildir/'
"""
RULES = '127.0.0.1:allow,RELAYCLIENT=""\n127.0.0.66:deny\n:allow\n'
TCPRULES = "tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp < /etc/tcp.smtp"
CLIENT = """\
import smtplib, sys
source, recip, size = sys.argv[1:]
with smtplib.SMTP("127.0.0.1", 25, "c.example", 60, (source, 0)) as smtp:
    message = b"Subject: by tcpserver\\r\\n\\r\\n" + (b"x" * 70 + b"\\r\\n") * int(size)
    print(smtp.sendmail("a@b.example", [recip], message))
"""
LOGS = "/var/log/qmail"


def write(tree: Tree, name: str, text: str) -> None:
    path = tree.home / name
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def howto(tree: Tree, open_tmp: Path) -> Iterator[Services]:
    """The services of the howto, linked and up."""
    with Services(open_tmp / "service", (open_tmp / "stage", tree.home)) as services:
        services.shell(DIRECTORIES)
        write(tree, "supervise/qmail-send/run", SEND)
        for name in ("qmail-send", "qmail-smtpd"):
            write(tree, f"supervise/{name}/log/run", LOG.format(name))
        write(tree, "supervise/qmail-smtpd/run", smtpd(""))
        write(tree, "rc", RC)
        services.run("tee", "/etc/tcp.smtp", stdin=RULES.encode())
        services.shell(TCPRULES)
        tree.maildir()
        tree.alias("box", "./Maildir/\n")
        services.shell(f"ln -s /var/qmail/supervise/* {services.directory}/")
        for name in ("qmail-send", "qmail-smtpd"):
            services.wait_stat(name, rb": up \(pid ")
        services.wait_log(f"{LOGS}/qmail-send", rb"status: local 0/10 remote 0/20\n")
        services.wait_log(f"{LOGS}/qmail-smtpd", rb"tcpserver: status: 0/40\n")
        yield services


def smtpd(checks: str) -> str:
    """qmail-smtpd's run script; the limit is one for Python."""
    return SMTPD.format(checks).replace("2000000", str(LIMIT_BYTES))


def send(
    services: Services, source: str, recip: str, size: int = 1
) -> tuple[int, bytes]:
    """Send one message; the client's exit code, and what it had to say."""
    command = [sys.executable, "-c", CLIENT, source, recip, str(size)]
    done = services.run(*command, check=False)
    return done.returncode, done.stdout + done.stderr


def test_mail_comes_in_and_is_logged(howto: Services, tree: Tree) -> None:
    assert b"qmail-send" in howto.shell("ps auxww | grep qmail")
    # Of a megabyte; the limit of softlimit leaves room for it.
    assert send(howto, "127.0.0.1", "box@here.example", 15000) == (0, b"{}\n")
    lines = howto.wait_log(f"{LOGS}/qmail-send", rb"end msg \d+\n")
    assert re.search(rb"(?m)^delivery 1: success: did_1\+0\+0/$", lines)
    [path] = (tree.home / "alias/Maildir/new").iterdir()
    assert b"Received: from unknown (HELO c.example) (127.0.0.1)" in path.read_bytes()
    # RELAYCLIENT is the rule's.
    assert send(howto, "127.0.0.1", "a@far.example")[0] == 0
    code, said = send(howto, "127.0.0.9", "a@far.example")
    assert code == 1
    assert b"553" in said
    # Who is denied is not talked to.
    assert send(howto, "127.0.0.66", "box@here.example")[0] == 1
    lines = howto.wait_log(f"{LOGS}/qmail-smtpd", rb"tcpserver: end \d+ status ", 4)
    for word in (rb"ok \d+ :127.0.0.1:25 :127.0.0.1::\d+", rb"deny \d+ "):
        assert re.search(b"(?m)^tcpserver: " + word, lines), lines


def test_log_is_what_analysers_of_multilog_read(howto: Services) -> None:
    send(howto, "127.0.0.1", "box@here.example")
    howto.wait_log(f"{LOGS}/qmail-send", rb"end msg \d+\n")
    current = howto.run("cat", f"{LOGS}/qmail-send/current").stdout
    lines = current.splitlines()
    assert len(STAMPED.findall(current)) == len(lines)
    assert howto.shell(f"stat -c '%U %a' {LOGS}/qmail-send/current") == b"qmaill 644\n"
    # tai64nlocal puts a date in the place of every stamp.
    dated = howto.run("tai64nlocal", stdin=current).stdout.splitlines()
    for line, shown in zip(lines, dated, strict=True):
        date, time, rest = shown.split(b" ", 2)
        assert re.fullmatch(rb"\d{4}-\d\d-\d\d", date)
        assert re.fullmatch(rb"\d\d:\d\d:\d\d\.\d{9}", time)
        assert line.split(b" ", 1)[1] == rest


def test_signals_of_svc(howto: Services, tree: Tree) -> None:
    log = f"{LOGS}/qmail-send"
    # HUP: new controls.
    tree.control("concurrencylocal", "7\n")
    howto.svc("h", "qmail-send")
    howto.wait_log(log, rb"reread controls: generation 2\n")
    howto.wait_log(log, rb"status: local 0/7 remote 0/20\n")
    # ALRM: everything is due.
    tree.alias("later", "|exit 111\n")
    send(howto, "127.0.0.1", "later@here.example")
    howto.wait_log(log, rb"delivery \d+: deferral: ")
    assert b"later@here.example" in howto.shell("/var/qmail/bin/qmail-qread")
    assert b"messages in queue: 1\n" in howto.shell("/var/qmail/bin/qmail-qstat")
    tree.alias("later", "./Maildir/\n")
    howto.svc("a", "qmail-send")
    howto.wait_log(log, rb"delivery \d+: success: did_1\+0\+0/\n")
    # TERM, and supervise starts it again.
    pid = howto.wait_stat("qmail-send", rb"\(pid (\d+)\)")[1]
    howto.svc("t", "qmail-send")
    howto.wait_log(log, rb"status: exiting\n(.*\n)*status: local 0/7")
    assert howto.wait_stat("qmail-send", rb": up \(pid (\d+)\)")[1] != pid
    # Down, and mail waits at its client or with smtpd's; then up again.
    howto.svc("d", "qmail-send", "qmail-smtpd")
    howto.wait_stat("qmail-send", rb": down \d+ seconds, normally up")
    howto.wait_stat("qmail-smtpd", rb": down ")
    assert send(howto, "127.0.0.1", "box@here.example")[0] == 1
    howto.svc("u", "qmail-send", "qmail-smtpd")
    howto.wait_stat("qmail-send", rb": up ")
    howto.wait_log(f"{LOGS}/qmail-smtpd", rb"tcpserver: status: 0/40\n(.*\n)*.*0/40\n")
    howto.wait_log(log, rb"status: local 0/7 remote 0/20\n", 3)
    until(lambda: send(howto, "127.0.0.1", "box@here.example")[0] == 0)


def test_rules_are_in_force_when_they_are_made(howto: Services) -> None:
    assert send(howto, "127.0.0.9", "a@far.example")[0] == 1
    rules = RULES.replace("127.0.0.1:", "127.0.0.9:").encode()
    howto.run("tee", "/etc/tcp.smtp", stdin=rules)
    # By tcprules and by ours, which makes the same.
    howto.shell(TCPRULES)
    assert send(howto, "127.0.0.9", "a@far.example")[0] == 0
    howto.run("tee", "/etc/tcp.smtp", stdin=RULES.encode())
    howto.shell(f"/var/qmail/bin/qsend {TCPRULES}")
    assert send(howto, "127.0.0.9", "a@far.example")[0] == 1


# tcpserver looks for this machine's own name; that there is none is said at once.
BLOCKED = {"one.example": "127.0.0.11", "relays.mail-abuse.org": "127.0.0.12"}


@pytest.fixture
def block_lists(howto: Services, open_tmp: Path) -> Path:
    """rbldnsd at the name server's address of the stage, with two lists."""
    directory = open_tmp / "lists"
    directory.mkdir(mode=0o755)
    command = ["rbldnsd", "-n", "-q", "-b", "127.0.0.53", "-w", str(directory)]
    for name, address in BLOCKED.items():
        (directory / name).write_text(f":127.0.0.2:Listed in {name}\n{address}\n")
        command.append(f"{name}:ip4set:{name}")
    (directory / "none").write_text("192.0.2.1\n")
    command.append("in-addr.arpa:ip4set:none")
    howto.run("tee", "/etc/resolv.conf", stdin=b"nameserver 127.0.0.53\n")
    service = directory / "service"
    service.mkdir()
    (service / "run").write_text(f"#!/bin/sh\nexec {' '.join(command)} 2>&1\n")
    (service / "run").chmod(0o755)
    howto.link(str(service))
    howto.wait_stat("service", rb": up \(pid \d+\) [1-9]")
    return directory


@pytest.mark.parametrize(
    ("checks", "listed"),
    [
        ("rblsmtpd ", []),
        ("rblsmtpd rblsmtpd -rrelays.mail-abuse.org ", ["relays.mail-abuse.org"]),
        (
            "rblsmtpd -r one.example rblsmtpd -rrelays.mail-abuse.org ",
            ["one.example", "relays.mail-abuse.org"],
        ),
    ],
)
def test_rblsmtpd_in_front(
    howto: Services, tree: Tree, block_lists: Path, checks: str, listed: list[str]
) -> None:
    write(tree, "supervise/qmail-smtpd/run", smtpd(checks))
    howto.svc("t", "qmail-smtpd")
    howto.wait_log(f"{LOGS}/qmail-smtpd", rb"tcpserver: status: 0/40\n(.*\n)*.*0/40\n")
    for name, address in BLOCKED.items():
        code, said = send(howto, address, "box@here.example")
        if name in listed:
            assert code == 1
            assert f"451, b'Listed in {name}".encode() in said
        else:
            assert (code, said) == (0, b"{}\n")
    assert send(howto, "127.0.0.1", "box@here.example") == (0, b"{}\n")
