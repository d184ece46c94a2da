"""What the controls say to the queue manager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qsend.core.model import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the controls say to the manager.

    `limits` bounds the attempts of each channel; `destination_limit` those of one
    remote destination; `group_max` the recipients of one remote attempt.
    """

    lifetime: int
    limits: Mapping[Channel, int]
    destination_limit: Callable[[bytes], int]
    virtualdomains: Mapping[bytes, bytes]
    group_max: int
