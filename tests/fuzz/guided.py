"""One target under atheris: `python -m tests.fuzz.guided NAME LIBFUZZER-OPTION...`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["qsend", "dns", "aiosmtpd", "cdblib"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    check = TARGETS[sys.argv.pop(1)].check

    def one(data: bytes) -> None:
        check(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


main()
