"""The floors hold: who may import whom, and what the pure floors may not touch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"core": 1, "formats": 2, "sysio": 3, "prelinked": 3, "procs": 4, "cli": 5}
IMPURE = {
    "os", "socket", "select", "signal", "time", "logging", "subprocess", "random",
    "threading", "fcntl", "pwd", "grp", "sqlite3", "pymysql", "asyncio", "pathlib",
    "secrets", "shutil", "tempfile", "datetime.now",
}  # fmt: skip
MODULES = sorted((ROOT / "qsend").glob("*/*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_imports_only_its_floor_or_lower(path: Path) -> None:
    floor = FLOORS[path.parent.name]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "qsend" and len(parts) > 1:
            assert FLOORS[parts[1]] <= floor, f"{path.name} imports {name}"
            if path.parent.name == "procs" and parts[1] == "procs":
                raise AssertionError(f"process {path.name} imports {name}")
        if floor <= 2:
            assert parts[0] not in IMPURE, f"{path.name} imports {name}"


def test_package_has_no_import_cycle() -> None:
    known = {name_of(path): path for path in MODULES}
    graph = {name: imports(path) & known.keys() for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for needed in graph[name]:
                visit(needed, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
