"""qmail-queue and sendmail, as installed, load little; and what they load is linked."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import pytest

from qsend.sysio import launchers, linker
from tests.injecthome import EnqueueHome, one_account, queue_files

BUILT_IN = {"_socket", "_struct", "gc"}
QUEUE = {
    "__future__",
    "struct",
    "qsend",
    "qsend.cli",
    "qsend.cli.options",
    "qsend.cli.qmail_queue",
    "qsend.core",
    "qsend.core.errors",
    "qsend.core.light",
    "qsend.formats",
    "qsend.formats.controllines",
    "qsend.formats.frames",
    "qsend.formats.injection",
    "qsend.formats.queueexit",
    "qsend.formats.todo",
    "qsend.sysio",
    "qsend.sysio.boundedread",
    "qsend.sysio.clock",
    "qsend.sysio.home",
    "qsend.sysio.native",
    "qsend.sysio.queueclient",
    "qsend.sysio.queueinput",
}
INJECT = (QUEUE - {"qsend.cli.qmail_queue", "qsend.sysio.queueinput"}) | {
    "qsend.cli.qmail_inject",
    "qsend.core.address",
    "qsend.core.addresslist",
    "qsend.core.calendar",
    "qsend.core.inject",
    "qsend.core.tokens",
    "qsend.formats.injectenv",
    "qsend.formats.rfc822",
    "qsend.sysio.mailqueue",
}
LOADED = {
    "qmail-queue": QUEUE,
    "qmail-inject": INJECT,
    "sendmail": INJECT | {"qsend.cli.sendmail"},
}
"""All that may be loaded by the time a message is queued. Think of what each of a
thousand processes a minute pays before you add a name: dataclasses is a whole start
of Python, enum, re, socket or typing a half."""

_WATCH = """
import sys
before = set(sys.modules)
"""
_TELL = """
names = set(sys.modules) - before
linked = [name for name in names if sys.modules[name].__spec__ is None]
sys.stderr.write(" ".join(names) + ";" + " ".join(linked))
"""


@pytest.fixture
def home(open_tmp: Path) -> Iterator[EnqueueHome]:
    made = EnqueueHome(open_tmp, one_account())
    (made.home / "control").mkdir()
    (made.home / "control/me").write_text("test.example\n")
    made.start()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where linked files lie in this test."""
    made = tmp_path / "linked"

    def path(program: str, magic: bytes) -> str:
        return str(made / f"{program}.{magic.hex()}")

    for module in (linker, launchers):
        monkeypatch.setattr(module, "linked_path", path)
    return made


def run(home: EnqueueHome, program: str) -> tuple[set[str], set[str]]:
    """Queue a message; the modules loaded at the end, and those from a linked file."""
    reading, writing = os.pipe()
    os.write(writing, b"Fa@b.example\0Tc@d.example\0\0")
    os.close(writing)
    text = launchers.launcher(program, str(home.home))
    head, last = text.rstrip().rsplit("\n", 1)
    assert last.startswith("leave(main(")
    script = home.home / program
    script.write_text(f"{_WATCH}{head}\ncode = {last[6:-1]}\n{_TELL}leave(code)\n")
    args = [] if program == "qmail-queue" else ["c@d.example"]
    done = subprocess.run(
        [sys.executable, "-IS", script, *args],
        input=b"To: Joe <c@d.example>, x\nSubject: y\n\nz\n",
        stdout=reading,
        stderr=subprocess.PIPE,
        env={},
        check=False,
        timeout=30,
    )
    os.close(reading)
    assert done.returncode == 0, done.stderr
    assert len(queue_files(home.queue)["todo"]) == 1
    loaded, linked = done.stderr.decode().split(";")
    return set(loaded.split()) - BUILT_IN, set(linked.split())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("program", LOADED)
def test_little_is_loaded_for_a_message(home: EnqueueHome, program: str) -> None:
    loaded, linked = run(home, program)
    assert loaded <= LOADED[program]
    assert not linked


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("program", LOADED)
def test_linked_program_looks_for_nothing(home: EnqueueHome, program: str) -> None:
    linker.link(program.replace("-", "_"))
    loaded, linked = run(home, program)
    assert loaded == linked == LOADED[program] - {"__future__"}


@pytest.mark.parametrize("damage", ["time", "size", "source", "cut", "magic"])
def test_stale_linked_file_is_not_used(
    home: EnqueueHome, folder: Path, damage: str
) -> None:
    linker.link("qmail_queue")
    path = folder / f"qmail_queue.{MAGIC_NUMBER.hex()}"
    loader, parts = marshal.loads(path.read_bytes())
    name, source, is_package, mtime_ns, size, code = parts[-1]
    if damage == "time":
        mtime_ns += 1
    elif damage == "size":
        size += 1
    elif damage == "source":
        source += "x"
    elif damage == "magic":
        path.rename(folder / "qmail_queue.0000")
    parts[-1] = (name, source, is_package, mtime_ns, size, code)
    content = marshal.dumps((loader, parts))
    if damage != "magic":
        path.write_bytes(content[:-100] if damage == "cut" else content)
    _loaded, linked = run(home, "qmail-queue")
    assert not linked


def test_linked_code_can_be_shown_in_a_traceback(folder: Path) -> None:
    linker.link("qmail_queue")
    path = folder / f"qmail_queue.{MAGIC_NUMBER.hex()}"
    loader, _parts = marshal.loads(path.read_bytes())
    names: dict[str, Any] = {}
    exec(loader, names)
    with pytest.raises(TypeError) as caught:
        names["load"](1)
    shown = traceback.format_exception(caught.value)
    assert "in load" in shown[-2]
