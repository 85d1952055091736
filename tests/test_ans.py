"""The ANS stack: every core keeps the contract, and lanes cost nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bbans.ans import HEAD_MINIMUM, Core, core_named, core_names, fold, grow
from bbans.ans.conformance import check_core
from bbans.errors import CoreError, StackUnderflow


@pytest.fixture(params=["numpy", "numba", "craystack"])
def core(request: pytest.FixtureRequest) -> Core:
    if request.param != "numpy":
        pytest.importorskip(request.param)
    return core_named(request.param)


def test_core_keeps_the_contract(core: Core) -> None:
    check_core(core)


def test_conformance_suite_finds_a_fault() -> None:
    """A suite that can't fail proves nothing: a core with one wrong rounding must not pass."""

    class Faulty:
        name = "faulty"

        def from_words(self, words, lanes):  # type: ignore[no-untyped-def]
            stack = core_named().from_words(words, lanes)
            push = stack.push
            stack.push = lambda start, frequency, precision: push(start, frequency, max(precision, 1))
            return stack

    with pytest.raises(AssertionError, match="push"):
        check_core(Faulty())


def test_known_answer(core: Core) -> None:
    """Computed by hand: 2**31 = 3 * 715827882 + 2, so the head becomes 715827882 * 2**4 + 2 + 5."""
    stack = core.from_words(np.array([0, HEAD_MINIMUM], np.uint32), lanes=1)
    stack.push(np.array([5], np.uint64), np.array([3], np.uint64), 4)
    head = 715827882 * 16 + 7
    assert stack.to_words().tolist() == [head >> 32, head & 0xFFFFFFFF]


def test_an_empty_tail_never_yields_bits(core: Core) -> None:
    stack = core.from_words(np.array([0, HEAD_MINIMUM], np.uint32), lanes=1)
    with pytest.raises(StackUnderflow, match="holds 0"):
        stack.pop(stack.peek(1, 8), np.ones(1, np.uint64), 8)


@pytest.mark.parametrize("lanes", [2, 37, 1000])
def test_lanes_cost_less_than_a_bit_each(lanes: int) -> None:
    """The same symbols over one lane and over many make messages of almost the same length."""
    rng = np.random.default_rng(lanes)
    tail = rng.integers(0, 1 << 32, 60 * lanes, dtype=np.uint32)
    start = np.concatenate([np.array([0, HEAD_MINIMUM], np.uint32), tail])
    frequency = rng.integers(1, 1 << 12, 40 * lanes).astype(np.uint64)
    sizes = []
    for count in (1, lanes):
        stack = core_named().from_words(start, lanes=1)
        grow(stack, count)
        for first in range(0, len(frequency), count):
            block = frequency[first : first + count]
            stack.push(np.zeros_like(block), block, 12)
        fold(stack, 1)
        words = stack.to_words()
        sizes.append(32 * len(words) - 64 + np.log2(float(words[0]) * 2**32 + float(words[1])))
    assert sizes[1] - sizes[0] < lanes


def test_unknown_core_is_named_with_those_there_are() -> None:
    with pytest.raises(CoreError, match=r"no ANS core named 'no-such'.*numpy"):
        core_named("no-such")
    assert {"numpy", "craystack"} <= set(core_names())
