"""Control files that hold one number with a default and bounds of its own.

Source: qmail-control(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qsend.core.errors import ConfigFault
from qsend.formats.control import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a number is without its file, and what it may be."""

    default: int
    least: int
    most: int


def read_number(
    name: str, content: bytes | None, bounds: Bounds, faults: list[ConfigFault]
) -> int:
    """The number in control file `name`; the default without it.

    What is no number within bounds is added to `faults`.
    """
    if content is None:
        return bounds.default
    digits = one_line(content)
    if re.fullmatch(rb"[0-9]{1,10}", digits):
        number = int(digits)
        if bounds.least <= number <= bounds.most:
            return number
    found = digits[:40].decode("ascii", "backslashreplace")
    problem = f"expected a number from {bounds.least} to {bounds.most}, found {found!r}"
    faults.append(ConfigFault(file=f"control/{name}", line=1, problem=problem))
    return bounds.default
