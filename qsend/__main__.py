"""`python -m qsend`: the command `qsend`."""

from __future__ import annotations

import sys

from qsend.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
