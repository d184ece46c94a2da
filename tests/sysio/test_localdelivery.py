from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from qsend.core.errors import PermFail, QsendError, TempFail
from qsend.core.model import DelId, Letter, Ownership, User
from qsend.formats.control import Durability
from qsend.formats.delivery import ChildDelivery, Report
from qsend.sysio.localdelivery import Deliverer, Settings

MESSAGE = b"Subject: x\n\nFrom y\nz"
DTLINE = b"Delivered-To: joe@h.org\n"


class Queue:
    """Takes what is forwarded, or refuses it."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, bytes, list[bytes]]] = []
        self.error: QsendError | None = None
        self.environ: Mapping[str, str] = {}

    def inject(
        self,
        chunks: Iterable[bytes],
        sender: bytes,
        recips: Sequence[bytes],
        environ: Mapping[str, str],
    ) -> int:
        self.environ = environ
        if self.error is not None:
            raise self.error
        self.taken.append((b"".join(chunks), sender, list(recips)))
        return 4242


class Place:
    """A home, a queue, and deliveries into them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.queue = Queue()
        self.deliverer = Deliverer(
            Settings(
                patrn=0o002,
                default_delivery=b"./Mailbox\n",
                durability=Durability.QMAIL,
                base={b"PATH": b"/usr/bin:/bin"},
                collects=True,
            ),
            self.queue.inject,
        )

    def write(self, text: str, name: str = ".qmail", mode: int = 0o600) -> None:
        (self.home / name).write_text(text)
        (self.home / name).chmod(mode)

    def deliver(
        self,
        message: bytes = MESSAGE,
        *,
        sender: bytes = b"s@t",
        local: bytes = b"joe",
        dash: bytes = b"",
        ext: bytes = b"",
        instructions: bytes | None = None,
    ) -> Report:
        path = self.home.parent / "message"
        path.write_bytes(message)
        user = User(
            name=b"joe",
            uid=os.getuid(),
            gid=os.getgid(),
            home=os.fsencode(self.home),
            dash=dash,
            ext=ext,
            ownership=Ownership.UID,
            instructions=instructions,
        )
        delivery = ChildDelivery(
            delid=DelId(7), user=user, local=local, domain=b"h.org", sender=sender
        )
        fd = os.open(path, os.O_RDONLY)
        try:
            return self.deliverer.deliver(delivery, fd)
        finally:
            os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    before = len(os.listdir("/proc/self/fd"))
    yield Place(home)
    assert len(os.listdir("/proc/self/fd")) == before


def test_delivery_default_goes_to_the_mbox(place: Place) -> None:
    report = place.deliver()
    assert report == Report(delid=DelId(7), letter=Letter.SUCCESS, text=b"did 1+0+0\n")
    lines = (place.home / "Mailbox").read_bytes().split(b"\n", 1)
    assert lines[0].startswith(b"From s@t ")
    assert lines[1] == (
        b"Return-Path: <s@t>\n" + DTLINE + b"Subject: x\n\n>From y\nz\n\n"
    )


def test_delivery_carries_out_all_lines_in_order(place: Place) -> None:
    for name in ("tmp", "new", "cur"):
        (place.home / "Maildir" / name).mkdir(parents=True)
    place.write(
        "# all\n./Maildir/\n&a@b\n|wc -c\n./box\nc@d\n|echo $NEWSENDER $DEFAULT. 1>&2\n"
    )
    report = place.deliver()
    assert report.letter is Letter.SUCCESS
    size = b"%d" % len(MESSAGE)
    assert report.text == size + b"\ns@t .\ndid 2+2+2\nqp 4242\n"
    assert place.queue.taken == [(DTLINE + MESSAGE, b"s@t", [b"a@b", b"c@d"])]
    (stored,) = (place.home / "Maildir/new").iterdir()
    assert stored.read_bytes() == b"Return-Path: <s@t>\n" + DTLINE + MESSAGE


def test_delivery_by_instructions_reads_no_file(place: Place) -> None:
    place.write("|exit 100\n")
    place.write("|exit 100\n", ".qmail-default")
    text = b"./box\n&a@b\n|exit 99\n./other\n"
    report = place.deliver(instructions=text)
    assert report.text == b"did 1+1+1\nqp 4242\n"
    assert place.deliver(dash=b"-", ext=b"x", instructions=text) == report
    assert (place.home / "box").exists()
    assert not (place.home / "other").exists()


ENDS = [
    ("./box\n|exit 99\n&x@y\n|false\n", Letter.SUCCESS, b"did 1+0+1\n", []),
    ("&x@y\n|exit 99\n./box\n", Letter.SUCCESS, b"did 0+1+1\nqp 4242\n", [b"x@y"]),
    ("&x@y\n|echo no; exit 100\n", Letter.FAILURE, b"no\n", []),
    ("&x@y\n|exit 64\n", Letter.FAILURE, b"", []),
    ("&x@y\n|echo later; exit 111\n", Letter.DEFERRAL, b"later\n", []),
    ("&x@y\n|exit 1\n", Letter.DEFERRAL, b"", []),
    ("|not-a-program-at-all 2>&-\n", Letter.DEFERRAL, b"", []),
    ("#\n", Letter.SUCCESS, b"did 0+0+0\n", []),
]


@pytest.mark.parametrize(("lines", "letter", "text", "recips"), ENDS)
def test_delivery_program_codes(
    place: Place, lines: str, letter: Letter, text: bytes, recips: list[bytes]
) -> None:
    place.write(lines)
    report = place.deliver()
    assert (report.letter, report.text) == (letter, text)
    assert [taken[2] for taken in place.queue.taken] == ([recips] if recips else [])


def test_delivery_program_killed_says_so(place: Place) -> None:
    place.write("|echo a; kill -9 $$\n./box\n")
    report = place.deliver()
    assert report.letter is Letter.DEFERRAL
    assert report.text == b"a\nThe program was killed by signal 9. (#4.3.0)\n"
    assert not (place.home / "box").exists()


def test_delivery_refusal_comes_after_what_stands_before_it(place: Place) -> None:
    place.write("./box\n+list\nx@y\n./other\n")
    report = place.deliver()
    assert report.letter is Letter.DEFERRAL
    assert b"#4.7.0" in report.text
    assert (place.home / "box").exists()
    assert not (place.home / "other").exists()
    assert place.queue.taken == []


def test_delivery_executable_file_only_forwards(place: Place) -> None:
    place.write("x@y\n", mode=0o700)
    assert place.deliver().text == b"did 0+1+0\nqp 4242\n"
    place.write("./box\n", mode=0o700)
    assert place.deliver().letter is Letter.DEFERRAL
    place.write("", mode=0o700)
    assert place.deliver().text == b"did 1+0+0\n"


def test_delivery_loop_is_a_failure(place: Place) -> None:
    report = place.deliver(b"A: b\n" + DTLINE + b"\nx\n")
    assert report.letter is Letter.FAILURE
    assert b"#5.4.6" in report.text
    assert place.deliver(DTLINE.lower() + b"\nx\n").letter is Letter.SUCCESS
    assert place.deliver(b"A: b\n\n" + DTLINE).letter is Letter.SUCCESS


def test_delivery_loop_is_found_far_down_the_header(place: Place) -> None:
    header = b"X: " + b"y" * 200_000 + b"\n"
    assert place.deliver(header + DTLINE + b"\n").letter is Letter.FAILURE


def test_delivery_without_mailbox_is_a_failure(place: Place) -> None:
    report = place.deliver(local=b"joe-none", dash=b"-", ext=b"none")
    assert report.letter is Letter.FAILURE
    assert b"#5.1.1" in report.text


@pytest.mark.parametrize(
    ("owners", "sender", "want"),
    [
        ([], b"s@t", b"s@t"),
        (["-owner"], b"s@t", b"joe-L-owner@h.org"),
        (["-owner", "-owner-default"], b"s@t", b"joe-L-owner-@h.org-@[]"),
        (["-owner", "-owner-default"], b"", b""),
    ],
)
def test_delivery_forwards_from_the_owner(
    place: Place, owners: list[str], sender: bytes, want: bytes
) -> None:
    place.write("x@y\n|echo $NEWSENDER\n", ".qmail-default")
    for owner in owners:
        place.write("", f".qmail-l{owner}")
    report = place.deliver(local=b"joe-L", dash=b"-", ext=b"L", sender=sender)
    assert report.text == want + b"\ndid 0+1+1\nqp 4242\n"
    assert place.queue.taken == [
        (b"Delivered-To: joe-L@h.org\n" + MESSAGE, want, [b"x@y"])
    ]


@pytest.mark.parametrize(
    ("error", "letter"),
    [
        (PermFail("qq permanent problem (#5.3.0)"), Letter.FAILURE),
        (TempFail("qq temporary problem (#4.3.0)"), Letter.DEFERRAL),
    ],
)
def test_delivery_queue_trouble_is_reported(
    place: Place, error: QsendError, letter: Letter
) -> None:
    place.write("x@y\n")
    place.queue.error = error
    report = place.deliver()
    assert report.letter is letter
    assert report.text == b"Unable to forward message: %b.\n" % str(error).encode()
    # A program that queues instead of qmail-queue is told what others are told.
    assert place.queue.environ["DTLINE"] == DTLINE.decode()
    assert place.queue.environ["PATH"] == "/usr/bin:/bin"


def test_delivery_home_trouble_comes_before_everything(place: Place) -> None:
    place.home.chmod(0o702)
    report = place.deliver(DTLINE + b"\n")
    assert report.letter is Letter.DEFERRAL
    assert b"#4.7.0" in report.text


def test_settle_waits_for_forwards_and_starts_nothing_more(place: Place) -> None:
    reached, go = threading.Event(), threading.Event()
    reports: list[Report] = []

    def slow(*_: object) -> int:
        reached.set()
        assert go.wait(10)
        return 1

    place.deliverer = Deliverer(
        Settings(
            patrn=0o002,
            default_delivery=b"x@y\n",
            durability=Durability.NONE,
            base={},
            collects=True,
        ),
        slow,
    )
    thread = threading.Thread(target=lambda: reports.append(place.deliver()))
    thread.start()
    assert reached.wait(10)
    assert not place.deliverer.settle(0)
    late = place.deliver()
    assert late.letter is Letter.DEFERRAL
    assert b"ending" in late.text
    go.set()
    assert place.deliverer.settle(10)
    thread.join(10)
    assert [report.letter for report in reports] == [Letter.SUCCESS]


def test_settle_does_not_wait_for_programs(place: Place) -> None:
    os.mkfifo(place.home / "pid")
    place.write("|echo $$ >pid; exec sleep 60\n./box\n")
    reports: list[Report] = []
    thread = threading.Thread(target=lambda: reports.append(place.deliver()))
    thread.start()
    pid = int((place.home / "pid").read_text())
    assert place.deliverer.settle(10)
    os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert [report.letter for report in reports] == [Letter.DEFERRAL]
    assert not (place.home / "box").exists()
