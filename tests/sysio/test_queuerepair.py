"""Repairs: a restored queue on a disk that can lose power, cut at every step."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from qsend.core.errors import TempFail
from qsend.core.model import SPLIT, Account, MessId
from qsend.core.repair import GONE, NO_SENDER, OSSIFIED_S
from qsend.formats.layout import Role
from qsend.sysio.queuerepair import Repairer, Survey
from tests.fakedisk import QUEUE, FakeDisk
from tests.fakes import FakeQueue

OWNERS = {role: Account(uid=0, gid=0) for role in Role}
LATER = 10_000
S4 = frozenset({"mess", "intd", "todo"})
STATES = {
    "deferred": frozenset({"mess", "info", "local", "remote"}),
    "bouncing": frozenset({"mess", "info", "bounce"}),
    "queued": S4,
    "half": S4 | {"info", "remote"},
    "over": frozenset({"mess", "info"}),
    "linked": frozenset({"mess", "todo"}),
    "young": frozenset({"mess", "intd"}),
}


def content(kind: str, tag: str) -> bytes:
    """What a file of a message holds; every one tells whose it is."""
    name = tag.encode()
    return {
        "mess": b"Received: x\n\n%b\n" % name,
        "intd": b"u0\0p1\0F%b@x\0Tr@y\0" % name,
        "todo": b"u0\0p1\0F%b@x\0Tr@y\0" % name,
        "info": b"F%b@x\0" % name,
        "local": b"T%b@here\0" % name,
        "remote": b"D%b@there\0Tz@there\0" % name,
        "bounce": b"<%b@there>:\nno\n\n" % name,
    }[kind]


@dataclass
class Restored:
    """A queue whose messages have each other's numbers; `kinds` by message name."""

    queue: FakeQueue = field(default_factory=FakeQueue)
    kinds: dict[str, frozenset[str]] = field(default_factory=dict)
    numbers: dict[str, MessId] = field(default_factory=dict)

    def add(self, tag: str, kinds: frozenset[str]) -> MessId:
        """A message as the queue has it."""
        messid = self.queue.inject(content("mess", tag), None)
        for kind in kinds - {"mess"}:
            self.queue.put(kind, messid, content(kind, tag))
        self.kinds[tag] = kinds
        self.numbers[tag] = messid
        return messid

    def rename(self, tag: str, number: int, part: str | None = None) -> None:
        """Give a message another name, in another subdirectory."""
        old = self.numbers[tag]
        disk, dirs = self.queue.disk, self.queue.dirs
        for kind in self.kinds[tag]:
            is_split = kind in ("mess", "info", "local", "remote")
            here = f"{number % SPLIT}" if part is None else part
            where = f"{kind}/{here}" if is_split else kind
            # By way of a name that nobody looks at: the number may be in use.
            disk.rename(
                str(old),
                f"{number}.{tag}",
                src_dir_fd=dirs.of(kind, old),
                dst_dir_fd=dirs.fd(where),
            )

    def settle(self) -> None:
        """The last part of the renaming; all of it durable."""
        disk, dirs = self.queue.disk, self.queue.dirs
        for path in disk.files():
            directory, _, name = path.rpartition("/")
            if re.fullmatch(r"\d+\.[a-z]+", name) and directory != "pid":
                fd = dirs.fd(directory)
                disk.rename(name, name.split(".")[0], src_dir_fd=fd, dst_dir_fd=fd)
        disk.sync_all()


def restored() -> Restored:
    """All kinds of messages, each with the number of the next one, or of none."""
    made = Restored()
    for tag, kinds in STATES.items():
        made.add(tag, kinds)
    tags = list(STATES)
    for tag, other in zip(tags[:4], tags[1:4] + tags[:1], strict=True):
        made.rename(tag, made.numbers[other])
    made.rename("over", 5000)
    made.rename("linked", 6000, part="7")
    made.rename("young", 7000)
    made.settle()
    return made


def repaired(disk: FakeDisk, now: int | None = None, **options: bool) -> Survey:
    """Repair what is on a disk; what was found."""
    repairer = Repairer(QUEUE, OWNERS, disk)
    now = disk.now_ns // 10**9 + LATER if now is None else now
    survey = repairer.survey(now, **options)
    repairer.mend(survey, now)
    again = repairer.survey(now, **options)
    assert again.is_clean(), again
    repairer.close()
    return survey


def messages(disk: FakeDisk) -> dict[str, tuple[frozenset[str], bool]]:
    """Message to (its kinds, all in the right place under its inode number)."""
    found: dict[str, tuple[frozenset[str], bool]] = {}
    files = {path: data for path, data in disk.files().items() if "/" in path}
    queue = FakeQueue(disk)
    for path, data in files.items():
        kind, *_, name = path.split("/")
        if kind != "mess":
            continue
        tag = data.split(b"\n\n")[1].strip().decode()
        right = path == f"mess/{int(name) % SPLIT}/{name}"
        directory = queue.dirs.fd(path.rpartition("/")[0])
        right &= disk.stat(name, dir_fd=directory).st_ino == int(name)
        kinds = queue.present(MessId(int(name)))
        own = {
            other.split("/")[0]
            for other, data in files.items()
            if other.endswith(f"/{name}") and data == content(other.split("/")[0], tag)
        }
        right &= kinds == own
        found[tag] = (kinds, right)
    return found


def whole(made: Restored) -> dict[str, tuple[frozenset[str], bool]]:
    return {tag: (kinds, True) for tag, kinds in made.kinds.items()}


def test_restored_messages_get_their_inode_numbers_and_keep_their_files() -> None:
    made = restored()
    assert messages(made.queue.disk) != whole(made)
    survey = repaired(made.queue.disk)
    assert messages(made.queue.disk) == whole(made)
    assert len(survey.plan.renumbers) == len(STATES)
    assert [message.number for message in survey.plan.kept] == [7000]


def test_times_and_marks_survive_the_renaming() -> None:
    made = restored()
    disk, dirs = made.queue.disk, made.queue.dirs
    old = made.numbers["half"]  # now the number of the message "queued"
    number = made.numbers["queued"]
    fd = dirs.of("info", made.numbers["bouncing"])
    name = str(made.numbers["bouncing"])
    disk.utime(name, ns=(7, 7 * 10**9), dir_fd=fd)
    repaired(disk)
    # deferred had bouncing's number
    right = made.numbers["deferred"]
    found = disk.stat(str(right), dir_fd=dirs.of("info", right))
    assert found.st_mtime_ns == 7 * 10**9
    assert {old, number} <= set(made.numbers.values())


def cuts(disk: FakeDisk, since: int) -> Iterator[tuple[str, FakeDisk]]:
    """What every kill and every power cut of a repair leaves."""
    for count in range(since, len(disk.ops) + 1):
        yield f"kill after {count}", disk.after_kill(count)
        loose = disk.unsynced(count)
        yield f"power cut after {count}", disk.after_power_cut(count)
        for name, kept in (("odd", loose[1::2]), ("even", loose[::2])):
            if loose:
                yield f"{name} of {count}", disk.after_power_cut(count, kept)
        for each in loose:
            yield f"{each} of {count}", disk.after_power_cut(count, [each])


@pytest.mark.slow
def test_repair_cut_anywhere_and_repeated_loses_nothing() -> None:
    made = restored()
    disk = made.queue.disk
    since = len(disk.ops)
    repaired(disk)
    looked = 0
    for where, left in cuts(disk, since):
        repaired(left)
        assert messages(left) == whole(made), where
        looked += 1
    assert looked > 500


@pytest.mark.slow
def test_repair_cut_twice_loses_nothing() -> None:
    made = restored()
    disk = made.queue.disk
    since = len(disk.ops)
    repaired(disk)
    for count in range(since, len(disk.ops), 7):
        left = disk.after_power_cut(count)
        begun = len(left.ops)
        repaired(left)
        for again in range(begun, len(left.ops), 5):
            twice = left.after_power_cut(again)
            repaired(twice)
            assert messages(twice) == whole(made), (count, again)


def damaged() -> Restored:
    """One good message, and some that must go aside."""
    made = Restored()
    for tag in ("good", "envelope", "gone", "lost"):
        made.add(tag, STATES["queued"] if tag != "lost" else STATES["deferred"])
    queue, disk = made.queue, made.queue.disk
    queue.put("todo", made.numbers["envelope"], b"u0\0X\0")
    disk.unlink(
        str(made.numbers["gone"]), dir_fd=queue.dirs.of("mess", made.numbers["gone"])
    )
    disk.unlink(
        str(made.numbers["lost"]), dir_fd=queue.dirs.of("info", made.numbers["lost"])
    )
    disk.sync_all()
    return made


def aside(disk: FakeDisk) -> dict[str, set[str]]:
    """Reason to the kinds that were set aside for it, over all directories."""
    found: dict[str, set[str]] = {}
    files = disk.files()
    for path, data in files.items():
        if path.startswith("aside/") and path.endswith("/reason"):
            directory = path.removesuffix("reason")
            kinds = {
                p.removeprefix(directory) for p in files if p.startswith(directory)
            }
            found.setdefault(data.decode().strip(), set()).update(kinds - {"reason"})
    return found


WANTED = {
    "todo: unknown envelope record b'X'": set(S4),
    GONE: {"intd", "todo"},
    NO_SENDER: {"mess", "local", "remote"},
}


def test_damaged_messages_go_aside_with_their_reason() -> None:
    made = damaged()
    disk = made.queue.disk
    repaired(disk)
    assert aside(disk) == WANTED
    assert messages(disk) == {"good": (STATES["queued"], True)}


@pytest.mark.slow
def test_setting_aside_cut_anywhere_keeps_every_file() -> None:
    made = damaged()
    disk = made.queue.disk
    since = len(disk.ops)
    repaired(disk)
    for where, left in cuts(disk, since):
        repaired(left)
        found = aside(left)
        for reason, kinds in WANTED.items():
            assert found.get(reason, set()) >= kinds, where
        found_whole = messages(left)
        assert found_whole.pop("good") == (STATES["queued"], True)
        # What lies whole in aside may be left in mess, for the sweep.
        assert all(kinds <= {"mess", "intd"} for kinds, _ in found_whole.values()), (
            where
        )


def test_garbage_goes_when_it_is_old_or_asked_for() -> None:
    made = Restored()
    messid = made.add("young", STATES["young"])
    disk = made.queue.disk
    pid = made.queue.dirs.fd("pid")
    disk.close(disk.open("77.1.1", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=pid))
    disk.sync_all()
    now = disk.now_ns // 10**9
    assert [m.number for m in repaired(disk, now).plan.kept] == [messid]
    copy = disk.after_kill()
    survey = repaired(copy, now, take_orphans=True)
    assert [each.number for each in survey.plan.removes] == [messid]
    assert survey.old_pid == ["pid/77.1.1"]
    assert copy.files() == {}
    assert repaired(disk, now + OSSIFIED_S + 5).old_pid == ["pid/77.1.1"]
    assert disk.files() == {}


def test_removal_that_was_cut_off_is_finished() -> None:
    made = Restored()
    messid = made.add("deferred", STATES["deferred"])
    made.queue.put("intd", messid, content("intd", "deferred"))
    survey = repaired(made.queue.disk)
    assert [file.path for file in survey.plan.drops] == [f"intd/{messid}"]
    assert messages(made.queue.disk) == {"deferred": (STATES["deferred"], True)}


@pytest.mark.parametrize("part", ["0", "22", "40", "100"])
def test_messages_of_another_split_are_moved(part: str) -> None:
    made = Restored()
    made.add("deferred", STATES["deferred"])
    made.add("queued", STATES["queued"])
    for kind in ("mess", "info", "local", "remote"):
        if int(part) >= SPLIT:
            made.queue.disk.mkdir(f"{kind}/{part}")
    for tag, messid in made.numbers.items():
        made.rename(tag, messid, part=part)
    made.settle()
    survey = repaired(made.queue.disk)
    assert messages(made.queue.disk) == whole(made)
    assert len(survey.parts) == (4 if int(part) >= SPLIT else 0)


def test_envelopes_in_subdirectories_are_moved_up() -> None:
    made = Restored()
    messid = made.add("queued", STATES["queued"])
    disk, dirs = made.queue.disk, made.queue.dirs
    for kind in ("intd", "todo"):
        disk.mkdir(f"{kind}/{messid % SPLIT}")
        disk.rename(
            str(messid),
            str(messid),
            src_dir_fd=dirs.fd(kind),
            dst_dir_fd=dirs.fd(f"{kind}/{messid % SPLIT}"),
        )
    disk.sync_all()
    repaired(disk)
    assert messages(disk) == whole(made)
    with pytest.raises(FileNotFoundError):
        disk.stat(f"todo/{messid % SPLIT}")


def test_two_files_of_one_number_are_kept_apart() -> None:
    made = Restored()
    made.add("deferred", STATES["deferred"])
    made.add("queued", frozenset({"mess"}))
    number = made.numbers["deferred"]
    made.rename("queued", number, part=str((number + 1) % SPLIT))
    made.settle()
    repaired(made.queue.disk)
    assert messages(made.queue.disk) == {"deferred": (STATES["deferred"], True)}
    assert aside(made.queue.disk) == {f"another file has the number {number}": {"mess"}}


def test_second_name_of_a_message_goes_aside_with_what_it_has() -> None:
    made = Restored()
    messid = made.add("deferred", STATES["deferred"])
    queue, disk = made.queue, made.queue.disk
    disk.link(
        str(messid),
        "5000",
        src_dir_fd=queue.dirs.of("mess", messid),
        dst_dir_fd=queue.dirs.of("mess", MessId(5000)),
    )
    queue.put("info", MessId(5000), content("info", "other"))
    disk.sync_all()
    repaired(disk)
    assert messages(disk) == {"deferred": (STATES["deferred"], True)}
    assert aside(disk) == {
        f"its message file is that of message {messid}": {"mess", "info"}
    }


def test_empty_message_goes_aside_unless_it_is_being_received() -> None:
    made = Restored()
    whole_one = made.queue.inject(b"", content("todo", "a"))
    made.queue.inject(b"", None)
    survey = repaired(made.queue.disk)
    assert [each.number for each in survey.plan.asides] == [whole_one]
    assert len(survey.plan.kept) == 1


def test_half_written_files_of_preprocessing_are_no_damage() -> None:
    made = Restored()
    messid = made.add("half", STATES["half"])
    made.queue.put("info", messid, b"Fcut")
    assert repaired(made.queue.disk).plan.asides == []


def test_foreign_names_are_told_and_left_alone() -> None:
    made = Restored()
    made.queue.put("todo", MessId(5), b"")
    todo = made.queue.dirs.fd("todo")
    disk = made.queue.disk
    disk.rename("5", "README", src_dir_fd=todo, dst_dir_fd=todo)
    survey = repaired(disk)
    assert survey.foreign == ["todo/README"]
    assert "todo/README" in disk.files()


def test_directory_in_the_place_of_a_file_goes_aside() -> None:
    made = Restored()
    messid = made.add("deferred", STATES["deferred"])
    queue, disk = made.queue, made.queue.disk
    disk.unlink(str(messid), dir_fd=queue.dirs.of("remote", messid))
    disk.mkdir(str(messid), dir_fd=queue.dirs.of("remote", messid))
    repaired(disk)
    (reason,) = aside(disk)
    assert reason == "remote is not a regular file"
    assert messages(disk) == {}


def test_failure_names_the_file_and_the_next_repair_ends_the_work() -> None:
    made = restored()
    disk = made.queue.disk
    repairer = Repairer(QUEUE, OWNERS, disk)
    survey = repairer.survey(0)
    disk.fail = lambda call, path: (
        errno.EIO if call == "rename" and path.startswith("info/") else 0
    )
    with pytest.raises(TempFail, match=r"^info/\d+/\d+: Input/output error"):
        repairer.mend(survey, 0)
    repairer.close()
    disk.fail = None
    repaired(disk)
    assert messages(disk) == whole(made)


def test_nothing_is_renamed_onto_a_file_that_came_meanwhile() -> None:
    made = Restored()
    messid = made.add("deferred", STATES["deferred"])
    made.rename("deferred", 5000)
    made.settle()
    repairer = Repairer(QUEUE, OWNERS, made.queue.disk)
    survey = repairer.survey(0)
    made.queue.put("info", messid, b"Fnew@x\0")
    with pytest.raises(TempFail, match="is in the way"):
        repairer.mend(survey, 0)
    repairer.close()
