"""Every parser of bytes that somebody else made, and the inputs kept for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.files import FILES
from tests.fuzz.peers import PEERS
from tests.fuzz.target import Target
from tests.fuzz.wires import WIRES

TARGETS: Mapping[str, Target] = {each.name: each for each in (*WIRES, *FILES, *PEERS)}
CORPUS = Path(__file__).parent / "corpus"


def corpus_file(name: str) -> Path:
    """Where the inputs of a target are kept, one to a line as Python writes bytes."""
    return CORPUS / f"{re.sub(r'[^a-z0-9]+', '-', name)}.txt"


def inputs(target: Target) -> list[bytes]:
    """The seeds, and what earlier runs found worth keeping."""
    kept: list[bytes] = []
    path = corpus_file(target.name)
    if path.exists():
        kept = [ast.literal_eval(line) for line in path.read_text().splitlines()]
    return list(dict.fromkeys([*target.seeds, *kept]))
