"""What the Gaussian and the logistic distribution share: an integer distribution function of (edge - mean) / scale.

The function is a table on an even grid, interpolated linearly in integers, so it never decreases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.portable import elementary
from bbans.portable.elementary import Floats

Signed = NDArray[np.int64]

PRECISION = 24
FRACTION = 20
"""Standardized edges are multiples of ``2**-FRACTION``."""
GRID_BITS = 6
"""The grid has a node every ``2**-GRID_BITS``."""
SCALE_FRACTION = 20
"""Inverse scales are multiples of ``2**-SCALE_FRACTION``."""
LOG_SCALE_FRACTION = 16
"""Logarithms of scales come as multiples of ``2**-LOG_SCALE_FRACTION``..."""
LOG_SCALE_BITS = 8
"""...and are rounded to multiples of ``2**-LOG_SCALE_BITS``."""


@dataclass(frozen=True, eq=False)
class DistributionTable:
    """A distribution function, scaled to ``0 .. total``."""

    nodes: Signed
    limit: int
    """The grid runs from ``-limit`` to ``limit``."""

    @staticmethod
    def of(function: Callable[[Floats], Floats], limit: int, total: int) -> DistributionTable:
        grid = np.arange(-limit << GRID_BITS, (limit << GRID_BITS) + 1) / float(1 << GRID_BITS)
        nodes = np.rint(function(grid) * total).astype(np.int64)
        nodes[0], nodes[-1] = 0, total
        nodes.flags.writeable = False
        return DistributionTable(nodes, limit)

    def __call__(self, standardized: Signed) -> Signed:
        """The distribution function at multiples of ``2**-FRACTION``."""
        inner_bits = FRACTION - GRID_BITS
        largest = (2 * self.limit << FRACTION) - 1
        place = clip(standardized + (self.limit << FRACTION), 0, largest)
        node = place >> inner_bits
        below: Signed = self.nodes[node]
        inside: Signed = below + ((self.nodes[node + 1] - below) * (place & ((1 << inner_bits) - 1)) >> inner_bits)
        return inside


def clip(values: Signed, minimum: int, maximum: int) -> Signed:
    """``np.clip``, which takes longer to look at its arguments than to clip a few thousand values."""
    clipped = np.maximum(values, minimum)
    return np.minimum(clipped, maximum, out=clipped)


def inverse_scales(minimum: int, maximum: int) -> Signed:
    """A table of ``exp(-log_scale)`` times ``2**SCALE_FRACTION``, from ``minimum`` to ``maximum``."""
    steps = np.arange(minimum << LOG_SCALE_BITS, (maximum << LOG_SCALE_BITS) + 1)
    exact = elementary.exponential(-steps / float(1 << LOG_SCALE_BITS))
    table = np.rint(np.ldexp(exact, SCALE_FRACTION)).astype(np.int64)
    table.flags.writeable = False
    return table


def look_up_inverse_scale(table: Signed, log_scale: Signed, minimum: int) -> Signed:
    """The inverse scale for network outputs that are log-scales times ``2**LOG_SCALE_FRACTION``."""
    dropped = LOG_SCALE_FRACTION - LOG_SCALE_BITS
    rounded = (log_scale + (1 << (dropped - 1))) >> dropped
    inverse: Signed = table[clip(rounded - (minimum << LOG_SCALE_BITS), 0, len(table) - 1)]
    return inverse


def bisect(distribution_function: Callable[[Signed], Signed], values: Signed, symbol_bits: int) -> Signed:
    """The last of ``2**symbol_bits`` symbols whose interval starts at or below each value."""
    symbols = np.zeros(len(values), np.int64)
    for bit in reversed(range(symbol_bits)):
        candidates = symbols + (1 << bit)
        symbols = np.where(distribution_function(candidates) <= values, candidates, symbols)
    return symbols
