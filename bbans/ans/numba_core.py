"""The core in compiled code, for those who have numba: the words of :mod:`bbans.ans.numpy_core`."""

from __future__ import annotations

import numpy as np
from numba import njit

from bbans.ans.numpy_core import NumpyStack, unflatten
from bbans.ans.stack import HEAD_MINIMUM, Integers, Words

DIVISION_BITS = 12
"""From this precision on quotients are below 2**51, so that float64 tells them but for the last unit."""


@njit(nogil=True, cache=True)
def push_lanes(heads: Integers, start: Integers, frequency: Integers, precision: int, buffer: Words, top: int) -> int:
    """Returns where the tail begins now; there must be room for a word from each lane."""
    given = 0
    for lane in range(len(start)):
        given += heads[lane] >= frequency[lane] << np.uint64(63 - precision)
    place = top = top - given
    for lane in range(len(start)):
        if heads[lane] >= frequency[lane] << np.uint64(63 - precision):
            buffer[place] = np.uint32(heads[lane])
            heads[lane] >>= np.uint64(32)
            place += 1
    if precision < DIVISION_BITS:
        for lane in range(len(start)):
            quotient = heads[lane] // frequency[lane]
            heads[lane] += quotient * ((np.uint64(1) << np.uint64(precision)) - frequency[lane]) + start[lane]
        return top
    for lane in range(len(start)):
        head, divisor = np.int64(heads[lane]), np.int64(frequency[lane])
        quotient = np.int64(np.float64(head) / np.float64(divisor))
        rest = head - quotient * divisor
        quotient += np.int64(rest >= divisor) - np.int64(rest < 0)
        heads[lane] = np.uint64(head + quotient * ((np.int64(1) << precision) - divisor)) + start[lane]
    return top


@njit(nogil=True, cache=True)
def pop_lanes(heads: Integers, start: Integers, frequency: Integers, precision: int, buffer: Words, top: int) -> int:
    """Returns where the tail begins now; beyond its end it changes nothing."""
    popped = np.empty(len(start), np.uint64)
    mask = np.uint64((1 << precision) - 1)
    needed = 0
    for lane in range(len(start)):
        popped[lane] = frequency[lane] * (heads[lane] >> np.uint64(precision)) + (heads[lane] & mask) - start[lane]
        needed += popped[lane] < np.uint64(HEAD_MINIMUM)
    if top + needed > len(buffer):
        return top + needed
    for lane in range(len(start)):
        head = popped[lane]
        if head < np.uint64(HEAD_MINIMUM):
            head = (head << np.uint64(32)) | np.uint64(buffer[top])
            top += 1
        heads[lane] = head
    return top


class NumbaStack(NumpyStack):
    """A :class:`bbans.ans.stack.Stack`."""

    def push(self, start: Integers, frequency: Integers, precision: int) -> None:
        self.make_room(len(start))
        self.top = push_lanes(self.heads, start, frequency, precision, self.buffer, self.top)

    def pop(self, start: Integers, frequency: Integers, precision: int) -> None:
        self.popped_to(pop_lanes(self.heads, start, frequency, precision, self.buffer, self.top))


class NumbaCore:
    """Makes :class:`NumbaStack` objects."""

    name = "numba"

    def from_words(self, words: Words, lanes: int) -> NumbaStack:
        return NumbaStack(*unflatten(words, lanes))


core = NumbaCore()
