"""The spawner frame: checks, slots, output, strays, its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsend.sysio import clock
from tests.classicpeer import FakeSend

# A spawner whose deliveries run the sender as a shell command; `die` as recipient
# makes the start fail. The report says status and output.
SCRIPT = """
import os, sys
from qsend.core.errors import TempFail
from qsend.core.model import Letter
from qsend.sysio.classicspawner import serve

class Hooks:
    def start(self, job, message, output):
        if job.recip == b"die@h":
            raise OSError(12, "no memory")
        if job.recip == b"later@h":
            raise TempFail("Not now. (#4.9.9)")
        env = {**os.environ, "LOCAL": job.recip[:job.at], "HOST": job.recip[job.at+1:]}
        dup2 = os.POSIX_SPAWN_DUP2
        actions = [(dup2, message, 0), (dup2, output, 1), (dup2, output, 2)]
        argv = ["sh", "-c", job.sender]
        return os.posix_spawn("/bin/sh", argv, env, file_actions=actions)

    def report(self, status, output):
        letter = Letter.SUCCESS if status == 0 else Letter.DEFERRAL
        return letter, b"%d " % status + output

sys.exit(serve(Hooks(), limit=int(sys.argv[1]), output_max=int(sys.argv[2])))
"""
PATH = b"20/457"
Z, D, K = b"Z", b"D", b"K"


@pytest.fixture
def mess(tmp_path: Path) -> Path:
    directory = tmp_path / "mess"
    (directory / "20").mkdir(parents=True)
    (directory / "20/457").write_bytes(b"Subject: x\n\nbody\n")
    os.mkfifo(directory / "20/99")
    return directory


def spawner(mess: Path, limit: int = 120, output_max: int = 0) -> FakeSend:
    argv = [sys.executable, "-c", SCRIPT, str(limit), str(output_max)]
    return FakeSend(argv, cwd=mess, env={**os.environ, "PYTHONPATH": os.getcwd()})


@pytest.mark.parametrize("limit", [1, 120, 255])
def test_start_byte_is_the_limit(mess: Path, limit: int) -> None:
    with spawner(mess, limit) as send:
        assert send.start_byte == limit
        assert send.finish() == 0


def test_child_gets_message_on_0_and_report_on_1_and_2(mess: Path) -> None:
    with spawner(mess) as send:
        job = (
            b'cat; echo "$LOCAL|$HOST"; echo err >&2;'
            b" for fd in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$fd; done; true"
        )
        send.command(5, PATH, job, b"a@b@c")
        delnum, letter, text = send.report()
        assert (delnum, letter) == (5, K)
        lines = text.split(b"\n")
        assert lines[:5] == [b"0 Subject: x", b"", b"body", b"a@b|c", b"err"]
        assert len(lines[5:-1]) == 3
        assert lines[5].endswith(b"/mess/20/457")
        assert lines[6] == lines[7]
        assert lines[6].startswith(b"pipe:")


CHECKS = [
    (120, PATH, b"r@h", Z, b"#4.3.5"),
    (255, PATH, b"r@h", Z, b"#4.3.5"),
    (1, b"20/4a7", b"r@h", D, b"#5.3.5"),
    (1, b"/20/457", b"r@h", D, b"#5.3.5"),
    (1, b"../20/457", b"r@h", D, b"#5.3.5"),
    (1, b"20/../20/457", b"r@h", D, b"#5.3.5"),
    (1, b"", b"r@h", D, b"#5.3.5"),
    (1, b"20/" + b"0" * 97, b"r@h", D, b"#5.3.5"),
    (1, b"20/" + b"0" * 96, b"r@h", Z, b"#4.3.0"),
    (1, PATH, b"nobody", D, b"#5.1.3"),
    (1, PATH, b"", D, b"#5.1.3"),
    (1, b"20/458", b"r@h", Z, b"#4.3.0"),
    (1, b"20", b"r@h", Z, b"#4.3.5"),
    (1, b"20/99", b"r@h", Z, b"#4.3.5"),
    (1, PATH, b"die@h", Z, b"#4.3.0"),
    (1, PATH, b"later@h", Z, b"#4.9.9"),
    (1, PATH, b"r" * 70000 + b"@h", Z, b"#4.3.0"),
    # Which of two faults is told: qmail's order.
    (120, b"x", b"nobody", Z, b"#4.3.5"),
    (1, b"x", b"nobody", D, b"#5.3.5"),
    (1, b"20/458", b"nobody", D, b"#5.1.3"),
]


def test_check_table(mess: Path) -> None:
    with spawner(mess) as send:
        for delnum, path, recip, letter, code in CHECKS:
            send.command(delnum, path, b"echo ran", recip)
            got_delnum, got_letter, text = send.report()
            assert (got_delnum, got_letter) == (delnum, letter), (path, recip)
            assert text.endswith(b"(" + code + b")\n"), (path, recip)
        # None of it used up a slot.
        send.command(1, PATH, b"echo ran", b"r@h")
        assert send.report() == (1, K, b"0 ran\n")
        assert send.finish() == 0


@pytest.mark.root
def test_message_of_another_owner_is_deferred(mess: Path) -> None:
    os.chown(mess / "20/457", 12345, -1)
    with spawner(mess) as send:
        send.command(1, PATH, b"echo ran", b"r@h")
        delnum, letter, text = send.report()
        assert (delnum, letter) == (1, Z)
        assert b"#4.3.5" in text


def test_slot_in_use_is_refused_and_reports_come_out_of_order(mess: Path) -> None:
    os.mkfifo(mess / "gate")
    with spawner(mess) as send:
        send.command(0, PATH, b"read line <gate; echo $line", b"r@h")
        send.command(0, PATH, b"echo never", b"r@h")
        delnum, letter, text = send.report()
        assert (delnum, letter) == (0, Z)
        assert b"#4.3.5" in text
        send.command(1, PATH, b"echo first", b"r@h")
        assert send.report() == (1, K, b"0 first\n")
        (mess / "gate").write_text("second\n")
        assert send.report() == (0, K, b"0 second\n")
        send.command(0, PATH, b"echo again", b"r@h")
        assert send.report() == (0, K, b"0 again\n")


def test_many_at_once_are_each_reported_once(mess: Path) -> None:
    with spawner(mess, limit=255) as send:
        for delnum in range(255):
            send.command(delnum, PATH, b"echo %d" % delnum, b"r@h")
        reports = {send.report() for _ in range(255)}
        assert reports == {(n, K, b"0 %d\n" % n) for n in range(255)}


def test_commands_are_read_byte_by_byte(mess: Path) -> None:
    with spawner(mess) as send:
        for byte in b"\x02" + PATH + b"\0echo hi\0r@h\0":
            send.write(bytes((byte,)))
        assert send.report() == (2, K, b"0 hi\n")


@pytest.mark.parametrize(
    ("job", "letter", "text"),
    [
        (b"exit 111", Z, b"111 "),
        (b"kill -9 $$", Z, b"-9 "),
        (b"echo part; kill -TERM $$", Z, b"-15 part\n"),
        (b"exec >&- 2>&-; exit 3", Z, b"3 "),
        (b"printf 'a\\000b'", K, b"0 a"),
    ],
)
def test_status_and_output_reach_the_hook(
    mess: Path, job: bytes, letter: bytes, text: bytes
) -> None:
    with spawner(mess) as send:
        send.command(9, PATH, job, b"r@h")
        assert send.report() == (9, letter, text)


def test_child_that_closed_its_output_is_waited_for(mess: Path) -> None:
    os.mkfifo(mess / "gate")
    with spawner(mess) as send:
        send.command(0, PATH, b"exec >&- 2>&-; read x <gate; exit 7", b"r@h")
        send.command(1, PATH, b"echo other", b"r@h")
        assert send.report() == (1, K, b"0 other\n")
        assert send.is_silent()
        (mess / "gate").write_text("go\n")
        assert send.report() == (0, Z, b"7 ")


BIG = b"head -c %d /dev/zero | tr '\\0' a"


@pytest.mark.parametrize(
    ("size", "want"),
    [
        (2998, b"0 " + b"a" * 2998),
        (3000, b"0 " + b"a" * 3000),
        (3001, b"0 " + b"a" * 2966 + b"\nThe rest of the text was cut.\n"),
        (500000, b"0 " + b"a" * 2966 + b"\nThe rest of the text was cut.\n"),
    ],
)
def test_long_output_is_cut_with_a_note(mess: Path, size: int, want: bytes) -> None:
    with spawner(mess, output_max=3000) as send:
        send.command(1, PATH, BIG % size, b"r@h")
        assert send.report() == (1, K, want)


def test_output_is_whole_without_a_limit(mess: Path) -> None:
    with spawner(mess) as send:
        send.command(1, PATH, BIG % 200000, b"r@h")
        assert send.report() == (1, K, b"0 " + b"a" * 200000)


@pytest.fixture
def stray(mess: Path) -> Iterator[Path]:
    """Where a stray writes its pid; it is killed at the end."""
    file = mess / "stray.pid"
    yield file
    if file.exists():
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_stray_descendant_does_not_hold_the_slot(mess: Path, stray: Path) -> None:
    os.mkfifo(mess / "gate")
    job = (
        b"(read x <gate; echo late && echo alive >proof) & echo $! >stray.pid;"
        b" echo done"
    )
    with spawner(mess) as send:
        send.command(0, PATH, job, b"r@h")
        assert send.report() == (0, K, b"0 done\n")
        send.command(0, PATH, b"echo next", b"r@h")
        assert send.report() == (0, K, b"0 next\n")
        (mess / "gate").write_text("go\n")
        end = clock.mono() + 20
        while not (mess / "proof").exists():  # no SIGPIPE ended it
            assert clock.mono() < end
        send.command(1, PATH, b"echo last", b"r@h")
        assert send.report() == (1, K, b"0 last\n")
        assert send.is_silent()
        assert send.finish() == 0


def test_stray_that_never_stops_writing_delays_no_report(
    mess: Path, stray: Path
) -> None:
    job = b"yes & echo $! >stray.pid; exit 5"
    with spawner(mess) as send:
        send.command(0, PATH, job, b"r@h")
        delnum, letter, text = send.report()
        assert (delnum, letter, text[:2]) == (0, Z, b"5 ")
        send.command(1, PATH, b"echo next", b"r@h")
        assert send.report() == (1, K, b"0 next\n")
        assert send.finish() == 0


def test_end_of_commands_waits_for_the_last_child(mess: Path) -> None:
    os.mkfifo(mess / "gate")
    with spawner(mess) as send:
        send.command(0, PATH, b"read x <gate; echo end", b"r@h")
        send.command(1, PATH, b"echo one", b"r@h")
        assert send.report() == (1, K, b"0 one\n")
        send.write(b"\x03half a command")
        send.to_spawner.close()
        (mess / "gate").write_text("go\n")
        assert send.report() == (0, K, b"0 end\n")
        assert send.process.wait(20) == 0


def test_lost_send_lets_deliveries_end(mess: Path) -> None:
    os.mkfifo(mess / "gate")
    with spawner(mess) as send:
        send.command(0, PATH, b"read x <gate; echo end >proof; echo end", b"r@h")
        send.command(1, PATH, b"echo one", b"r@h")
        assert send.report() == (1, K, b"0 one\n")
        send.from_spawner.close()
        send.to_spawner.close()
        (mess / "gate").write_text("go\n")
        assert send.process.wait(20) == 0
        assert (mess / "proof").read_text() == "end\n"


def test_commands_from_a_file_are_served(mess: Path, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.write_bytes(b"\x01" + PATH + b"\0echo hi\0r@h\0")
    argv = ["/bin/sh", "-c", f'exec "$0" -c "$1" 7 0 <{commands}', sys.executable]
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    with FakeSend([*argv, SCRIPT], cwd=mess, env=env) as send:
        assert send.start_byte == 7
        assert send.report() == (1, K, b"0 hi\n")
        assert send.process.wait(20) == 0
