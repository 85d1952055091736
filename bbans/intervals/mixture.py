"""Pixels of 256 grey levels: a mixture of discretized logistics, and levels that have a probability of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Integers, Symbols
from bbans.intervals.location_scale import (
    FRACTION,
    LOG_SCALE_FRACTION,
    PRECISION,
    SCALE_FRACTION,
    DistributionTable,
    Signed,
    clip,
    look_up_inverse_scale,
)
from bbans.intervals.logistic import (
    LEVELS,
    LOG_SCALE_MINIMUM,
    MEAN_FRACTION,
    MEAN_MAXIMUM,
    TABLE_LIMIT,
    scale_table,
)
from bbans.portable import elementary

WEIGHT_TOTAL = (1 << PRECISION) - LEVELS
"""What the weights of a distribution add up to, or almost: the last level gets what rounding leaves over."""
LOG_WEIGHT_BITS = 8
"""Logs of weights are rounded to multiples of ``2**-LOG_WEIGHT_BITS``..."""
LOG_WEIGHT_RANGE = 16
"""...and not further than this below the largest."""

distribution_table = cache(lambda: DistributionTable.of(elementary.logistic, TABLE_LIMIT, 1 << PRECISION))


@cache
def weight_table() -> NDArray[np.float64]:
    """exp(-step), in units that make the largest weight an integer of 20 bits."""
    steps = np.arange((LOG_WEIGHT_RANGE << LOG_WEIGHT_BITS) + 1) / float(1 << LOG_WEIGHT_BITS)
    table: NDArray[np.float64] = np.rint(elementary.exponential(-steps) * float(1 << 20))
    table.flags.writeable = False
    return table


def look_up_weights(log_weights: Signed) -> Signed:
    """Integers ``(weights, n)`` proportional to exp(log_weights), adding up to at most :data:`WEIGHT_TOTAL`.

    ``log_weights`` are multiples of ``2**-LOG_SCALE_FRACTION``.
    """
    below = log_weights.max(axis=0) - log_weights
    step = np.minimum(below >> (LOG_SCALE_FRACTION - LOG_WEIGHT_BITS), LOG_WEIGHT_RANGE << LOG_WEIGHT_BITS)
    share = weight_table()[step]
    share *= float(WEIGHT_TOTAL) / share.sum(axis=0)  # integers below 2**53: the same sum in any order
    weights: Signed = np.floor(share).astype(np.int64)
    return weights


@dataclass(frozen=True, eq=False)
class LogisticMixture:
    """``n`` mixtures.

    The frequency of a level is what the components give it, its point mass if it has one, and 1.
    """

    weight: Signed
    """Of the components, int64 ``(components, n)``."""
    mean: Signed
    """Likewise; multiples of ``2**-MEAN_FRACTION`` grey levels."""
    inverse_scale: Signed
    """Likewise; multiples of ``2**-SCALE_FRACTION``."""
    below: Signed
    """For each level with a point mass, in order, the sum of the point masses up to it, int64 ``(levels, n)``."""
    levels: tuple[int, ...]
    """The levels with a point mass, in order."""
    precision: int = PRECISION

    @staticmethod
    def from_outputs(outputs: Signed, components: int, levels: tuple[int, ...]) -> LogisticMixture:
        """From network outputs times ``2**16``, int64 ``(outputs, n)``.

        First the logs of weights, of point masses and then of components; then means in 128 grey levels, then logs of
        scales in grey levels.
        """
        first, second = len(levels) + components, len(levels) + 2 * components
        weights = look_up_weights(outputs[:first])
        limit = MEAN_MAXIMUM << MEAN_FRACTION
        return LogisticMixture(
            weights[len(levels) :],
            clip(outputs[first:second], -limit, limit),
            look_up_inverse_scale(scale_table(), outputs[second:], LOG_SCALE_MINIMUM),
            np.cumsum(weights[: len(levels)], axis=0),
            levels,
        )

    def __len__(self) -> int:
        return int(self.weight.shape[1])

    def __getitem__(self, block: slice | NDArray[np.intp] | NDArray[np.bool_]) -> LogisticMixture:
        return LogisticMixture(
            self.weight[:, block],
            self.mean[:, block],
            self.inverse_scale[:, block],
            self.below[:, block],
            self.levels,
        )

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        start, stop = self._start(symbols), self._start(symbols + 1)
        return start.astype(np.uint64), (stop - start).astype(np.uint64)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        found = _Search.of(values.astype(np.int64))
        for edge in sorted({edge for first, last in runs_of(self.levels) for edge in (first, last + 1)}):
            if 0 < edge < LEVELS:  # most pixels of data with point masses lie between two of these
                found.try_level(self, np.full(len(self), edge, np.int64))
        left = np.nonzero(found.last - found.first > 1)[0]
        rest, among = self[left], found[left]
        for _ in range(int((among.last - among.first).max(initial=1) - 1).bit_length()):
            among.try_level(rest, (among.first + among.last) >> 1)
        found[left] = among
        return found.first, found.start.astype(np.uint64), (found.stop - found.start).astype(np.uint64)

    def _start(self, symbols: Symbols) -> Signed:
        """Where intervals start: adding the level itself leaves each a frequency of at least 1."""
        edge = ((2 * symbols - 1) << (MEAN_FRACTION - 1)) - self.mean
        edge *= self.inverse_scale
        edge >>= MEAN_FRACTION + SCALE_FRACTION - FRACTION
        share = distribution_table()(edge)
        share *= self.weight  # below 2**48
        start: Signed = (share.sum(axis=0) >> PRECISION) + symbols
        if self.levels:
            count = np.searchsorted(np.array(self.levels), symbols)  # how many of them lie below
            sums = np.take_along_axis(self.below, np.maximum(count - 1, 0)[None], axis=0)[0]
            start += np.where(count > 0, sums, 0)
        start[symbols == 0] = 0
        start[symbols == LEVELS] = 1 << PRECISION
        return start


@dataclass(frozen=True, eq=False)
class _Search:
    """Where values are found to lie: in one of the levels from ``first`` to before ``last``."""

    values: Signed
    first: Symbols
    last: Symbols
    start: Signed
    """Of the interval of ``first``..."""
    stop: Signed
    """...and of that of ``last``."""

    @staticmethod
    def of(values: Signed) -> _Search:
        nothing = np.zeros_like(values)
        return _Search(values, nothing, nothing + LEVELS, nothing.copy(), nothing + (1 << PRECISION))

    def __getitem__(self, which: NDArray[np.intp]) -> _Search:
        parts = (self.values, self.first, self.last, self.start, self.stop)
        return _Search(*(part[which] for part in parts))

    def __setitem__(self, which: NDArray[np.intp], found: _Search) -> None:
        self.first[which], self.last[which] = found.first, found.last
        self.start[which], self.stop[which] = found.start, found.stop

    def try_level(self, mixture: LogisticMixture, level: Symbols) -> None:
        """Find out on which side of the start of a level each value lies."""
        edge = mixture._start(level)
        reached = edge <= self.values
        nearer = reached & (level > self.first)
        np.copyto(self.first, level, where=nearer)
        np.copyto(self.start, edge, where=nearer)
        nearer = ~reached & (level < self.last)
        np.copyto(self.last, level, where=nearer)
        np.copyto(self.stop, edge, where=nearer)


def runs_of(levels: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last of each run of levels that follow each other."""
    runs: list[tuple[int, int]] = []
    for level in levels:
        if runs and runs[-1][1] == level - 1:
            runs[-1] = (runs[-1][0], level)
        else:
            runs.append((level, level))
    return runs
