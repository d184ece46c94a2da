"""POP3 of a running tree, by a real client and by hostile ones."""

from __future__ import annotations

import ctypes
import fcntl
import os
import poplib
import re
import signal
import socket
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from qsend.sysio import clock
from tests.pop.conftest import (
    PASSWORD,
    PopTree,
    Raw,
    add_message,
    make_certificate,
    own,
    put_certificate,
)
from tests.tree.harness import until

pytestmark = pytest.mark.root

_libc = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438
REFUSED = b"-ERR [AUTH] authorization failed\r\n"
TEMPORARY = b"-ERR [SYS/TEMP] unable to check logins now; try again later\r\n"


def credentials(mailbox: str) -> bytes:
    return f"USER {mailbox}\r\nPASS {PASSWORD}\r\n".encode()


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.glob("Maildir/*/*")}


def test_delivered_mail_is_fetched_and_removed(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    recip = f"{mailbox}@here.example".encode()
    pop.tree.send([recip], b"Subject: hello\n\n.dot\nend\n")
    assert pop.tree.reports(recip)[0].startswith(b"success")
    with pop.session(mailbox) as client:
        [stored] = (open_tmp / mailbox / "Maildir/new").iterdir()
        assert client.stat() == (1, stored.stat().st_size)
        _, lines, _ = client.retr(1)
        assert lines == stored.read_bytes().splitlines()
        assert lines[-3:] == [b"", b".dot", b"end"]
        assert (
            client.uidl(1) == f"+OK 1 {stored.name}".encode() or len(stored.name) > 70
        )
        client.dele(1)
        client.quit()
    assert files(open_tmp / mailbox) == set()
    name = mailbox.encode()
    pop.tree.find(rb"(?m)^login: %b from 127\.0\.0\.1: accepted \(account\)$" % name)
    assert PASSWORD.encode() not in pop.tree.log


def test_wrong_passwords_are_refused_late_and_the_log_says_why(
    pop: PopTree, mailbox: str
) -> None:
    began_mono = clock.mono()
    with pop.client() as client:
        for name, secret in ((mailbox, "wrong"), ("no-such-user", "x")):
            client.user(name)
            with pytest.raises(poplib.error_proto, match=r"-ERR \[AUTH\]"):
                client.pass_(secret)
        assert clock.mono() - began_mono >= 2.0
        client.user(mailbox)
        client.encoding = "UTF-8"
        client.pass_(PASSWORD)
        client.quit()
    shown = re.escape(mailbox).encode()
    pop.tree.find(rb"(?m)^login: %b from 127.0.0.1: refused: wrong password$" % shown)
    pop.tree.find(rb"(?m)^login: no-such-user from 127.0.0.1: refused: unknown user")


def test_third_failure_of_a_connection_is_its_last(pop: PopTree) -> None:
    with Raw(pop.port) as raw:
        for _ in range(3):
            raw.ask(b"USER nobody-of-that-name")
            assert raw.ask(b"PASS x") == REFUSED
        assert raw.rest() == b""


def test_many_failures_slow_an_address_down(pop: PopTree, mailbox: str) -> None:
    raws = [Raw(pop.port) for _ in range(12)]
    for raw in raws:
        raw.send(b"USER a\r\nPASS b\r\n")
    assert [raw.line() for raw in raws] == [b"+OK \r\n"] * 12
    assert [raw.line() for raw in raws] == [REFUSED] * 12
    for raw in raws:
        raw.send(credentials(mailbox))
    # The first has half a minute to wait; there is no room behind it.
    answers = [(raw.line(), raw.line())[1] for raw in raws[1:]]
    assert all(b"[LOGIN-DELAY]" in answer for answer in answers)
    pop.tree.find(rb"too many failures; not looked at")
    for raw in raws:
        raw.close()


@pytest.mark.parametrize("how", ["stls", "tls"])
def test_tls_with_a_checked_certificate(
    pop: PopTree, mailbox: str, open_tmp: Path, how: str
) -> None:
    add_message(open_tmp / mailbox, mailbox, "new/1.a", b"S: x\n\n" + b"y" * 200_000)
    with pop.client(tls=how == "tls") as client:
        assert ("STLS" in client.capa()) == (how == "stls")
        if how == "stls":
            client.stls(pop.context())
            assert "STLS" not in client.capa()
        client.encoding = "UTF-8"
        client.user(mailbox)
        client.pass_(PASSWORD)
        # poplib takes no line as long as this.
        assert client.uidl(1) == b"+OK 1 1.a"
        assert client.top(1, 0)[1] == [b"S: x", b""]
        client.quit()


def test_passwords_in_clear_can_be_forbidden(pop: PopTree, mailbox: str) -> None:
    with pop.session(mailbox) as client:
        client.quit()
    pop.tree.control("pop3plain", "0\n")
    pop.tree.run("reload")
    pop.tree.find(rb"reread controls: generation 2\n")

    def is_in_force() -> bool:
        with pop.client() as client:
            return "USER" not in client.capa()

    until(is_in_force)
    with Raw(pop.port) as raw:
        assert raw.ask(b"USER " + mailbox.encode()).startswith(b"-ERR [AUTH] ")
        assert raw.ask(b"PASS " + PASSWORD.encode()).startswith(b"-ERR [AUTH] ")
        assert raw.ask(b"AUTH PLAIN AGEAYg==").startswith(b"-ERR ")
        raw.ask(b"STLS")
        raw.start_tls()
        raw.send(credentials(mailbox))
        assert [raw.line(), raw.line()] == [b"+OK \r\n", b"+OK \r\n"]
        assert raw.ask(b"QUIT") == b"+OK \r\n"
    with pop.client(tls=True) as client:
        assert "USER" in client.capa()
        client.encoding = "UTF-8"
        client.user(mailbox)
        client.pass_(PASSWORD)
        client.quit()


def test_what_comes_in_the_clear_after_stls_is_dropped(
    pop: PopTree, mailbox: str
) -> None:
    with Raw(pop.port) as raw:
        raw.send(b"STLS\r\nUSER %b\r\nPASS x\r\nQUIT\r\n" % mailbox.encode())
        assert raw.line().startswith(b"+OK")
        raw.start_tls()
        assert raw.ask(b"PASS x") == b"-ERR USER first\r\n"
        raw.send(credentials(mailbox))
        assert [raw.line(), raw.line()] == [b"+OK \r\n", b"+OK \r\n"]
        assert raw.ask(b"QUIT") == b"+OK \r\n"


def test_user_said_in_the_clear_does_not_count_inside_tls(
    pop: PopTree, mailbox: str
) -> None:
    with Raw(pop.port) as raw:
        raw.ask(b"USER " + mailbox.encode())
        raw.ask(b"STLS")
        raw.start_tls()
        assert raw.ask(b"PASS x") == b"-ERR USER first\r\n"


def test_whole_session_sent_at_once_is_served(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    add_message(open_tmp / mailbox, mailbox, "new/1.a")
    with Raw(pop.port) as raw:
        raw.send(credentials(mailbox) + b"STAT\r\nDELE 1\r\nQUIT\r\n")
        raw.half_close()
        assert raw.rest() == b"+OK \r\n+OK \r\n+OK 1 17\r\n+OK \r\n+OK \r\n"
    assert files(open_tmp / mailbox) == set()


def test_client_that_vanishes_changes_nothing(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    add_message(open_tmp / mailbox, mailbox, "new/1.a")
    with Raw(pop.port) as raw:
        raw.send(credentials(mailbox) + b"DELE 1\r\n")
        assert [raw.line() for _ in range(3)] == [b"+OK \r\n"] * 3
    until(lambda: pop.tree.pids("qmail-popsession") == [])
    assert files(open_tmp / mailbox) == {"Maildir/new/1.a"}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\1\2\xff" * 100 + b"\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\n" * 50,
        b"USER\r\nPASS\r\nAPOP\r\nSTLS x\r\n",
        b"USER a\0b\r\nPASS \0\r\n",
        b"APOP a b\r\n",
    ],
)
def test_garbage_is_answered_and_harms_nobody(
    pop: PopTree, mailbox: str, garbage: bytes
) -> None:
    with Raw(pop.port) as raw:
        raw.send(garbage + b"QUIT\r\n")
        assert raw.rest()
    with pop.session(mailbox) as client:
        client.quit()


@pytest.mark.parametrize("where", ["before", "after"])
def test_line_without_end_ends_the_session(
    pop: PopTree, mailbox: str, where: str
) -> None:
    with Raw(pop.port) as raw:
        if where == "after":
            raw.send(credentials(mailbox))
            assert [raw.line(), raw.line()] == [b"+OK \r\n"] * 2
        raw.send(b"x" * 5000)
        assert raw.line() == b"-ERR line too long\r\n"


def test_client_that_does_not_log_in_is_left(unstarted: PopTree) -> None:
    patch = "from qsend.sysio import popgate; popgate.AUTHORIZATION_S = 0.5"
    unstarted.tree.start(patch=patch)
    with Raw(unstarted.port) as raw:
        assert raw.greeting.startswith(b"+OK <")
        assert is_cut_off(raw)
    with socket.create_connection(("127.0.0.1", unstarted.tls_port), 60) as mute:
        assert mute.recv(1) == b""


def is_cut_off(raw: Raw) -> bool:
    try:
        return raw.rest() == b""
    except ConnectionResetError:
        return True


def test_silent_session_is_left(unstarted: PopTree, mailbox: str) -> None:
    unstarted.tree.control("timeoutpop3d", "1\n")
    unstarted.tree.start()
    with Raw(unstarted.port) as raw:
        raw.send(credentials(mailbox))
        assert [raw.line(), raw.line()] == [b"+OK \r\n"] * 2
        assert is_cut_off(raw)
    until(lambda: unstarted.tree.pids("qmail-popsession") == [])


def test_client_that_never_reads_is_left_and_costs_little(
    unstarted: PopTree, mailbox: str, open_tmp: Path
) -> None:
    body = b"Subject: large\n\n" + b"x" * 70 + b"\n" + b"line of text\n" * 2_000_000
    add_message(open_tmp / mailbox, mailbox, "new/1.a", body)
    unstarted.tree.control("timeoutpop3d", "2\n")
    unstarted.tree.start()
    with Raw(unstarted.port) as raw:
        raw.send(credentials(mailbox) + b"RETR 1\r\n")
        assert [raw.line(), raw.line()] == [b"+OK \r\n"] * 2
        [pid] = unstarted.tree.pids("qmail-pop3d")
        until(lambda: unstarted.tree.pids("qmail-popsession") == [])
        assert psutil.Process(pid).memory_info().rss < 100 << 20


def test_sessions_are_limited_by_address(unstarted: PopTree, mailbox: str) -> None:
    unstarted.tree.control("concurrencypop3dperip", "2\n")
    unstarted.tree.start()
    with Raw(unstarted.port) as one, Raw(unstarted.port), Raw(unstarted.port) as third:
        assert third.greeting.startswith(b"-ERR [SYS/TEMP] too many sessions")
        assert third.rest() == b""
        assert one.ask(b"QUIT") == b"+OK \r\n"
        one.close()
        until(lambda: accepts(unstarted.port))
    with socket.create_connection(("::1", unstarted.port), 60) as other:
        assert other.recv(3) == b"+OK"


def accepts(port: int) -> bool:
    with Raw(port) as raw:
        return raw.greeting.startswith(b"+OK")


def test_account_without_a_maildir_is_told_so(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    (open_tmp / mailbox / "Maildir").rename(open_tmp / mailbox / "Elsewhere")
    with Raw(pop.port) as raw:
        raw.send(credentials(mailbox))
        raw.line()
        assert raw.line() == b"-ERR this user has no $HOME/Maildir\r\n"
        assert raw.rest() == b""
    pop.tree.find(rb"warning: pop3 session of %b: unable to enter" % mailbox.encode())


def test_two_sessions_on_one_maildir_harm_neither_each_other_nor_the_mail(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    home = open_tmp / mailbox
    for name in "abc":
        add_message(home, mailbox, f"new/{name}", b"Subject: %b\n\n" % name.encode())
    with pop.session(mailbox) as one, pop.session(mailbox) as other:
        add_message(home, mailbox, "new/d", b"Subject: d\n\n")
        one.dele(2)
        one.quit()
        assert files(home) == {"Maildir/cur/a:2,", "Maildir/cur/c:2,", "Maildir/new/d"}
        assert other.retr(1)[1] == [b"Subject: a", b""]
        with pytest.raises(poplib.error_proto, match="unable to open"):
            other.retr(2)
        assert other.retr(3)[1] == [b"Subject: c", b""]
        other.dele(2)
        other.dele(3)
        assert other.quit().startswith(b"+OK")
    assert files(home) == {"Maildir/cur/a:2,", "Maildir/new/d"}


def test_five_thousand_messages_are_served_quickly(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    home = open_tmp / mailbox
    for number in range(5000):
        (home / f"Maildir/new/{number}.P1.h").write_bytes(b"Subject: x\n\nbody\n")
    own(home, mailbox)
    began_mono = clock.mono()
    with pop.session(mailbox) as client:
        assert len(client.list()[1]) == len(set(client.uidl()[1])) == 5000
        client.quit()
    with Raw(pop.port) as raw:
        numbers = range(1, 5001)
        raw.send(credentials(mailbox))
        raw.send(b"".join(b"RETR %d\r\nDELE %d\r\n" % (n, n) for n in numbers))
        raw.send(b"QUIT\r\n")
        answer = raw.rest()
    # 3 s with two idle cores; a quadratic step would take minutes.
    assert clock.mono() - began_mono < 60
    assert answer.count(b"\r\nbody\r\n.\r\n") == 5000
    assert files(home) == set()


def test_system_accounts_need_their_control(unstarted: PopTree, mailbox: str) -> None:
    unstarted.tree.control("systemlogins", None)
    unstarted.tree.start()
    with Raw(unstarted.port) as raw:
        raw.send(credentials(mailbox))
        assert [raw.line(), raw.line()] == [b"+OK \r\n", REFUSED]
        unstarted.tree.control("systemlogins", "1\n")
        unstarted.tree.signal(signal.SIGHUP)
        unstarted.tree.wait_for(b"reread controls: generation 2")
        until(lambda: raw_login(unstarted.port, mailbox) == b"+OK \r\n")


def raw_login(port: int, mailbox: str) -> bytes:
    with Raw(port) as raw:
        raw.send(credentials(mailbox))
        raw.line()
        return raw.line()


def test_certificate_is_replaced_at_hup_and_a_bad_one_is_not_taken(
    pop: PopTree, mailbox: str, tmp_path: Path
) -> None:
    new = tmp_path / "new.pem"
    pem = make_certificate(new)
    put_certificate(pop.tree, pem[: pem.index(b"-----BEGIN PRIVATE")])
    pop.tree.signal(signal.SIGHUP)
    pop.tree.wait_for(rb"control/servercert\.pem: has no PRIVATE KEY")
    with pop.client(tls=True) as client:
        client.quit()
    put_certificate(pop.tree, pem)
    pop.tree.signal(signal.SIGHUP)
    pop.tree.wait_for(b"reread controls: generation 2")
    renewed = PopTree(
        tree=pop.tree, port=pop.port, tls_port=pop.tls_port, certificate=new
    )

    def is_new() -> bool:
        try:
            with renewed.client(tls=True) as client:
                client.quit()
        except OSError:
            return False
        return True

    until(is_new)
    assert b"PRIVATE KEY-----" not in pop.tree.log


def test_other_listeners_need_a_new_start(pop: PopTree) -> None:
    pop.tree.control("pop3listen", f"127.0.0.1:{pop.port}\n")
    pop.tree.signal(signal.SIGHUP)
    pop.tree.wait_for(
        b"warning: control/pop3listen has changed; that needs a new start"
    )
    assert accepts(pop.port)


def test_address_in_use_stops_the_start_with_its_name(unstarted: PopTree) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        unstarted.tree.control("pop3listen", f"127.0.0.1:{port}\n")
        unstarted.tree.start(until=b"")
        assert unstarted.tree.wait() == 111
    want = b"cannot start: unable to listen on 127.0.0.1:%d: Address already in use"
    assert want % port in unstarted.tree.log


def test_without_pop3listen_nothing_listens_and_the_tree_is_as_before(
    unstarted: PopTree,
) -> None:
    unstarted.tree.control("pop3listen", None)
    unstarted.tree.start()
    assert (
        unstarted.tree.pids("qmail-login") == unstarted.tree.pids("qmail-pop3d") == []
    )
    with pytest.raises(ConnectionRefusedError):
        Raw(unstarted.port)


def has_unread(pid: int) -> bool:
    """Whether a process has been sent something that it has not read."""
    process = os.pidfd_open(pid)
    try:
        sockets = (
            int(fd.name)
            for fd in Path(f"/proc/{pid}/fd").iterdir()
            if os.readlink(fd).startswith("socket:")
        )
        return any(_unread_bytes(process, fd) > 0 for fd in sockets)
    finally:
        os.close(process)


def _unread_bytes(process: int, fd: int) -> int:
    ours = _libc.syscall(_PIDFD_GETFD, process, fd, 0)
    assert ours >= 0, os.strerror(ctypes.get_errno())
    try:
        found = fcntl.ioctl(ours, termios.FIONREAD, bytes(4))
    except OSError:
        return 0  # it listens
    finally:
        os.close(ours)
    return int.from_bytes(found, sys.byteorder)


@pytest.mark.parametrize("role", ["qmail-login", "qmail-lookup"])
def test_sessions_outlive_the_process_that_judges_and_logins_wait_for_a_new_one(
    pop: PopTree, mailbox: str, role: str
) -> None:
    with pop.session(mailbox) as client:
        [pid] = pop.tree.pids(role)
        process = psutil.Process(pid)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        with Raw(pop.port) as raw:
            raw.send(credentials(mailbox))
            assert raw.line() == b"+OK \r\n"
            until(lambda: has_unread(pid))
            process.kill()
            assert raw.line() == TEMPORARY
            pop.tree.wait_for(rb"warning: lost %b" % role.encode())
        until(lambda: raw_login(pop.port, mailbox) == b"+OK \r\n")
        client.noop()
        client.quit()


def test_killed_listener_is_replaced_and_its_sessions_change_nothing(
    pop: PopTree, mailbox: str, open_tmp: Path
) -> None:
    add_message(open_tmp / mailbox, mailbox, "new/1.a")
    with pop.session(mailbox) as client:
        client.dele(1)
        [pid] = pop.tree.pids("qmail-pop3d")
        psutil.Process(pid).kill()
        pop.tree.wait_for(rb"warning: lost qmail-pop3d")
        with pytest.raises((poplib.error_proto, OSError)):
            client.quit()
    assert raw_login(pop.port, mailbox) == b"+OK \r\n"
    assert files(open_tmp / mailbox) == {"Maildir/new/1.a"}


def test_stop_ends_sessions_and_leaves_nobody(pop: PopTree, mailbox: str) -> None:
    with pop.session(mailbox):
        family = pop.tree.family()
        assert pop.tree.stop() == 0
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []


def test_password_is_in_no_log_title_or_environment(pop: PopTree, mailbox: str) -> None:
    with pop.session(mailbox) as client:
        secret = PASSWORD.encode()
        for each in pop.tree.family():
            for name in ("cmdline", "environ"):
                with suppress(ProcessLookupError):  # it has just ended
                    assert secret not in Path(f"/proc/{each.pid}/{name}").read_bytes()
        client.quit()
    assert pop.tree.stop() == 0
    assert secret not in pop.tree.log


def test_check_finds_an_exposed_certificate(unstarted: PopTree) -> None:
    assert unstarted.tree.run("check").returncode == 0
    (unstarted.tree.home / "control/servercert.pem").chmod(0o644)
    done = unstarted.tree.run("check", check=False)
    assert b"control/servercert.pem: is secret; expected mode 0600" in done.stdout
    key = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519"], check=True, capture_output=True
    ).stdout
    pem = unstarted.certificate.read_bytes() + key
    put_certificate(unstarted.tree, pem)
    done = unstarted.tree.run("check", check=False)
    assert b"servercert.pem: certificate and key cannot be used" in done.stdout
