"""Loading what a short program imports from one file.

Looking for a module in its directory, comparing times and making a spec take Python
longer than running it; qmail-queue and sendmail need some thirty. sysio/linker.py
writes the file. Without it, or when a source is no more what it was made of, the
usual imports do the same, more slowly. Must import next to nothing.
"""

import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    Part = tuple[str, str, bool, int, int, CodeType]
    """A module: name, path of its source, whether it is a package, the source's
    mtime in nanoseconds and its size, and its code."""


def linked_path(program: str) -> str:
    """Where the file for the module `program` of qsend.cli is."""
    folder = __file__.rpartition("/")[0]
    return f"{folder}/cli/__pycache__/{program}.{sys.implementation.cache_tag}.linked"


def load(program: str) -> None:
    """Have all that qsend.cli.PROGRAM imports loaded, if its file is there and good."""
    try:
        with open(linked_path(program), "rb") as file:
            content = file.read()
        if not content.startswith(MAGIC_NUMBER):
            return
        parts: list[Part] = marshal.loads(content[len(MAGIC_NUMBER) :])
        for _name, path, _is_package, mtime_ns, size, _code in parts:
            found = posix.stat(path)
            if found.st_mtime_ns != mtime_ns or found.st_size != size:
                return
    except (OSError, EOFError, ValueError, TypeError):
        return  # as with a .pyc that is not there, or not whole
    for name, path, is_package, _mtime_ns, _size, code in parts:
        if name not in sys.modules:
            _run(name, path, is_package, code)


def _run(name: str, path: str, is_package: bool, code: "CodeType") -> None:
    module = type(sys)(name)
    module.__file__ = path
    parent, _, last = name.rpartition(".")
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [path.rpartition("/")[0]]
    sys.modules[name] = module
    exec(code, module.__dict__)
    if parent:
        setattr(sys.modules[parent], last, module)
