"""From results to plans: which durable steps, in which order.

Source: queue_layout.md "Order of steps"; qmail-send.c markdone, job_close,
messdone_do. The orders here are what the crash tests cut.
"""

from __future__ import annotations

from qsend.core.message import Job, Message
from qsend.core.model import Channel
from qsend.core.plan import (
    AppendBounce,
    MarkDone,
    Plan,
    Purpose,
    RemoveMess,
    RemoveTodo,
    Say,
    SendBounce,
    SetAside,
    SetDue,
    Step,
    Sync,
    SyncLater,
    UnlinkBounce,
    UnlinkInfo,
    UnlinkRecips,
    WriteInfo,
    WriteRecips,
)


def preprocess(message: Message) -> Plan:
    """todo/N becomes info/N and the channel files, with the marks already earned.

    A channel whose every record is done gets no file and leaves `files`; successes
    leave `settled`, failures stay there for a plan after this one. Until RemoveTodo
    is durable a crash leads back to todo/N and all is done again.
    """
    steps: list[Step] = [WriteInfo(message.sender, message.birth_ns, message.notes)]
    for channel, job in message.jobs.items():
        done = {offset for offset, failure in job.settled if failure is None}
        job.settled = [row for row in job.settled if row[0] not in done]
        if len(done) == len(job.addresses):
            message.files.discard(channel)
            continue
        rows = [(offset in done, address) for offset, address in job.addresses.items()]
        steps.append(WriteRecips(channel, tuple(rows)))
    steps += [Sync(), RemoveTodo()]
    return Plan(message.messid, Purpose.PREPROCESS, tuple(steps))


def progress(message: Message, job: Job) -> Plan:
    """Record the results so far of a pass that goes on."""
    return Plan(message.messid, Purpose.SETTLE, (*_results(job), SyncLater()))


def defer(message: Message, job: Job) -> Plan:
    """Record the results of a pass that leaves recipients for later."""
    steps = (*_results(job), SetDue(job.channel, job.retry_due), SyncLater())
    return Plan(message.messid, Purpose.SETTLE, steps)


def finish_channel(message: Message, job: Job) -> Plan:
    """Record the results of a pass that leaves nothing, the other channel does."""
    steps = (*_bounces(job), UnlinkRecips(job.channel), SyncLater())
    return Plan(message.messid, Purpose.SETTLE, steps)


def finish(message: Message, job: Job | None, end_line: bytes) -> Plan:
    """Nothing is left on any channel: bounce if needed, then remove the message.

    The channel file is durably gone before the bounce is queued, so that no
    recipient is tried again after its failure was returned.
    """
    steps: list[Step] = []
    if job is not None:
        steps += [*_bounces(job), UnlinkRecips(job.channel)]
    if message.bouncing:
        steps += [Sync(), SendBounce(message.sender), UnlinkBounce()]
    steps += [Say(end_line), UnlinkInfo(), Sync(), RemoveMess(None)]
    return Plan(message.messid, Purpose.END, tuple(steps))


def finish_first(message: Message, end_line: bytes) -> Plan:
    """Every recipient of a message in todo was delivered at once."""
    steps = (Say(end_line), RemoveMess(message.identity))
    return Plan(message.messid, Purpose.END, steps)


def discard(message: Message) -> Plan:
    """An operator removes the message: no bounce, no further attempt.

    The channel files go after info/N: without it they are never read.
    """
    steps = (
        UnlinkInfo(),
        Sync(),
        UnlinkRecips(Channel.LOCAL),
        UnlinkRecips(Channel.REMOTE),
        UnlinkBounce(),
        Sync(),
        RemoveMess(message.identity),
    )
    return Plan(message.messid, Purpose.END, steps)


def set_aside(message: Message, reason: str) -> Plan:
    """A file of the message cannot be used: keep all of it for a human."""
    return Plan(message.messid, Purpose.END, (SetAside(reason),))


def _bounces(job: Job) -> tuple[Step, ...]:
    """The failures, durable before anything that stops another attempt."""
    text = b"".join(paragraph for _, paragraph in job.settled if paragraph)
    return (AppendBounce(text), Sync()) if text else ()


def _results(job: Job) -> tuple[Step, ...]:
    offsets = tuple(offset for offset, _ in job.settled)
    marks = (MarkDone(job.channel, offsets),) if offsets else ()
    return (*_bounces(job), *marks)
