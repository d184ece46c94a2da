"""Answers of the queue manager as text for people.

Takes what comes: a fact that is missing or of another type is left out. All text
from strangers passes `shown`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from qsend.cli.parser import shown

Facts = Mapping[str, object]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Aligned columns; numbers to the right, words to the left."""
    cells = [[str(each) for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[at], (int, float)) for row in rows)
        for at in range(len(head))
    ]
    return [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (head, *cells)
    ]


def duration(seconds: float) -> str:
    """A rough length of time, as 90 s, 12 min, 5 h, 3 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def moment(when: object) -> str:
    """A wall clock time in UTC."""
    if not isinstance(when, int):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(when))


def status_lines(facts: Facts, members: Sequence[Facts]) -> Iterator[str]:
    """`qsend status`."""
    ending = ", ending" if facts.get("exiting") is True else ""
    yield f"running{ending}; controls of generation {facts.get('generation', '-')}"
    channels = _objects(facts.get("channels"))
    columns = ("running", "limit", "waiting", "scheduled")
    yield ""
    yield from table(
        ("channel", *columns),
        [
            (name, *(channel.get(column, "-") for column in columns))
            for name, channel in channels.items()
        ],
    )
    yield f"not yet preprocessed: {facts.get('unprocessed', '-')}"
    held = facts.get("held")
    if isinstance(held, list) and held:
        yield "held: " + " ".join(shown(str(each)) for each in held)
    yield from _ill_lines(facts.get("ill"))
    if members:
        yield ""
        yield from table(
            ("pid", "process", "uid", "MiB", "cpu s"),
            [
                (
                    member.get("pid", 0),
                    shown(str(member.get("name", "-"))),
                    member.get("uid", 0),
                    _mebibytes(member.get("rss")),
                    member.get("cpu_s", 0.0),
                )
                for member in members
            ],
        )


def _mebibytes(size: object) -> float:
    return round(size / 2**20, 1) if isinstance(size, int) else 0.0


def _objects(value: object) -> dict[str, dict[str, object]]:
    if not isinstance(value, dict):
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, dict)}


def _ill_lines(ill: object) -> Iterator[str]:
    if not isinstance(ill, list) or not ill:
        return
    yield ""
    yield "destinations that could not be reached:"
    for each in ill:
        if isinstance(each, dict):
            wait = each.get("ill_for_s")
            again = duration(wait) if isinstance(wait, (int, float)) else "-"
            yield (
                f"  {shown(str(each.get('destination')))}: "
                f"{each.get('waiting', '-')} waiting, next attempt in {again}; "
                f"{_report(str(each.get('error', '')))}"
            )


def message_lines(item: Facts, now: int) -> Iterator[str]:
    """One message of `qsend queue`."""
    state = shown(str(item.get("state", "-")))
    if "error" in item:
        yield f"#{item.get('messid')}  {state}: {shown(str(item['error']))}"
        return
    held = "  held" if item.get("held") is True else ""
    yield (
        f"#{item.get('messid')}  {moment(item.get('birth'))}  "
        f"{item.get('bytes', '-')} bytes  "
        f"<{shown(str(item.get('sender', '')))}>  {state}{held}"
    )
    recips = item.get("recips")
    for recip in recips if isinstance(recips, list) else []:
        if isinstance(recip, dict):
            yield f"    {_recip_line(recip, now)}"
    more = item.get("more_recips")
    if isinstance(more, int) and more > 0:
        yield f"    and {more} more"
    last = item.get("last")
    if isinstance(last, str) and last:
        yield f"    last report: {_report(last)}"


def _report(text: str) -> str:
    """A report, which may have several lines, in one."""
    return shown(text.strip().replace("\n", " / "))


def _recip_line(recip: Facts, now: int) -> str:
    channel = str(recip.get("channel") or "-")
    due = recip.get("next")
    if recip.get("done") is True:
        when = "done"
    elif isinstance(due, int):
        when = f"next attempt in {duration(due - now)}" if due > now else "due now"
    else:
        when = "under way"
    return f"{channel:<6}  {shown(str(recip.get('address', '')))}  {when}"
