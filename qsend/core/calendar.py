"""Times as people write them, without the datetime module, which is slow to load."""

from __future__ import annotations

_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_ERA_DAYS = 146097
"""Days in 400 years, after which the calendar repeats."""
_EPOCH_DAYS = 719468
"""Days from 1 March of the year 0 to 1 January 1970."""


def utc(now: int) -> tuple[int, int, int, int, int, int]:
    """Year, month, day, hour, minute and second of a time, in UTC.

    Args: now: whole seconds since the epoch, of either sign.
    Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms,
        civil_from_days: years begin in March, so that leap days end them.
    """
    days, seconds = divmod(now, 86400)
    era, day = divmod(days + _EPOCH_DAYS, _ERA_DAYS)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    month = month + 3 if month < 10 else month - 9
    minutes, second = divmod(seconds, 60)
    year += 400 * era + (month <= 2)
    return year, month, day + 1, minutes // 60, minutes % 60, second


def render_date(now: int) -> bytes:
    """A time as header fields have it: `26 Sep 1995 04:46:53 -0000`.

    UTC, and qmail's zone: it does not say where that is local.
    Args: now: whole seconds since the epoch.
    Source: date822fmt.c; RFC 5322 3.3.
    """
    year, month, *rest = utc(now)
    day, hour, minute, second = rest
    shown = (day, _MONTHS[month - 1], year, hour, minute, second)
    return b"%d %b %d %02d:%02d:%02d -0000" % shown
