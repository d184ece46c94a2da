"""When a message is tried again, and when it has been tried long enough."""

from __future__ import annotations

from math import isqrt

from qsend.core.model import Channel

SKIP = {Channel.LOCAL: 10, Channel.REMOTE: 20}
"""Growth of the delay per channel (qmail-send.c chanskip)."""


def next_retry(birth: int, now: int, channel: Channel) -> int:
    """Time of the next attempt for one message on one channel.

    With a = isqrt(now - birth) the answer is birth + (a + skip)**2: the delay
    grows quadratically and does not depend on how many attempts were made.

    Args:
        birth: arrival of the envelope; wall clock, whole seconds.
        now: same clock and unit; may be before birth (the clock stepped back).
        channel: chooses the skip, 10 local, 20 remote.
    Returns: wall clock, whole seconds; later than `now` unless now < birth, and
        then birth + skip**2, but never more than skip**2 seconds after `now`.
    Raises: Nothing.
    Source: qmail-send.c nextretry, squareroot. Unlike qmail, a birth in the
        future cannot put the attempt off beyond the first delay.
    """
    skip = SKIP[channel]
    if now < birth:
        return now + skip * skip
    return birth + (isqrt(now - birth) + skip) ** 2


def longest_delay(lifetime: int) -> int:
    """No attempt on a message within its lifetime is put off for longer."""
    return (isqrt(lifetime) + max(SKIP.values())) ** 2 - isqrt(lifetime) ** 2


def is_dying(birth: int, now: int, lifetime: int) -> bool:
    """Whether the attempt at `now` is the message's last."""
    return now > birth + lifetime
