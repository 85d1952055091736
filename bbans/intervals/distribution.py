"""The contract of a distribution, stated once."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.int64]
Integers = NDArray[np.uint64]


class Distribution(Protocol):
    """``len(self)`` independent discrete distributions on ``2**precision``."""

    @property
    def precision(self) -> int:
        """log2 of what the frequencies of each distribution add up to; at most 31."""

    def __len__(self) -> int: ...

    def __getitem__(self, block: slice) -> Distribution:
        """Some of the distributions."""

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        """Start and frequency of one symbol for each distribution, each ``(len(self),)``.

        The intervals of all symbols lie side by side, without gaps, and none that can occur is empty.
        """

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        """For one value in ``[0, 2**precision)`` for each distribution: the symbol whose interval holds it,
        and that interval's start and frequency.
        """
