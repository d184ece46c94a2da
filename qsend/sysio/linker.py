"""Writing the files that qsend/prelinked.py loads: a program's modules in one.

They lie beside Python's own compiled files, and are as harmless: whoever may write
there may change the program anyway.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qsend.prelinked import linked_path

if TYPE_CHECKING:
    from qsend.prelinked import Part


def link(program: str) -> None:
    """Write the file of the module `program` of qsend.cli. Raises: OSError."""
    found: dict[str, Part | None] = {}
    _collect(f"qsend.cli.{program}", found)
    parts = [part for part in found.values() if part is not None]
    path = linked_path(program)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as file:
        file.write(importlib.util.MAGIC_NUMBER + marshal.dumps(parts))
        os.fchmod(file.fileno(), 0o644)
    os.replace(new, path)


def _collect(name: str, found: dict[str, Part | None]) -> None:
    """Put the module behind all that it imports; None for one without a source."""
    if name in found:
        return
    parent = name.rpartition(".")[0]
    if parent:
        _collect(parent, found)
    found[name] = None
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    with open(spec.origin, "rb") as file:
        status = os.fstat(file.fileno())
        source = file.read()
    for needed in _imports(ast.parse(source)):
        _collect(needed, found)
    code = compile(source, spec.origin, "exec", dont_inherit=True, optimize=2)
    is_package = spec.submodule_search_locations is not None
    del found[name]
    found[name] = (
        *(name, spec.origin, is_package),
        *(status.st_mtime_ns, status.st_size, code),
    )


def _imports(module: ast.Module) -> Iterator[str]:
    """What its first lines import; nothing under a condition or in a function."""
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if node.module.startswith("qsend") and _is_module(name):
                    yield name


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False  # its parent is no package
