"""Every parser on its kept inputs and on changes of them: refusals, time, memory.

The long part is `python -m tests.fuzz`.
"""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutated
from tests.fuzz.target import INPUT_MAX, Target
from tests.fuzz.targets import CORPUS, TARGETS, corpus_file, inputs

EXAMPLES = 80
MEMORY_PER_BYTE = 400
"""A parsed record of few bytes is an object of a few hundred."""
MEMORY_BYTES = 1 << 20

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_parser_takes_its_seeds(target: Target) -> None:
    assert target.seeds
    taken = [target.check(seed) for seed in target.seeds]
    assert any(taken)


@each_target
def test_parser_refuses_only_as_it_may(target: Target) -> None:
    known = inputs(target)
    for data in known:
        target.check(data)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.binary(max_size=300) | st.integers(0, 1 << 32))
    def anything(drawn: bytes | int) -> None:
        if isinstance(drawn, int):
            drawn = mutated(Random(drawn), known, target.tokens)
        target.check(drawn)

    anything()


def repeated(piece: bytes, length: int) -> bytes:
    return (piece * (length // max(1, len(piece)) + 1))[:length]


@each_target
def test_long_input_takes_neither_long_nor_much_memory(target: Target) -> None:
    for piece in (*target.seeds, *target.tokens, b"\0", b"a", b"\n"):
        target.check(repeated(piece, INPUT_MAX))
    tracemalloc.start()
    try:
        for piece in target.seeds:
            target.check(repeated(piece, INPUT_MAX // 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES + MEMORY_PER_BYTE * INPUT_MAX // 16


def test_every_kept_file_belongs_to_a_target() -> None:
    files = {path.name for path in CORPUS.glob("*.txt")}
    assert files <= {corpus_file(name).name for name in TARGETS}
