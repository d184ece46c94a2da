"""Loading what a short program imports from one file.

Looking for a module in its directory, comparing times and making a spec take Python
longer than running it; qmail-queue and sendmail need some thirty. sysio/linker.py
writes the file, with this module's own code in front: the program runs that, and calls
`load` with the rest. Without the file, or when a source is no more what it was made
of, the usual imports do the same, more slowly. Must import next to nothing.
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    Part = tuple[str, str, bool, int, int, CodeType]
    """A module: name, path of its source, whether it is a package, the source's
    mtime in nanoseconds and its size, and its code."""


def load(parts: "list[Part]") -> None:
    """Have all these modules loaded, if their sources are still what they were."""
    for _name, path, _is_package, mtime_ns, size, _code in parts:
        try:
            found = posix.stat(path)
        except OSError:
            return
        if found.st_mtime_ns != mtime_ns or found.st_size != size:
            return
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
