"""The uniform distribution over ``2**precision`` symbols."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
