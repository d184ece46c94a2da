"""Programs of qsend run as processes, in a home of the test's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
Done = subprocess.CompletedProcess[bytes]


def run_program(
    module: str,
    *args: str | bytes,
    home: Path | str = "/nonexistent",
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    before: str = "",
) -> Done:
    """Run the program of qsend.cli.MODULE to its end.

    `before` is Python that runs first, after `import sys`.
    """
    code = f"import sys\n{before}\nfrom qsend.cli.{module} import main\n"
    code += "sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        input=stdin,
        env={"PYTHONPATH": str(ROOT), "QSEND_HOME": str(home), **(env or {})},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
