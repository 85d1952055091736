"""Log-probabilities of :class:`bbans.intervals.mixture.LogisticMixture`, which optimal inference climbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.location_scale import PRECISION
from bbans.intervals.log_prob import Floats32, LogProb, Rows, exact_sum, multiples
from bbans.intervals.logistic import FAR, LEVELS, LOG_PROB_BITS, LOG_PROB_LIMIT, LOG_SCALE_MINIMUM, log_prob_tables
from bbans.intervals.mixture import LOG_WEIGHT_BITS, WEIGHT_TOTAL, weight_table
from bbans.portable import elementary
from bbans.portable.elementary import Floats

LOGARITHM_BITS = 10
"""Probabilities are rounded to so many bits behind the leading one before their logs are looked up."""
FLOAT32_BITS = 23
"""Behind the leading one."""


def log_prob(components: int, levels: tuple[int, ...], x: Floats32) -> LogProb:
    """Log p(x) as a function of the real outputs that :class:`.LogisticMixture` takes as integers.

    ``x`` is ``(images, pixels)`` with values 0.0 to 255.0; outputs and gradient are ``(images, outputs * pixels)``. The
    probability is what the weights give the point masses and the components, added up in the order of the outputs,
    times ``WEIGHT_TOTAL``, plus 1, both divided by ``2**PRECISION``.
    """
    masses, first, second = len(levels), len(levels) + components, len(levels) + 2 * components
    share_of_weights = np.float32(WEIGHT_TOTAL / (1 << PRECISION))
    least = np.float32(2.0**-PRECISION)
    bins = _Bins.of(x[:, None])
    hits = np.stack([x == level for level in levels], axis=1) if levels else np.zeros((len(x), 0, x.shape[1]), bool)

    def at(outputs: Floats32, rows: Rows | None = None) -> tuple[Floats, Callable[[], Floats32]]:
        kinds = outputs.reshape(len(outputs), -1, x.shape[1])
        weights = _real_weights(kinds[:, :first])
        seen = (bins if rows is None else bins.which(rows)).seen_from(kinds[:, first:second], kinds[:, second:])
        given = np.empty_like(weights)
        np.multiply(weights[:, :masses], hits if rows is None else hits[rows], out=given[:, :masses])
        np.multiply(weights[:, masses:], seen.probability(), out=given[:, masses:])
        total = _ordered_sum(given)
        total *= share_of_weights
        total += least

        def gradient() -> Floats32:
            result = np.empty_like(kinds)
            given_shares = np.multiply(given, (share_of_weights / total)[:, None])
            np.subtract(given_shares, weights * (np.float32(1) - least / total)[:, None], out=result[:, :first])
            seen.slopes(result[:, first:second], result[:, second:])
            result[:, first:second] *= given_shares[:, masses:]
            result[:, second:] *= given_shares[:, masses:]
            return result.reshape(outputs.shape)

        return exact_sum(_look_up_logarithms(total)), gradient

    return at


@dataclass(frozen=True, eq=False)
class _Bins:
    """The bins of pixels' levels, ``(images, 1, pixels)``, as far as their means and scales don't matter."""

    lower: Floats32
    upper: Floats32
    """Edges, in levels."""
    outer: NDArray[np.bool_]
    """Whether the level is the first or the last."""

    @staticmethod
    def of(x: Floats32) -> _Bins:
        """For levels 0.0 to 255.0."""
        half = np.float32(0.5)
        first, last = x == 0, x == LEVELS - 1
        return _Bins(np.where(first, -FAR, x - half), np.where(last, FAR, x + half), first | last)

    def which(self, rows: Rows) -> _Bins:
        """Of some of the images."""
        return _Bins(self.lower[rows], self.upper[rows], self.outer[rows])

    def seen_from(self, mean: Floats32, log_scale: Floats32) -> _SeenBins:
        """Means in 128 levels and logs of scales in levels, ``(images, components, pixels)``."""
        unit, half = np.float32(1 << LOG_PROB_BITS), np.float32(0.5)
        centre = np.float32(LOG_PROB_LIMIT) * unit + half
        levels = mean * np.float32(128)
        scale_place = (log_scale * unit + (half - np.float32(LOG_SCALE_MINIMUM) * unit)).astype(np.intp)
        inverse = np.take(log_prob_tables().inverse, scale_place, mode="clip")
        below, above = (self.lower - levels) * inverse, (self.upper - levels) * inverse
        places = (below + centre).astype(np.intp), (above + centre).astype(np.intp)
        return _SeenBins(self.outer, below, above, *places, scale_place, inverse)


@dataclass(frozen=True, eq=False)
class _SeenBins:
    """Bins whose edges are standardized, and where to look up what there is to know of them.

    With F the logistic function, and a and b the standardized edges above and below a pixel's level, p is F(a) times
    F(-b) times 1 - exp(b - a), of which the first level has only the first factor and the last level only the second.
    """

    outer: NDArray[np.bool_]
    below: Floats32
    above: Floats32
    """In steps of the tables."""
    below_place: NDArray[np.intp]
    above_place: NDArray[np.intp]
    scale_place: NDArray[np.intp]
    inverse: Floats32

    def probability(self) -> Floats32:
        """p, with an axis of components."""
        tables = log_prob_tables()
        width = np.take(tables.width, self.scale_place, mode="clip")
        probability: Floats32 = np.where(self.outer, np.float32(1), width)
        probability *= np.take(tables.up_to, self.above_place, mode="clip")
        probability *= np.take(tables.beyond, self.below_place, mode="clip")
        return probability

    def slopes(self, to_mean: Floats32, to_log_scale: Floats32) -> None:
        """Write the derivatives of log p."""
        tables = log_prob_tables()
        unit = np.float32(1 << LOG_PROB_BITS)
        up_to_below = np.take(tables.up_to, self.below_place, mode="clip")
        beyond_above = np.take(tables.beyond, self.above_place, mode="clip")
        np.multiply((up_to_below - beyond_above) * self.inverse, np.float32(128) / unit, out=to_mean)
        narrowing = np.take(tables.log_width_slope, self.scale_place, mode="clip")
        change = self.below * up_to_below - self.above * beyond_above
        np.add(change * (np.float32(1) / unit), np.where(self.outer, np.float32(0), narrowing), out=to_log_scale)


def _real_weights(log_weights: Floats32) -> Floats32:
    """What :func:`bbans.intervals.mixture.look_up_weights` rounds, as parts of 1, ``(images, weights, pixels)``."""
    below = (log_weights.max(axis=1, keepdims=True) - log_weights) * np.float32(1 << LOG_WEIGHT_BITS)
    share = np.take(weight_table(), below.astype(np.intp), mode="clip")
    weights: Floats32 = (share / share.sum(axis=1, keepdims=True)).astype(np.float32)  # sums of integers, as there
    return weights


def _ordered_sum(terms: Floats32) -> Floats32:
    """Over the second axis, from its first element to its last: floating point would know another order."""
    total: Floats32 = terms[:, 0].copy()
    for index in range(1, terms.shape[1]):
        total += terms[:, index]
    return total


@cache
def _logarithms() -> tuple[Floats32, np.int32]:
    """The logs of numbers of ``LOGARITHM_BITS`` bits and a leading one, from the probability of a frequency of 1 to a
    little over 1, in order; and the first of these numbers, as the bits of a float32 without those rounded away.
    """
    dropped = FLOAT32_BITS - LOGARITHM_BITS
    first, last = np.array([2.0**-PRECISION, 2.0], np.float32).view(np.int32) >> dropped
    numbers = (np.arange(first, last, dtype=np.int32) << dropped).view(np.float32)
    table: Floats32 = multiples(elementary.logarithm(numbers.astype(np.float64))).astype(np.float32)
    table.flags.writeable = False
    return table, first


def _look_up_logarithms(probabilities: Floats32) -> Floats32:
    table, first = _logarithms()
    dropped = FLOAT32_BITS - LOGARITHM_BITS
    place = ((probabilities.view(np.int32) + np.int32(1 << (dropped - 1))) >> dropped) - first
    logarithms: Floats32 = np.take(table, place, mode="clip")
    return logarithms
