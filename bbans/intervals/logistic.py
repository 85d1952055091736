"""Pixels of 256 grey levels: a logistic density integrated over each level's bin."""

from __future__ import annotations

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
FAR = 64
"""A frequency below this is too coarse to take a gradient of."""
GRADIENT_FRACTION = 16
GRADIENT_MAXIMUM = 1 << 26

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


def _gradient_integers(gradient: NDArray[np.float64]) -> Signed:
    limit = float(GRADIENT_MAXIMUM)
    scaled = np.rint(gradient * float(1 << GRADIENT_FRACTION))
    return np.minimum(np.maximum(scaled, -limit), limit).astype(np.int64)


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

    def gradients(self, symbols: Symbols) -> tuple[Signed, Signed]:
        """The gradients of log p(symbol) with respect to mean and log-scale, as decoder outputs give them.

        In units of ``2**-GRADIENT_FRACTION``, clipped to ``GRADIENT_MAXIMUM``. With F the logistic function, whose
        density is F (1 - F), and a and b the standardized edges above and below: the first is
        (F(a) + F(b) - 1) / scale, the second (b F'(b) - a F'(a)) / (F(a) - F(b)).
        """
        edges = _edges()
        unit = float(1 << (MEAN_FRACTION + SCALE_FRACTION))
        below = ((edges[symbols] - self.mean) * self.inverse_scale).astype(np.float64) / unit
        above = ((edges[symbols + 1] - self.mean) * self.inverse_scale).astype(np.float64) / unit
        start, stop = self._start(symbols) - symbols, self._start(symbols + 1) - symbols
        total = float((1 << PRECISION) - LEVELS)
        cumulative_below, cumulative_above = start / total, np.minimum(stop / total, 1.0)
        density_below = cumulative_below * (1.0 - cumulative_below)
        density_above = cumulative_above * (1.0 - cumulative_above)
        mass = (stop - start) / float(1 << PRECISION)
        mean = 128.0 * (cumulative_above + cumulative_below - 1.0)
        mean = mean * (self.inverse_scale / float(1 << SCALE_FRACTION))
        inside = (below * density_below - above * density_above) / mass
        # Far out the table is flat; there log p falls like the distance itself.
        far = stop - start < FAR
        log_scale = np.where(far, np.minimum(np.abs(below), np.abs(above)), inside)
        return _gradient_integers(mean), _gradient_integers(log_scale)

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
