"""Writing the files that qsend/prelinked.py loads: a program's modules in one.

They lie beside Python's own compiled files, and are as harmless: whoever may write
there may change the program anyway. Every byte of code costs each run of the program:
comments on types and line numbers are left out, so a traceback names functions only.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
from collections.abc import Iterator
from types import CodeType
from typing import TYPE_CHECKING

from qsend import prelinked

if TYPE_CHECKING:
    from qsend.prelinked import Part


def linked_path(program: str, magic: bytes) -> str:
    """The file of the module `program` of qsend.cli, for the Python with that magic.

    What another Python's code looks like is not known to this one, so it must not
    find it.
    """
    folder = os.path.join(os.path.dirname(prelinked.__file__), "cli", "__pycache__")
    return os.path.join(folder, f"{program}.linked.{magic.hex()}")


def link(program: str) -> None:
    """Write the file of the module `program` of qsend.cli. Raises: OSError."""
    found: dict[str, Part | None] = {}
    _collect(f"qsend.cli.{program}", found)
    parts = [part for part in found.values() if part is not None]
    with open(prelinked.__file__, "rb") as file:
        loader = _compiled(ast.parse(file.read()), prelinked.__file__)
    path = linked_path(program, importlib.util.MAGIC_NUMBER)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as file:
        file.write(marshal.dumps((loader, parts)))
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
        tree = ast.parse(file.read())
    for needed in _imports(tree):
        _collect(needed, found)
    is_package = spec.submodule_search_locations is not None
    del found[name]
    found[name] = (
        *(name, spec.origin, is_package),
        *(status.st_mtime_ns, status.st_size, _compiled(tree, spec.origin)),
    )


def _imports(module: ast.Module) -> Iterator[str]:
    """What its first lines import; nothing under a condition or in a function."""
    for node in module.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            assert node.module is not None
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


def _compiled(module: ast.Module, path: str) -> CodeType:
    # What `from __future__ import annotations` asks for, without the module.
    flags = 0
    for first in module.body[:]:
        if isinstance(first, ast.ImportFrom) and first.module == "__future__":
            module.body.remove(first)
            flags |= annotations.compiler_flag
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    code = compile(module, path, "exec", flags, dont_inherit=True, optimize=2)
    return _without_lines(code)


def _without_lines(code: CodeType) -> CodeType:
    """The same code, which says of none of its instructions what line they are of.

    A byte says this of up to eight; its low three bits are how many, less one.
    Source: Objects/locations.md of CPython 3.11, "no location".
    """
    eights, rest = divmod(len(code.co_code) // 2, 8)
    lines = b"\xff" * eights + (bytes((0xF8 | rest - 1,)) if rest else b"")
    consts = (
        _without_lines(each) if isinstance(each, CodeType) else each
        for each in code.co_consts
    )
    return code.replace(co_linetable=lines, co_consts=tuple(consts))
