"""The control files of runner, all of them as one value.

Source: qmail-control(5); docs/NETWORK.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qsend.core.errors import ConfigError, ConfigFault
from qsend.formats.control import number_files

NUMBERS: Mapping[str, tuple[int, int, int]] = {
    "timeoutrunner": (300, 1, 86400),
    "concurrencyrunner": (40, 1, 10_000),
}
"""The one-number files: default, least, most."""
RUNNER_FILES = frozenset(NUMBERS)
"""Names of the control files that RunnerSettings is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How queueing programs are run.

    `timeout_s` is what one gets from the end of its message on, `programs_max` how
    many there are at once.
    """

    timeout_s: int = 300
    programs_max: int = 40


def parse_runner(files: Mapping[str, bytes]) -> RunnerSettings:
    """The settings of a snapshot.

    Args:
        files: name of each control file that exists, and its content.
    Raises: ConfigError with every fault in any of RUNNER_FILES.
    """
    faults: list[ConfigFault] = []
    numbers = number_files(files, NUMBERS, faults)
    if faults:
        raise ConfigError(faults)
    return RunnerSettings(
        timeout_s=numbers["timeoutrunner"], programs_max=numbers["concurrencyrunner"]
    )
