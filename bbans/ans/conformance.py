"""The tests that every ANS core must pass, as one call: ``check_core(core)``.

A core is held against a reference of a dozen lines on Python's own integers, word for word, over random
operations, and against the contract of :class:`bbans.ans.stack.Stack`.

>>> from bbans.ans import core_named
>>> check_core(core_named("numpy"))
"""

from __future__ import annotations

import numpy as np

from bbans.ans.lanes import fold, grow
from bbans.ans.stack import HEAD_MINIMUM, PRECISION_MAXIMUM, Core, Integers, Stack, Words
from bbans.errors import StackUnderflow


class ReferenceStack:
    """The contract, written for reading: one lane after the other, on Python integers."""

    def __init__(self, words: Words, lanes: int) -> None:
        values = [int(word) for word in words]
        self.heads = [high << 32 | low for high, low in zip(values[:lanes], values[lanes : 2 * lanes], strict=True)]
        self.tail = values[2 * lanes :]
        self.low_water = len(self.tail)

    def push(self, start: Integers, frequency: Integers, precision: int) -> None:
        given = []
        for lane, (s, f) in enumerate(zip(start.tolist(), frequency.tolist(), strict=True)):
            head = self.heads[lane]
            if head >= f << (63 - precision):
                given.append(head & 0xFFFFFFFF)
                head >>= 32
            self.heads[lane] = (head // f << precision) + head % f + s
        self.tail = given + self.tail

    def pop(self, start: Integers, frequency: Integers, precision: int) -> None:
        for lane, (s, f) in enumerate(zip(start.tolist(), frequency.tolist(), strict=True)):
            head = self.heads[lane]
            head = f * (head >> precision) + head % (1 << precision) - s
            if head < HEAD_MINIMUM:
                head = head << 32 | self.tail.pop(0)
            self.heads[lane] = head
        self.low_water = min(self.low_water, len(self.tail))

    def to_words(self) -> Words:
        words = [head >> 32 for head in self.heads] + [head & 0xFFFFFFFF for head in self.heads] + self.tail
        return np.array(words, np.uint32)


def check_core(core: Core, rounds: int = 25, seed: int = 0) -> None:
    """Raise :class:`AssertionError`, saying which property fails, unless ``core`` keeps the contract."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        lanes = int(rng.integers(1, 40))
        words = random_words(rng, lanes, tail=int(rng.integers(0, 200)))
        stack = core.from_words(words, lanes)
        assert stack.lanes == lanes, "from_words: wrong number of lanes"
        assert stack.tail_words == len(words) - 2 * lanes, "from_words: wrong number of tail words"
        assert_words(stack, words, "to_words must return what from_words took")
        _check_against_reference(rng, stack, ReferenceStack(words, lanes), lanes)
        _check_inverses(rng, core, lanes)
        _check_lanes(rng, core, lanes)
    _check_underflow(core)


def random_words(rng: np.random.Generator, lanes: int, tail: int) -> Words:
    """A valid flattened stack with random heads of every magnitude."""
    heads = (np.uint64(1) << rng.integers(31, 63, lanes).astype(np.uint64)) | rng.integers(
        0, HEAD_MINIMUM, lanes, dtype=np.uint64
    )
    body = rng.integers(0, 1 << 32, tail, dtype=np.uint32)
    return np.concatenate([(heads >> np.uint64(32)).astype(np.uint32), heads.astype(np.uint32), body])


def random_intervals(rng: np.random.Generator, count: int) -> tuple[Integers, Integers, int]:
    """Random ``(start, frequency, precision)``, narrow and wide."""
    precision = int(rng.integers(0, PRECISION_MAXIMUM + 1))
    total = 1 << precision
    frequency = np.minimum(total, 1 + (total * rng.random(count) ** 8).astype(np.uint64)).astype(np.uint64)
    start = (rng.random(count) * (total - frequency + np.uint64(1))).astype(np.uint64)
    return np.minimum(start, np.uint64(total) - frequency), frequency, precision


def random_intervals_at(rng: np.random.Generator, values: Integers, precision: int) -> tuple[Integers, Integers]:
    """Random intervals that hold ``values``."""
    start = (values * rng.random(len(values))).astype(np.uint64)
    start = np.minimum(start, values)
    room = np.uint64(1 << precision) - values
    stop = np.minimum(
        values + np.uint64(1) + (room * rng.random(len(values))).astype(np.uint64), np.uint64(1 << precision)
    )
    return start, stop - start


def assert_words(stack: Stack, words: Words, message: str) -> None:
    """Raise :class:`AssertionError` with ``message`` unless the stack's words are ``words``."""
    assert np.array_equal(stack.to_words(), words), message


def _check_against_reference(rng: np.random.Generator, stack: Stack, reference: ReferenceStack, lanes: int) -> None:
    for _ in range(20):
        count = int(rng.integers(1, lanes + 1))
        start, frequency, precision = random_intervals(rng, count)
        kept = start.copy(), frequency.copy()
        stack.push(start, frequency, precision)
        reference.push(start, frequency, precision)
        assert np.array_equal(start, kept[0]) and np.array_equal(frequency, kept[1]), "push modified its arguments"
        assert_words(stack, reference.to_words(), "push differs from the reference")
        values = stack.peek(count, precision)
        assert (values >= start).all() and (values < start + frequency).all(), "peek must show what was pushed"
        if rng.random() < 0.5:
            stack.pop(start, frequency, precision)
            reference.pop(start, frequency, precision)
        assert_words(stack, reference.to_words(), "pop differs from the reference, or peek changed the stack")
        assert stack.tail_words == len(reference.tail), "tail_words differs from the reference"
        assert stack.low_water == reference.low_water, "low_water differs from the reference"


def _check_inverses(rng: np.random.Generator, core: Core, lanes: int) -> None:
    before = random_words(rng, lanes, tail=100)
    stack = core.from_words(before, lanes)
    start, frequency, precision = random_intervals(rng, lanes)
    stack.push(start, frequency, precision)
    stack.pop(start, frequency, precision)
    assert_words(stack, before, "pop must undo push")
    values = stack.peek(lanes, precision)
    start, frequency = random_intervals_at(rng, values, precision)
    stack.pop(start, frequency, precision)
    stack.push(start, frequency, precision)
    assert_words(stack, before, "push must undo pop")


def _check_lanes(rng: np.random.Generator, core: Core, lanes: int) -> None:
    before = random_words(rng, lanes, tail=1000)
    stack = core.from_words(before, lanes)
    heads = stack.remove_lanes(lanes // 2)
    assert stack.lanes == lanes - lanes // 2, "remove_lanes: wrong number of lanes left"
    stack.add_lanes(heads)
    assert_words(stack, before, "add_lanes must undo remove_lanes")
    grow(stack, 5 * lanes)
    assert stack.lanes == 5 * lanes, "grow: wrong number of lanes"
    fold(stack, lanes)
    assert_words(stack, before, "fold must undo grow")


def _check_underflow(core: Core) -> None:
    stack = core.from_words(np.array([0, HEAD_MINIMUM], np.uint32), 1)
    value = stack.peek(1, 16)
    try:
        stack.pop(value, np.ones(1, np.uint64), 16)
    except StackUnderflow:
        return
    raise AssertionError("a pop from an empty tail must raise StackUnderflow")
