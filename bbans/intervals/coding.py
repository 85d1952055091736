"""Pushing and popping arrays of symbols, spread over the lanes of a stack."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from bbans.ans.stack import Stack
from bbans.intervals.distribution import Distribution, Symbols


def push(stack: Stack, distribution: Distribution, symbols: Symbols) -> None:
    """Push ``len(distribution)`` symbols, as many at a time as the stack has lanes."""
    lanes = stack.lanes
    start, frequency = distribution.interval(symbols)
    for first in range(0, len(symbols), lanes):
        block = slice(first, first + lanes)
        stack.push(start[block], frequency[block], distribution.precision)


@runtime_checkable
class Poppable(Protocol):
    """A distribution that knows a faster way than :func:`pop_blocks` to do the same."""

    def pop_from(self, stack: Stack) -> Symbols:
        """Pop a symbol for each distribution."""


def pop(stack: Stack, distribution: Distribution) -> Symbols:
    """Pop ``len(distribution)`` symbols: the inverse of :func:`push`, last block first."""
    return distribution.pop_from(stack) if isinstance(distribution, Poppable) else pop_blocks(stack, distribution)


def pop_blocks(stack: Stack, distribution: Distribution) -> Symbols:
    """:func:`pop`, on any stack and for any distribution."""
    lanes = stack.lanes
    symbols = np.empty(len(distribution), np.int64)
    for first in reversed(range(0, len(symbols), lanes)):
        block = slice(first, first + lanes)
        part = distribution[block]
        values = stack.peek(len(part), part.precision)
        symbols[block], start, frequency = part.locate(values)
        stack.pop(start, frequency, part.precision)
    return symbols
