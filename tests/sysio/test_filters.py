"""Filters of one client against a filter by script: order, failures, hostility."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qsend.core.milter import Discarded, Refusal
from qsend.core.milterfacts import ClientFacts
from qsend.core.smtpdsteps import Filter
from qsend.formats.milters import Down, Milter
from qsend.sysio.filters import Filters, Passed
from qsend.sysio.milterpool import MilterPool
from tests.fakemilter import CONTINUE, STALL, FakeMilter, Script, fake_milter, packet
from tests.fakemilter import terms as offer

CLIENT = ClientFacts(server=b"here.example", address="192.0.2.1", helo=b"c.example")
MAIL = b"Subject: a\n\nbody\nend\n"
WHOLE = b"OCHMRTLNBE"
"""What a filter that continues is asked, in this order."""
DEFERRED = b"451 4.7.1 mail filter unavailable, try again later (#4.7.1)\r\n"
REJECTED = b"550 5.7.1 rejected by a mail filter (#5.7.1)\r\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@dataclass
class World:
    home: Path
    down: Down = Down.TEMPFAIL
    pool: MilterPool = field(default_factory=MilterPool)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "run/milter").mkdir(parents=True, exist_ok=True)

    @property
    def path(self) -> Path:
        return self.home / "m.sock"

    def milter(self, timeout_s: float = 20.0) -> Milter:
        return Milter(
            name="m", path=str(self.path), down=self.down, connect_s=timeout_s,
            timeout_s=timeout_s, content_s=timeout_s,
        )  # fmt: skip

    def filters(self, timeout_s: float = 20.0) -> Filters:
        milters = [self.milter(timeout_s)]
        return Filters(str(self.home), milters, self.pool, self.told.append)


async def ask(
    filters: Filters, recip: bytes = b"r@x.example", *, is_first: bool = True
) -> Refusal | None:
    return await filters.recipient(
        CLIENT,
        Filter(
            sender=b"s@x.example", parameters=(), recip=recip, is_first=is_first,
            helo=b"c.example",
        ),
    )  # fmt: skip


async def pass_on(
    filters: Filters, text: bytes = MAIL
) -> tuple[bytes, Passed | None] | Discarded:
    """One message: the refusal, or what comes out."""
    refusal = await ask(filters)
    if refusal is not None:
        return refusal.text, None
    filters.begin()
    for at in range(0, len(text), 1000):
        filters.write(text[at : at + 1000])
    found = await filters.finish(b"s@x.example", [b"r@x.example"])
    if isinstance(found, Refusal):
        return found.text, None
    if isinstance(found, Discarded):
        return found
    content = b"".join(found.chunks)
    filters.abandon()
    return content, found


def script(**answers: bytes | None) -> Script:
    """Continue, but answer some letters like this."""

    def answer(letter: bytes, _data: bytes) -> bytes | None:
        name = letter.decode()
        if name in answers:
            return answers[name]
        return offer() if letter == b"O" else CONTINUE

    return answer


def outcome(
    tmp_path: Path,
    plan: Script,
    *,
    down: Down = Down.TEMPFAIL,
    timeout_s: float = 20.0,
    text: bytes = MAIL,
) -> tuple[Any, FakeMilter, World]:
    """What one message comes to."""
    world = World(tmp_path, down)
    result: list[Any] = []

    async def test() -> FakeMilter:
        async with fake_milter(world.path, plan) as fake:
            filters = world.filters(timeout_s)
            result.append(await pass_on(filters, text))
            filters.close()
            world.pool.close()
            await asyncio.sleep(0)
            return fake

    fake = asyncio.run(asyncio.wait_for(test(), 60))
    return result[0], fake, world


def test_order_of_things(tmp_path: Path) -> None:
    (content, passed), fake, _ = outcome(tmp_path, script())
    assert b"".join(fake.heard[:10]) == WHOLE
    assert content == MAIL
    assert passed.recips == (b"r@x.example",)
    assert fake.bodies == [b"body\r\nend\r\n"]


@pytest.mark.parametrize("letter", [chr(each) for each in WHOLE])
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"\xff\xff\xff\xffc",
        b"\0\0\0\0",
        packet(b"Z"),
        packet(b"c", b"x"),
        packet(b"y", b"200 fine\0"),
        packet(b"y", b"550-a\r\n551 b\0"),
        packet(b"y", b"550 a\nb\0"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_filter_that_breaks_down_anywhere(
    tmp_path: Path, letter: str, answer: bytes | None
) -> None:
    for down, want in ((Down.TEMPFAIL, DEFERRED), (Down.ACCEPT, MAIL)):
        (content, _), _, world = outcome(
            tmp_path, script(**{letter: answer}), down=down
        )
        assert content == want
        assert any(said.startswith("milter m: ") for said in world.told)


@pytest.mark.parametrize("letter", ["O", "C", "R", "L", "B", "E"])
def test_filter_that_stalls(tmp_path: Path, letter: str) -> None:
    (content, _), _, world = outcome(tmp_path, script(**{letter: STALL}), timeout_s=0.2)
    assert content == DEFERRED
    assert world.told == ["milter m: no answer in time: tempfail"]


@pytest.mark.parametrize("answer", [b"\0\0", packet(b"p"), packet(b"h", b"A\0b\0")])
def test_progress_alone_is_not_enough(tmp_path: Path, answer: bytes) -> None:
    (content, _), _, _ = outcome(tmp_path, script(E=answer), timeout_s=0.2)
    assert content == DEFERRED


@pytest.mark.parametrize(
    ("answer", "want"),
    [
        (packet(b"r"), REJECTED),
        (packet(b"t"), b"451 4.7.1 mail filter: try again later (#4.7.1)\r\n"),
        (packet(b"4"), b"421 4.7.0 mail filter: goodbye\r\n"),
        (packet(b"y", b"554 5.7.1 100%% no\0"), b"554 5.7.1 100% no\r\n"),
        (packet(b"y", b"450-a\r\n450 b\0"), b"450-a\r\n450 b\r\n"),
        (packet(b"y", b"550 \x07\x7f\xff\0"), b"550   \xff\r\n"),
    ],
)
@pytest.mark.parametrize("letter", [chr(each) for each in WHOLE[1:]])
def test_refusals(tmp_path: Path, letter: str, answer: bytes, want: bytes) -> None:
    (content, _), _, _ = outcome(tmp_path, script(**{letter: answer}))
    assert content == want


@pytest.mark.parametrize("letter", ["C", "H", "M", "R", "T", "L", "N", "B", "E"])
def test_accept_ends_the_questions(tmp_path: Path, letter: str) -> None:
    (content, _), fake, _ = outcome(tmp_path, script(**{letter: packet(b"a")}))
    assert content == MAIL
    asked = b"".join(fake.heard).rstrip(b"AKQ")
    assert asked == WHOLE[: WHOLE.index(letter.encode()) + 1]


@pytest.mark.parametrize("letter", ["M", "R", "T", "L", "N", "B", "E"])
def test_discard(tmp_path: Path, letter: str) -> None:
    found, _, _ = outcome(tmp_path, script(**{letter: packet(b"d")}))
    assert found == Discarded()


def test_skip_ends_the_body(tmp_path: Path) -> None:
    text = b"\n" + b"0123456789\n" * 50_000
    (content, _), fake, _ = outcome(tmp_path, script(B=packet(b"s")), text=text)
    assert content == text
    assert len(fake.bodies) == 1


def test_steps_left_out_and_not_answered(tmp_path: Path) -> None:
    # No HELO, no body; no answers to header fields and MAIL.
    plan = script(O=offer(steps=0x2 | 0x10 | 0x80 | 0x4000), L=b"", M=b"")
    (content, _), fake, _ = outcome(tmp_path, plan)
    assert content == MAIL
    assert b"".join(fake.heard[:8]) == b"OCMRTLNE"


def test_large_body_arrives_in_pieces_that_fit(tmp_path: Path) -> None:
    text = b"A: b\n\n" + b"\n" * 200_000
    (content, _), fake, _ = outcome(tmp_path, script(), text=text)
    assert content == text
    assert b"".join(fake.bodies) == b"\r\n" * 200_000
    assert max(map(len, fake.bodies)) <= 65535


def test_header_without_an_end_is_refused(tmp_path: Path) -> None:
    (content, _), _, _ = outcome(tmp_path, script(), text=b"A: b\n" * 300_000)
    assert content.startswith(b"552 5.3.4 ")


@pytest.mark.parametrize(
    "edit",
    [
        packet(b"h", b"A B\0c\0"),
        packet(b"+", b"<a\rb@x>\0"),
        packet(b"h", b"A\0b\0") * 3000,
        packet(b"h", b"A\0" + b"b" * 600_000 + b"\0") * 2,
    ],
)
def test_senseless_changes_are_a_failure(tmp_path: Path, edit: bytes) -> None:
    plan = script(E=packet(b"h", b"X\0y\0") + edit + CONTINUE)
    (content, _), _, _ = outcome(tmp_path, plan, down=Down.ACCEPT)
    assert content == MAIL, "nothing of what it changed before"


@pytest.mark.parametrize(
    ("edit", "actions"),
    [
        (packet(b"h", b"A\0b\0"), 0x1FE),
        (packet(b"b", b"x"), 0x1FD),
        (packet(b"+", b"a@b\0"), 0x1FB),
        (packet(b"-", b"a@b\0"), 0x1F7),
        (packet(b"m", b"\0\0\0\1A\0b\0"), 0x1EF),
        (packet(b"q", b"x\0"), 0x1DF),
        (packet(b"e", b"a@b\0"), 0x1BF),
        (packet(b"2", b"a@b\0"), 0x17F),
    ],
)
def test_change_that_was_not_agreed_upon(
    tmp_path: Path, edit: bytes, actions: int
) -> None:
    plan = script(O=offer(actions=actions), E=edit + CONTINUE)
    assert outcome(tmp_path, plan)[0][0] == DEFERRED


@pytest.mark.parametrize("letter", ["C", "R", "L", "B"])
def test_change_before_the_end(tmp_path: Path, letter: str) -> None:
    plan = script(**{letter: packet(b"h", b"A\0b\0") + CONTINUE})
    assert outcome(tmp_path, plan)[0][0] == DEFERRED


def test_answer_nobody_asked_for(tmp_path: Path) -> None:
    assert outcome(tmp_path, script(C=CONTINUE * 2))[0][0] == DEFERRED


def test_new_body_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsend.sysio.filters._BODY_MAX", 1000)
    plan = script(E=packet(b"b", b"x" * 600) * 2 + CONTINUE)
    assert outcome(tmp_path, plan)[0][0] == DEFERRED


def test_new_body_in_pieces(tmp_path: Path) -> None:
    pieces = b"".join(packet(b"b", each) for each in (b"a\r", b"\nb\rc", b"\r"))
    (content, _), _, _ = outcome(tmp_path, script(E=pieces + CONTINUE))
    assert content == b"Subject: a\n\na\nb\rc\r"


def test_no_recipient_left(tmp_path: Path) -> None:
    plan = script(E=packet(b"-", b"<r@x.example>\0") + packet(b"a"))
    assert outcome(tmp_path, plan)[0] == Discarded()


def test_no_room_on_the_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "run/milter").rmdir()

    async def test() -> None:
        async with fake_milter(world.path, script()):
            filters = world.filters()
            content = await pass_on(filters, b"A: b\n\n" + b"x" * 300_000)
            assert content == (
                b"451 4.3.0 unable to keep the message (#4.3.0)\r\n", None,
            )  # fmt: skip
            filters.close()
            world.pool.close()

    run(test())


def test_connection_is_given_to_the_next_client(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test() -> None:
        async with fake_milter(world.path, script()) as fake:
            for _ in range(3):
                filters = world.filters()
                assert (await ask(filters)) is None
                filters.close()
            assert fake.clients == 1
            # Dead connections are noticed, before or after the first word.
            fake.drop()
            filters = world.filters()
            assert (await ask(filters)) is None
            assert fake.clients == 2
            fake.drop()
            assert (await ask(filters)) is None
            assert fake.clients == 3
            filters.close()
            world.pool.close()

    run(test())
    assert world.told == []


def test_old_filter_keeps_its_client(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test() -> None:
        async with fake_milter(world.path, script(O=offer(version=2))) as fake:
            for _ in range(2):
                filters = world.filters()
                assert isinstance(await pass_on(filters), tuple)
                filters.close()
            assert fake.clients == 2
            assert b"T" not in fake.heard

    run(test())


def test_next_message_follows_an_abort(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test() -> None:
        async with fake_milter(world.path, script()) as fake:
            filters = world.filters()
            await ask(filters)
            await ask(filters, b"q@x.example", is_first=False)
            await pass_on(filters)
            await pass_on(filters)
            assert b"".join(fake.heard) == b"OCHMRRAMRTLNBEMRTLNBE"
            filters.close()
            world.pool.close()

    run(test())


def test_refused_client_stays_refused(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test() -> None:
        async with fake_milter(world.path, script(C=packet(b"r"))) as fake:
            filters = world.filters()
            for _ in range(3):
                refusal = await ask(filters)
                assert refusal == Refusal(text=REJECTED)
            assert fake.heard == [b"O", b"C"]
            filters.close()
            world.pool.close()

    run(test())


def test_client_that_leaves_in_the_middle(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def test() -> None:
        async with fake_milter(world.path, script(R=STALL)) as fake:
            filters = world.filters()
            asking = asyncio.ensure_future(ask(filters))
            while b"R" not in fake.heard:
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            filters.close()
            link, is_new = await world.pool.take(world.milter())
            assert is_new, "a connection in the middle of something is of no use"
            link.abort()

    run(test())


def test_second_filter_sees_what_the_first_has_made(tmp_path: Path) -> None:
    first, second = World(tmp_path / "a"), World(tmp_path / "b")
    seen: list[bytes] = []

    def watch(letter: bytes, data: bytes) -> bytes:
        if letter in b"LB":
            seen.append(data)
        return offer() if letter == b"O" else CONTINUE

    async def test() -> None:
        edits = packet(b"i", b"\0\0\0\0X\0y\0") + packet(b"b", b"new\r\n") + CONTINUE
        async with (
            fake_milter(first.path, script(E=edits)),
            fake_milter(second.path, watch),
        ):
            milters = [first.milter(), second.milter()]
            filters = Filters(str(first.home), milters, MilterPool(), print)
            content = await pass_on(filters)
            assert isinstance(content, tuple)
            assert content[0] == b"X: y\nSubject: a\n\nnew\n"
            filters.close()

    run(test())
    assert seen == [b"X\0y\0", b"Subject\0a\0", b"new\r\n"]
