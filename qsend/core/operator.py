"""What an operator may ask of the queue manager: flush, hold, release, remove.

`what` is "all", "local", "remote", "host:<destination>" or "mess:<N>" (bytes).
"""

from __future__ import annotations

from collections.abc import Iterable

from qsend.core import settle
from qsend.core.errors import LocalProtocolError
from qsend.core.manager import Manager
from qsend.core.message import ForgetSilence, Message, Phase, SaveHolds
from qsend.core.model import Channel, MessId

_CHANNELS = {channel.value.encode(): channel for channel in Channel}


def flush(manager: Manager, what: bytes, now: int) -> None:
    """Try what is named now; destinations concerned are taken as healthy.

    Raises: LocalProtocolError when `what` names nothing that can be flushed.
    """
    remote = manager.attempts.waiting[Channel.REMOTE]
    if what == b"all":
        cure(manager)
        for channel in Channel:
            _all_now(manager, channel, now)
    elif what in _CHANNELS:
        if what == b"remote":
            cure(manager)
        _all_now(manager, _CHANNELS[what], now)
    elif what.startswith(b"host:") and what[5:]:
        key = what[5:].lower()
        remote.cure(key)
        manager.act(ForgetSilence())
        manager.seek(key)
    else:
        _flush_message(manager, _messid(what), now)


def resolve(manager: Manager, now: int) -> None:
    """Recipients and users can be looked up again: try what waits for that."""
    manager.backlog.unpark()
    unresolved, manager.unresolved = manager.unresolved, set()
    if unresolved:
        manager.dues[Channel.LOCAL].some_now(unresolved, now)
    for messid in unresolved & manager.messages.keys():
        _repeat(manager.messages[messid], Channel.LOCAL)


def cure(manager: Manager) -> None:
    """Forget which destinations and hosts could not be reached; nothing gets due."""
    manager.attempts.waiting[Channel.REMOTE].cure()
    manager.act(ForgetSilence())


def hold(manager: Manager, what: bytes) -> None:
    """Start no delivery of what is named until it is released.

    Raises: LocalProtocolError when `what` names nothing that can be held.
    """
    restore(manager, _names(what))
    manager.act(SaveHolds())


def restore(manager: Manager, names: Iterable[bytes]) -> None:
    """Hold what was held before a restart: names as they were saved."""
    for name in names:
        manager.attempts.held.add(name)
        if name.startswith(b"host:"):
            manager.attempts.waiting[Channel.REMOTE].hold(name[5:], held=True)


def release(manager: Manager, what: bytes, now: int) -> None:
    """Undo a hold; "all" releases everything that is held.

    Raises: LocalProtocolError when `what` names nothing that can be held.
    """
    held = manager.attempts.held
    names = set(held) if what == b"all" else _names(what) & held
    for name in names:
        held.discard(name)
        if name.startswith(b"host:"):
            manager.attempts.waiting[Channel.REMOTE].hold(name[5:], held=False)
        elif name.startswith(b"mess:"):
            _flush_message(manager, _messid(name), now)
    manager.act(SaveHolds())


def remove(manager: Manager, messid: MessId) -> bool:
    """Remove a queued message without a bounce.

    Returns: False when no such message is queued.
    Raises: LocalProtocolError while deliveries of it run.
    """
    message = manager.messages.get(messid)
    dues = [_withdraw(manager, channel, messid) for channel in Channel]
    if message is None:
        if all(due is None for due in dues):
            return False
        message = manager.revive(messid)
    if any(job.running for job in message.jobs.values()) or message.plans:
        for channel, due in zip(Channel, dues, strict=True):
            if due is not None:
                manager.dues[channel].push(due, messid)
        raise LocalProtocolError(f"message {messid} is being delivered; hold it first")
    if message.phase is Phase.FIRST:
        manager.first -= 1
    manager.end(message, settle.discard(message))
    return True


def _withdraw(manager: Manager, channel: Channel, messid: MessId) -> int | None:
    """Take a message out of what waits for its time or its turn; its due."""
    if manager.attempts.waiting[channel].parked.remove(messid):
        return 0
    return manager.dues[channel].remove(messid)


def _all_now(manager: Manager, channel: Channel, now: int) -> None:
    manager.dues[channel].all_now(now)
    for message in manager.messages.values():
        _repeat(message, channel)


def _repeat(message: Message, channel: Channel) -> None:
    """Try what the pass under way has deferred so far again when it is over."""
    job = message.jobs.get(channel)
    if job is not None:
        job.again |= job.left > 0


def _flush_message(manager: Manager, messid: MessId, now: int) -> None:
    message = manager.messages.get(messid)
    for channel in Channel:
        if message is not None:
            _repeat(message, channel)
        if manager.dues[channel].remove(messid) is not None:
            manager.dues[channel].push(now, messid)


def _names(what: bytes) -> set[bytes]:
    if what == b"all":
        return set(_CHANNELS)
    if what in _CHANNELS:
        return {what}
    if what.startswith(b"host:") and what[5:]:
        return {b"host:" + what[5:].lower()}
    return {b"mess:%d" % _messid(what)}


def _messid(what: bytes) -> MessId:
    number = what.removeprefix(b"mess:")
    if number == what or not number.isdigit() or len(number) > 20:
        shown = what[:80].decode("ascii", "backslashreplace")
        raise LocalProtocolError(
            f"expected all, local, remote, host:NAME or mess:NUMBER, found {shown!r}"
        )
    return MessId(int(number))
