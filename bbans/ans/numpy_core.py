"""The default core: vectorized rANS in NumPy."""

from __future__ import annotations

import numpy as np

from bbans.ans.stack import HEAD_MINIMUM, Integers, Words
from bbans.errors import StackUnderflow

WORD_BITS = np.uint64(32)
LOW_WORD = np.uint64(0xFFFFFFFF)
LEAST = np.uint64(HEAD_MINIMUM)


class NumpyStack:
    """A :class:`bbans.ans.stack.Stack` on NumPy arrays.

    The tail lies in a buffer that fills from its end towards its beginning, so that the newest word comes
    first, as in the flattened layout.
    """

    def __init__(self, heads: Integers, tail: Words) -> None:
        self.heads = heads.astype(np.uint64)
        self.buffer = tail.astype(np.uint32)
        self.top = 0  # where the tail begins in the buffer
        self.low_water = len(tail)

    @property
    def lanes(self) -> int:
        return len(self.heads)

    @property
    def tail_words(self) -> int:
        return len(self.buffer) - self.top

    def push(self, start: Integers, frequency: Integers, precision: int) -> None:
        heads = self.heads[: len(start)]
        full = heads >= (frequency << np.uint64(63 - precision))
        if np.count_nonzero(full):
            self._give(heads[full])
            np.right_shift(heads, WORD_BITS, out=heads, where=full)
        quotient = heads // frequency
        # quotient << precision + heads % frequency + start, with one product instead of a second division.
        quotient *= np.uint64(1 << precision) - frequency
        quotient += start
        heads += quotient

    def peek(self, count: int, precision: int) -> Integers:
        return self.heads[:count] & np.uint64((1 << precision) - 1)

    def pop(self, start: Integers, frequency: Integers, precision: int) -> None:
        heads = self.heads[: len(start)]
        popped = heads >> np.uint64(precision)
        popped *= frequency
        popped += heads & np.uint64((1 << precision) - 1)
        popped -= start
        empty = popped < LEAST
        count = int(np.count_nonzero(empty))
        if count:
            words = np.zeros(len(popped), np.uint64)
            words[empty] = self._take(count)
            np.left_shift(popped, WORD_BITS, out=popped, where=empty)
            popped |= words
        heads[:] = popped

    def popped_to(self, top: int) -> None:
        """Go on where code that popped by itself ended; raises :class:`bbans.errors.StackUnderflow` if that is beyond
        the tail's end.
        """
        if top > len(self.buffer):
            raise StackUnderflow(f"a pop needs {top - self.top} words, the stack's tail holds {self.tail_words}")
        self.top = top
        self.low_water = min(self.low_water, self.tail_words)

    def add_lanes(self, heads: Integers) -> None:
        self.heads = np.concatenate([self.heads, heads])

    def remove_lanes(self, count: int) -> Integers:
        kept = len(self.heads) - count
        removed = self.heads[kept:].copy()
        self.heads = self.heads[:kept].copy()
        return removed

    def to_words(self) -> Words:
        high = (self.heads >> WORD_BITS).astype(np.uint32)
        low = (self.heads & LOW_WORD).astype(np.uint32)
        return np.concatenate([high, low, self.buffer[self.top :]])

    def _give(self, words: Integers) -> None:
        """Put the low words of heads on the tail, the first one topmost."""
        self.make_room(len(words))
        self.buffer[self.top - len(words) : self.top] = words.astype(np.uint32)
        self.top -= len(words)

    def make_room(self, count: int) -> None:
        """Before the tail, for so many words."""
        if count > self.top:
            room = max(count, len(self.buffer), 1024)
            self.buffer = np.concatenate([np.empty(room, np.uint32), self.buffer])
            self.top += room

    def _take(self, count: int) -> Words:
        """Take words off the tail, the topmost first."""
        if count > self.tail_words:
            raise StackUnderflow(f"a pop needs {count} words, the stack's tail holds {self.tail_words}")
        words = self.buffer[self.top : self.top + count]
        self.top += count
        self.low_water = min(self.low_water, self.tail_words)
        return words


class NumpyCore:
    """Makes :class:`NumpyStack` objects."""

    name = "numpy"

    def from_words(self, words: Words, lanes: int) -> NumpyStack:
        return NumpyStack(*unflatten(words, lanes))


def unflatten(words: Words, lanes: int) -> tuple[Integers, Words]:
    """Heads and tail of a flattened stack."""
    heads = (words[:lanes].astype(np.uint64) << WORD_BITS) | words[lanes : 2 * lanes]
    return heads, words[2 * lanes :]


core = NumpyCore()
