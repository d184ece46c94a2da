"""queue_layout.md says what the code does: its tables are the code's."""

from __future__ import annotations

import re

import pytest

from qsend.core.states import FILES, PATTERNS, TRANSITIONS
from qsend.formats.layout import ENTRIES, QUEUE_FILES
from qsend.formats.paths import FLAT_DIRS, SPLIT_DIRS
from tools import layout_tables

TEXT = layout_tables.DOCUMENT.read_text()


@pytest.mark.parametrize("name", layout_tables.TABLES)
def test_table_of_the_document_is_the_one_of_the_code(name: str) -> None:
    assert TEXT.count(f"<!-- table {name} -->") == 1
    table = layout_tables.TABLES[name]()
    assert f"<!-- table {name} -->\n{table}<!-- end -->" in TEXT


def test_document_is_what_the_tool_would_write() -> None:
    assert layout_tables.rewritten(TEXT) == TEXT
    assert sorted(layout_tables.names(TEXT)) == sorted(layout_tables.TABLES)


def test_every_entry_state_and_transition_has_a_row() -> None:
    for entry in ENTRIES:
        row = rf"^\|.*`{re.escape(entry.path)}`.*\| {entry.mode:04o} \|"
        assert re.search(row, TEXT, re.MULTILINE), entry.path
    for file in QUEUE_FILES:
        assert f"| `{file.path}` | {file.owner.value} | {file.mode:04o} |" in TEXT
    for state, pattern in PATTERNS.items():
        assert f"| {state.value} | {' | '.join(pattern)} |" in TEXT
    for each in TRANSITIONS:
        assert f"| {each.before.value} | {each.after.value} | {each.actor} |" in TEXT


def test_layout_and_paths_name_the_same_directories() -> None:
    split = {entry.path for entry in ENTRIES if entry.split}
    flat = {entry.path for entry in ENTRIES if not entry.split} - {"."}
    assert split == set(SPLIT_DIRS)
    assert {path for path in flat if "/" not in path} == set(FLAT_DIRS)
    assert set(FILES) <= set(SPLIT_DIRS) | set(FLAT_DIRS)


def test_check_notices_a_document_that_drifted() -> None:
    drifted = TEXT.replace("| 0622 |", "| 0666 |")
    assert drifted != TEXT
    assert layout_tables.rewritten(drifted) == TEXT


def test_paths_in_backquotes_are_queue_paths() -> None:
    assert re.findall(r"`([a-z]+)/N`", TEXT)
    known = {entry.path for entry in ENTRIES} | set(FILES)
    for word in re.findall(r"`([a-z]+)/N`", TEXT):
        assert word in known, word
