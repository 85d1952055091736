"""Uniform distributions: over ``2**precision`` symbols, and over any number of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Integers, Symbols


@dataclass(frozen=True)
class Uniform:
    """``count`` uniform distributions. A symbol costs ``precision`` bits."""

    count: int
    precision: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, block: slice) -> Uniform:
        return Uniform(len(range(*block.indices(self.count))), self.precision)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        return symbols.astype(np.uint64), np.ones(len(symbols), np.uint64)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        return values.astype(np.int64), values, np.ones(len(values), np.uint64)


TOTAL_BITS = np.uint64(31)


@dataclass(frozen=True, eq=False)
class UniformBelow:
    """Uniform distributions over ``totals`` symbols each, int64 ``(count,)``, from 1 to ``2**31``.

    Symbol ``s`` of ``t`` has the interval from ``floor(s * 2**31 / t)`` to ``floor((s + 1) * 2**31 / t)``, and so costs
    log2(t) bits, to within t / 2**31. One symbol alone costs nothing.

    >>> three = UniformBelow(np.array([3, 3, 3]))
    >>> start, frequency = three.interval(np.array([0, 1, 2]))
    >>> (start + frequency).tolist()
    [715827882, 1431655765, 2147483648]
    >>> three.locate(start)[0].tolist()
    [0, 1, 2]
    """

    totals: NDArray[np.int64]

    @property
    def precision(self) -> int:
        return int(TOTAL_BITS)

    def __len__(self) -> int:
        return len(self.totals)

    def __getitem__(self, block: slice) -> UniformBelow:
        return UniformBelow(self.totals[block])

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        totals, first = self.totals.astype(np.uint64), symbols.astype(np.uint64)
        start = (first << TOTAL_BITS) // totals
        return start, ((first + np.uint64(1)) << TOTAL_BITS) // totals - start

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        one = np.uint64(1)
        symbols = (((values + one) * self.totals.astype(np.uint64) - one) >> TOTAL_BITS).astype(np.int64)
        return symbols, *self.interval(symbols)
