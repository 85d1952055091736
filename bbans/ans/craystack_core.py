"""A core that wraps craystack's vectorized rANS, to show that the bytes are the same.

craystack is not on PyPI: install it from https://github.com/j-towns/craystack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from craystack import rans

from bbans.ans.stack import HEAD_MINIMUM, Integers, Words
from bbans.errors import StackUnderflow


class CraystackStack:
    """A :class:`bbans.ans.stack.Stack` around a craystack message, which is a pair of heads and nested tail."""

    def __init__(self, message: tuple[Integers, Any]) -> None:
        self._heads, self._tail = message
        self.tail_words = self.low_water = len(rans.flatten(message)) - 2 * self.lanes

    @property
    def lanes(self) -> int:
        return len(self._heads)

    def push(self, start: Integers, frequency: Integers, precision: int) -> None:
        heads, tail = self._first(len(start))
        self.tail_words += int(np.count_nonzero(heads >= frequency << np.uint64(63 - precision)))
        self._replace(rans.push((heads, tail), start, frequency, precision))

    def peek(self, count: int, precision: int) -> Integers:
        values: Integers = rans.pop(self._first(count), precision)[0]
        return values

    def pop(self, start: Integers, frequency: Integers, precision: int) -> None:
        heads, tail = self._first(len(start))
        values, finish = rans.pop((heads, tail), precision)
        # craystack would invent random words for an empty tail.
        popped = frequency * (heads >> np.uint64(precision)) + values - start
        needed = int(np.count_nonzero(popped < HEAD_MINIMUM))
        if needed > self.tail_words:
            raise StackUnderflow(f"a pop needs {needed} words, the stack's tail holds {self.tail_words}")
        self._replace(finish(start, frequency))
        self.tail_words -= needed
        self.low_water = min(self.low_water, self.tail_words)

    def add_lanes(self, heads: Integers) -> None:
        self._heads = np.concatenate([self._heads, heads])

    def remove_lanes(self, count: int) -> Integers:
        kept = len(self._heads) - count
        self._heads, removed = self._heads[:kept], self._heads[kept:]
        return removed

    def to_words(self) -> Words:
        words: Words = rans.flatten((self._heads, self._tail))
        return words

    def _first(self, count: int) -> tuple[Integers, Any]:
        return self._heads[:count].copy(), self._tail

    def _replace(self, message: tuple[Integers, Any]) -> None:
        heads, self._tail = message
        self._heads = np.concatenate([heads, self._heads[len(heads) :]])


class CraystackCore:
    """Makes :class:`CraystackStack` objects."""

    name = "craystack"

    def from_words(self, words: Words, lanes: int) -> CraystackStack:
        return CraystackStack(rans.unflatten(words, (lanes,)))


core = CraystackCore()
