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
from bbans.intervals.log_prob import Floats32, LogProb, Rows, exact_sum, multiples
from bbans.portable import elementary
from bbans.portable.elementary import Floats

LEVELS = 256
MEAN_FRACTION = 9
"""Means are multiples of ``2**-MEAN_FRACTION`` grey levels: decoder outputs are in 128 grey levels."""
MEAN_MAXIMUM = 1024
LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM = -4, 8
BEYOND = 1 << 26
"""An outermost edge: further from every mean, in every scale, than the table reaches."""
TABLE_LIMIT = 18
GUESS_BITS = 12
LOG_PROB_BITS = 8
"""What optimal inference climbs comes from tables with a node every ``2**-LOG_PROB_BITS``..."""
LOG_PROB_LIMIT = 18
"""...as far out as this."""
FAR = np.float32(1 << 20)
"""In grey levels: beyond every table."""

distribution_table = cache(lambda: DistributionTable.of(elementary.logistic, TABLE_LIMIT, (1 << PRECISION) - LEVELS))
scale_table = cache(lambda: inverse_scales(LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM))


@cache
def level_edges() -> Signed:
    """Where each level begins, half a level below it; the first and the last bin have no end."""
    edges = ((2 * np.arange(LEVELS + 1) - 1) << (MEAN_FRACTION - 1)).astype(np.int64)
    edges[0], edges[-1] = -BEYOND, BEYOND
    edges.flags.writeable = False
    return edges


@cache
def _quantiles() -> NDArray[np.float64]:
    """Standardized quantiles, for guesses only: nothing that is coded depends on them."""
    values = (np.arange(1 << GUESS_BITS) + 0.5) * (1 << (PRECISION - GUESS_BITS))
    nodes = distribution_table().nodes
    grid = np.arange(len(nodes)) / (1 << GRID_BITS) - TABLE_LIMIT
    standardized: NDArray[np.float64] = np.interp(values, nodes, grid)
    return standardized * float(1 << (SCALE_FRACTION + MEAN_FRACTION))


@dataclass(frozen=True, eq=False)
class LogProbTables:
    """By standardized edge: the logistic function F and 1 - F, and their logs. By the log of a scale, s: exp(-s) in
    steps of the edges' grid; 1 - exp(-exp(-s)), its log, and the derivative of that.
    """

    up_to: Floats32
    beyond: Floats32
    log_up_to: Floats32
    log_beyond: Floats32
    inverse: Floats32
    width: Floats32
    log_width: Floats32
    log_width_slope: Floats32


@cache
def log_prob_tables() -> LogProbTables:
    """With a node every ``2**-LOG_PROB_BITS``."""
    unit = float(1 << LOG_PROB_BITS)
    edges = np.arange(-LOG_PROB_LIMIT << LOG_PROB_BITS, (LOG_PROB_LIMIT << LOG_PROB_BITS) + 1) / unit
    up_to = elementary.logistic(edges)
    beyond = up_to[::-1].copy()
    logs = [multiples(elementary.logarithm(table)) for table in (up_to, beyond)]
    up_to[0], up_to[-1] = beyond[-1], beyond[0] = 0.0, 1.0
    log_scales = np.arange(LOG_SCALE_MINIMUM << LOG_PROB_BITS, (LOG_SCALE_MAXIMUM << LOG_PROB_BITS) + 1) / unit
    inverse = elementary.exponential(-log_scales)
    width = 1.0 - elementary.exponential(-inverse)
    log_width = multiples(elementary.logarithm(width))
    log_width_slope = -inverse / (elementary.exponential(inverse) - 1.0)
    found = (up_to, beyond, *logs, inverse * unit, width, log_width, log_width_slope)
    tables = [table.astype(np.float32) for table in found]
    for table in tables:
        table.flags.writeable = False
    return LogProbTables(*tables)


def log_prob(x: Floats32) -> LogProb:
    """Log p(x) as a function of real decoder outputs; ``x`` is ``(images, pixels)`` with values 0.0 to 255.0.

    Outputs and gradient are ``(images, 2 * pixels)``: means in 128 grey levels, then logs of scales in grey levels.
    With F the logistic function, and a and b the standardized edges above and below a pixel's level, log p is
    log F(a) + log F(-b) + log(1 - exp(b - a)), of which the first level has only the first term and the last level
    only the second.
    """
    tables = log_prob_tables()
    unit = np.float32(1 << LOG_PROB_BITS)
    half = np.float32(0.5)
    centre = np.float32(LOG_PROB_LIMIT) * unit + half
    least = half - np.float32(LOG_SCALE_MINIMUM) * unit
    first, last = x == 0, x == LEVELS - 1
    lower, upper = np.where(first, -FAR, x - half), np.where(last, FAR, x + half)
    inner = np.where(first | last, np.float32(0), np.float32(1))

    # Fresh memory costs more than what is computed in it, so all of it is taken once.
    floats = np.empty((7, *x.shape), np.float32)
    places = np.empty((3, *x.shape), np.intp)
    gradients = np.empty((len(x), 2 * x.shape[1]), np.float32)

    def at(outputs: Floats32, rows: Rows | None = None) -> tuple[Floats, Callable[[], Floats32]]:
        count = len(outputs)
        inverse, below, above, some, sums, limit, within = floats[:, :count]
        scale_place, below_place, above_place = places[:, :count]
        if rows is None:
            within = inner
        else:
            np.take(inner, rows, axis=0, out=within, mode="clip")
        mean, log_scale = np.split(outputs, 2, axis=1)

        def place(standardized: Floats32, from_: np.float32, out: NDArray[np.intp]) -> None:
            np.add(standardized, from_, out=some)
            np.copyto(out, some, casting="unsafe")

        np.multiply(log_scale, unit, out=some)
        place(some, least, scale_place)
        np.take(tables.inverse, scale_place, mode="clip", out=inverse)
        levels = np.multiply(mean, np.float32(128), out=sums)
        for edges, edge, edge_place in ((lower, below, below_place), (upper, above, above_place)):
            own = edges if rows is None else np.take(edges, rows, axis=0, out=limit, mode="clip")
            np.subtract(own, levels, out=edge)
            np.multiply(edge, inverse, out=edge)
            place(edge, centre, edge_place)

        def gradient() -> Floats32:
            result = gradients[:count]
            to_mean, to_log_scale = np.split(result, 2, axis=1)
            up_to_below = np.take(tables.up_to, below_place, mode="clip", out=some)
            beyond_above = np.take(tables.beyond, above_place, mode="clip", out=sums)
            np.subtract(up_to_below, beyond_above, out=to_mean)
            to_mean *= inverse
            to_mean *= np.float32(128) / unit
            up_to_below *= below
            beyond_above *= above
            np.subtract(up_to_below, beyond_above, out=to_log_scale)
            to_log_scale *= np.float32(1) / unit
            narrowing = np.take(tables.log_width_slope, scale_place, mode="clip", out=some)
            narrowing *= within
            to_log_scale += narrowing
            return result

        np.take(tables.log_width, scale_place, mode="clip", out=sums)
        sums *= within
        sums += np.take(tables.log_up_to, above_place, mode="clip", out=some)
        sums += np.take(tables.log_beyond, below_place, mode="clip", out=some)
        return exact_sum(sums), gradient

    return at


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
        inverse = look_up_inverse_scale(scale_table(), log_scale, LOG_SCALE_MINIMUM)
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
        distance = (level_edges()[symbols] - self.mean) * self.inverse_scale
        return distribution_table()(distance >> (MEAN_FRACTION + SCALE_FRACTION - FRACTION)) + symbols
