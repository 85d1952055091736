"""Pixels of 256 grey levels: a logistic density integrated over each level's bin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Integers, Symbols
from bbans.intervals.location_scale import (
    FRACTION,
    GRID_BITS,
    PRECISION,
    SCALE_FRACTION,
    DistributionTable,
    Signed,
    bisect,
    clip,
    inverse_scales,
    look_up_inverse_scale,
)
from bbans.portable import elementary

LEVELS = 256
MEAN_FRACTION = 9
"""Means are multiples of ``2**-MEAN_FRACTION`` grey levels: decoder outputs are in 128 grey levels."""
MEAN_MAXIMUM = 1024
LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM = -4, 8
BEYOND = 1 << 26
"""An outermost edge: further from every mean, in every scale, than the table reaches."""
TABLE_LIMIT = 18
GUESS_BITS = 12
GRADIENT_BITS = 5
"""Gradients come from tables with a node every ``2**-GRADIENT_BITS``..."""
GRADIENT_LIMIT = 18
"""...as far out as this."""
FAR = np.float32(1 << 20)
"""In grey levels: beyond every table."""

Floats32 = NDArray[np.float32]

_table = cache(lambda: DistributionTable.of(elementary.logistic, TABLE_LIMIT, (1 << PRECISION) - LEVELS))
_inverse_scales = cache(lambda: inverse_scales(LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM))


@cache
def _edges() -> Signed:
    """Where each level begins, half a level below it; the first and the last bin have no end."""
    edges = ((2 * np.arange(LEVELS + 1) - 1) << (MEAN_FRACTION - 1)).astype(np.int64)
    edges[0], edges[-1] = -BEYOND, BEYOND
    edges.flags.writeable = False
    return edges


@cache
def _quantiles() -> NDArray[np.float64]:
    """Standardized quantiles, for guesses only: nothing that is coded depends on them."""
    values = (np.arange(1 << GUESS_BITS) + 0.5) * (1 << (PRECISION - GUESS_BITS))
    nodes = _table().nodes
    grid = np.arange(len(nodes)) / (1 << GRID_BITS) - TABLE_LIMIT
    standardized: NDArray[np.float64] = np.interp(values, nodes, grid)
    return standardized * float(1 << (SCALE_FRACTION + MEAN_FRACTION))


@cache
def _gradient_tables() -> tuple[Floats32, Floats32, Floats32, Floats32]:
    """F and 1 - F for each standardized edge; for each log-scale s, exp(-s) in steps of the edges' grid, and d/ds of
    log(1 - exp(-exp(-s))).
    """
    unit = float(1 << GRADIENT_BITS)
    steps = np.arange(-GRADIENT_LIMIT << GRADIENT_BITS, (GRADIENT_LIMIT << GRADIENT_BITS) + 1)
    cumulative = elementary.logistic(steps / unit)
    cumulative[0], cumulative[-1] = 0.0, 1.0
    inverse = elementary.exponential(
        -np.arange(LOG_SCALE_MINIMUM << GRADIENT_BITS, (LOG_SCALE_MAXIMUM << GRADIENT_BITS) + 1) / unit
    )
    narrowing = -inverse / (elementary.exponential(inverse) - 1.0)
    tables = tuple(table.astype(np.float32) for table in (cumulative, 1.0 - cumulative, inverse * unit, narrowing))
    for table in tables:
        table.flags.writeable = False
    return tables  # type: ignore[return-value]


def log_prob_gradient(x: Floats32) -> Callable[[Floats32], Floats32]:
    """The gradient of log p(x) with respect to real decoder outputs, as a function of them.

    ``x`` is ``(images, pixels)`` with values 0.0 to 255.0; outputs and gradient are ``(images, 2 * pixels)``: means in
    128 grey levels, then logs of scales in grey levels. With F the logistic function, and a and b the standardized
    edges above and below a pixel's level, log p is log F(a) + log F(-b) + log(1 - exp(b - a)), of which the first
    level has only the first term and the last level only the second.
    """
    tables = _gradient_tables()
    unit = np.float32(1 << GRADIENT_BITS)
    half = np.float32(0.5)
    centre = np.float32(GRADIENT_LIMIT) * unit + half
    least = half - np.float32(LOG_SCALE_MINIMUM) * unit
    first, last = x == 0, x == LEVELS - 1
    lower, upper = np.where(first, -FAR, x - half), np.where(last, FAR, x + half)
    inner = np.where(first | last, np.float32(0), np.float32(1))

    def gradient(outputs: Floats32) -> Floats32:
        mean, log_scale = np.split(outputs, 2, axis=1)
        place = (log_scale * unit + least).astype(np.intp)
        inverse, narrowing = (np.take(table, place, mode="clip") for table in tables[2:])
        levels = mean * np.float32(128)
        below, above = (lower - levels) * inverse, (upper - levels) * inverse
        up_to_below = np.take(tables[0], (below + centre).astype(np.intp), mode="clip")
        beyond_above = np.take(tables[1], (above + centre).astype(np.intp), mode="clip")
        result = np.empty_like(outputs)
        to_mean, to_log_scale = np.split(result, 2, axis=1)
        np.multiply((up_to_below - beyond_above) * inverse, np.float32(128) / unit, out=to_mean)
        below *= up_to_below
        above *= beyond_above
        below -= above
        below *= np.float32(1) / unit
        np.add(below, narrowing * inner, out=to_log_scale)
        return result

    return gradient


@dataclass(frozen=True, eq=False)
class DiscretizedLogistic:
    """One discretized logistic for each entry of ``mean`` and ``inverse_scale``, int64 ``(n,)``."""

    mean: Signed
    inverse_scale: Signed
    precision: int = PRECISION

    @staticmethod
    def from_outputs(mean: Signed, log_scale: Signed) -> DiscretizedLogistic:
        """From decoder outputs times ``2**16``: means in 128 grey levels, logs of scales in grey levels."""
        limit = MEAN_MAXIMUM << MEAN_FRACTION
        inverse = look_up_inverse_scale(_inverse_scales(), log_scale, LOG_SCALE_MINIMUM)
        return DiscretizedLogistic(clip(mean, -limit, limit), inverse)

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, block: slice | NDArray[np.intp]) -> DiscretizedLogistic:
        return DiscretizedLogistic(self.mean[block], self.inverse_scale[block])

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        start, stop = self._start(symbols), self._start(symbols + 1)
        return start.astype(np.uint64), (stop - start).astype(np.uint64)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols = self._guess(values)
        start, frequency = self.interval(symbols)
        for search in (DiscretizedLogistic._neighbour, DiscretizedLogistic._bisect):
            # A value below its start wraps around to something huge.
            (wrong,) = np.nonzero(values - start >= frequency)
            if not len(wrong):
                break
            part = self[wrong]
            symbols[wrong] = search(part, symbols[wrong], values[wrong].astype(np.int64))
            start[wrong], frequency[wrong] = part.interval(symbols[wrong])
        return symbols, start, frequency

    def _neighbour(self, symbols: Symbols, values: Signed) -> Symbols:
        """One level towards each value, which is where most wrong guesses belong."""
        return clip(symbols + np.where(self._start(symbols) > values, -1, 1), 0, LEVELS - 1)

    def _bisect(self, symbols: Symbols, values: Signed) -> Symbols:
        return bisect(self._start, values, symbol_bits=8)

    def _guess(self, values: Integers) -> Symbols:
        """A level near each value, from floating point: :meth:`locate` puts wrong ones right."""
        quantile = _quantiles()[values >> np.uint64(PRECISION - GUESS_BITS)]
        level = (self.mean + quantile / self.inverse_scale) / float(1 << MEAN_FRACTION)
        return clip(np.rint(level).astype(np.int64), 0, LEVELS - 1)

    def _start(self, symbols: Symbols) -> Signed:
        """Where intervals start: adding the level itself leaves each a frequency of at least 1."""
        distance = (_edges()[symbols] - self.mean) * self.inverse_scale
        return _table()(distance >> (MEAN_FRACTION + SCALE_FRACTION - FRACTION)) + symbols
