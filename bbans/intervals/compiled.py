"""The distributions of :mod:`bbans.intervals` in compiled code: the same integers, one symbol after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bbans.errors import ImpossibleSymbol
from bbans.intervals import bernoulli, gaussian, logistic, mixture
from bbans.intervals.distribution import Distribution, Integers, Symbols
from bbans.intervals.gaussian import PriorBins
from bbans.intervals.location_scale import (
    FRACTION,
    GRID_BITS,
    LOG_SCALE_BITS,
    LOG_SCALE_FRACTION,
    PRECISION,
    SCALE_FRACTION,
    Signed,
)
from bbans.intervals.logistic import LEVELS, LOG_SCALE_MINIMUM, MEAN_FRACTION
from bbans.intervals.makers import Outputs

INNER_BITS = FRACTION - GRID_BITS
DROPPED_BITS = LOG_SCALE_FRACTION - LOG_SCALE_BITS
EDGE_SHIFT = MEAN_FRACTION + SCALE_FRACTION - FRACTION
MEAN_LIMIT = logistic.MEAN_MAXIMUM << MEAN_FRACTION
BEYOND = logistic.BEYOND
LATENT_SHIFT = gaussian.MEAN_FRACTION + SCALE_FRACTION - FRACTION
LATENT_LIMIT = gaussian.MEAN_MAXIMUM << gaussian.MEAN_FRACTION
LATENT_MINIMUM = gaussian.LOG_DEVIATION_MINIMUM
WEIGHT_SHIFT = LOG_SCALE_FRACTION - mixture.LOG_WEIGHT_BITS
WEIGHT_STEPS = mixture.LOG_WEIGHT_RANGE << mixture.LOG_WEIGHT_BITS
WEIGHT_TOTAL = float(mixture.WEIGHT_TOTAL)
LOGIT_SHIFT = bernoulli.LOGIT_FRACTION - bernoulli.STEP_BITS
LOGIT_STEPS = bernoulli.LOGIT_MAXIMUM << bernoulli.STEP_BITS
LOGIT_TOTAL = 1 << bernoulli.PRECISION


@njit(nogil=True, cache=True)
def _clip(value: int, minimum: int, maximum: int) -> int:
    return min(max(value, minimum), maximum)


@njit(nogil=True, cache=True)
def _distribution_function(nodes: Signed, standardized: int) -> int:
    """See :class:`bbans.intervals.location_scale.DistributionTable`."""
    last = (len(nodes) - 1) << INNER_BITS
    place: int = _clip(standardized + last // 2, 0, last - 1)
    node = place >> INNER_BITS
    below: int = nodes[node]
    inside: int = below + ((nodes[node + 1] - below) * (place & ((1 << INNER_BITS) - 1)) >> INNER_BITS)
    return inside


@njit(nogil=True, cache=True)
def _inverse_scale(table: Signed, log_scale: int, minimum: int) -> int:
    """See :func:`bbans.intervals.location_scale.look_up_inverse_scale`."""
    rounded = (log_scale + (1 << (DROPPED_BITS - 1))) >> DROPPED_BITS
    inverse: int = table[_clip(rounded - (minimum << LOG_SCALE_BITS), 0, len(table) - 1)]
    return inverse


Find = Callable[[int, Integers, Symbols, Integers, Integers], None]
"""From the first distribution on: writes start and frequency of the intervals of symbols, one for each distribution,
which it finds first if there are values (else none are given).
"""


@dataclass(frozen=True, eq=False)
class Compiled:
    """Some of the distributions that outputs stand for: a :class:`bbans.intervals.distribution.Distribution`."""

    find: Find
    count: int
    precision: int
    first: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, block: slice) -> Compiled:
        start, stop, _ = block.indices(self.count)
        return replace(self, count=stop - start, first=self.first + start)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        """Raises :class:`bbans.errors.ImpossibleSymbol` for a bin of frequency 0, which only latents have."""
        start, frequency = np.empty(self.count, np.uint64), np.empty(self.count, np.uint64)
        self.find(self.first, np.empty(0, np.uint64), symbols, start, frequency)
        if not frequency.all():
            raise ImpossibleSymbol("a latent lies where its posterior can't have put it")
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols = np.empty(self.count, np.int64)
        start, frequency = np.empty(self.count, np.uint64), np.empty(self.count, np.uint64)
        self.find(self.first, values, symbols, start, frequency)
        return symbols, start, frequency


@njit(nogil=True, cache=True)
def _bernoulli(
    outputs: Outputs,
    table: Integers,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :data:`Find`."""
    for index in range(len(symbols)):
        logit = np.int64(outputs[(first + index) // outputs.shape[2], 0, (first + index) % outputs.shape[2]])
        step = _clip((logit + (1 << (LOGIT_SHIFT - 1))) >> LOGIT_SHIFT, -LOGIT_STEPS, LOGIT_STEPS)
        one = table[step + LOGIT_STEPS]
        zero = np.uint64(LOGIT_TOTAL) - one
        if len(values):
            symbols[index] = 1 if values[index] >= zero else 0
        start[index] = zero if symbols[index] else np.uint64(0)
        frequency[index] = one if symbols[index] else zero


@njit(nogil=True, cache=True)
def _logistic_start(nodes: Signed, mean: int, inverse: int, symbol: int) -> int:
    if symbol == 0:
        edge = -BEYOND
    elif symbol == LEVELS:
        edge = BEYOND
    else:
        edge = (2 * symbol - 1) << (MEAN_FRACTION - 1)
    start: int = _distribution_function(nodes, ((edge - mean) * inverse) >> EDGE_SHIFT) + symbol
    return start


@njit(nogil=True, cache=True)
def _logistic(
    outputs: Outputs,
    nodes: Signed,
    scales: Signed,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :data:`Find`."""
    for index in range(len(symbols)):
        group, member = (first + index) // outputs.shape[2], (first + index) % outputs.shape[2]
        mean = _clip(np.int64(outputs[group, 0, member]), -MEAN_LIMIT, MEAN_LIMIT)
        inverse = _inverse_scale(scales, np.int64(outputs[group, 1, member]), LOG_SCALE_MINIMUM)
        if len(values):
            value = np.int64(values[index])
            low, high = 0, LEVELS
            below, above = np.int64(0), np.int64(1 << PRECISION)
            # The bin is near the mean, in most cases, so the search begins there and reaches out.
            level, reach = _clip((mean + (1 << (MEAN_FRACTION - 1))) >> MEAN_FRACTION, 1, LEVELS - 1), 1
            while high - low > 1:
                edge = _logistic_start(nodes, mean, inverse, level)
                if edge <= value:
                    low, below = level, edge
                    level = min(level + reach, (low + high) // 2) if high == LEVELS else (low + high) // 2
                else:
                    high, above = level, edge
                    level = max(level - reach, (low + high) // 2) if low == 0 else (low + high) // 2
                reach *= 2
            symbols[index] = low
        else:
            below = _logistic_start(nodes, mean, inverse, symbols[index])
            above = _logistic_start(nodes, mean, inverse, symbols[index] + 1)
        start[index] = below
        frequency[index] = above - below


@njit(nogil=True, cache=True)
def _mixture_start(nodes: Signed, levels: Signed, weights: Signed, means: Signed, inverses: Signed, symbol: int) -> int:
    if symbol == 0:
        return 0
    if symbol == LEVELS:
        return 1 << PRECISION
    total = 0
    for component in range(len(means)):
        edge = ((2 * symbol - 1) << (MEAN_FRACTION - 1)) - means[component]
        share = _distribution_function(nodes, (edge * inverses[component]) >> EDGE_SHIFT)
        total += share * weights[len(levels) + component]
    start: int = (total >> PRECISION) + symbol
    for place in range(len(levels)):
        if levels[place] < symbol:
            start += weights[place]
    return start


@njit(nogil=True, cache=True)
def _mixture(
    outputs: Outputs,
    components: int,
    levels: Signed,
    nodes: Signed,
    scales: Signed,
    shares: NDArray[np.float64],
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :data:`Find`."""
    masses = len(levels)
    count = masses + components
    share = np.empty(count, np.float64)
    weights, means, inverses = np.empty(count, np.int64), np.empty(components, np.int64), np.empty(components, np.int64)
    for index in range(len(symbols)):
        group, member = (first + index) // outputs.shape[2], (first + index) % outputs.shape[2]
        largest = np.int64(outputs[group, 0, member])
        for place in range(1, count):
            largest = max(largest, np.int64(outputs[group, place, member]))
        total = 0.0  # of integers below 2**53: the same in any order
        for place in range(count):
            step = _clip((largest - np.int64(outputs[group, place, member])) >> WEIGHT_SHIFT, 0, WEIGHT_STEPS)
            share[place] = shares[step]
            total += share[place]
        unit = WEIGHT_TOTAL / total
        for place in range(count):
            weights[place] = np.int64(np.floor(share[place] * unit))
        for component in range(components):
            mean = np.int64(outputs[group, count + component, member])
            log_scale = np.int64(outputs[group, count + components + component, member])
            means[component] = _clip(mean, -MEAN_LIMIT, MEAN_LIMIT)
            inverses[component] = _inverse_scale(scales, log_scale, LOG_SCALE_MINIMUM)
        if len(values):
            value = np.int64(values[index])
            low, high = 0, LEVELS
            below, above = np.int64(0), np.int64(1 << PRECISION)
            # Most pixels of data with point masses lie at one of these.
            for place in range(masses):
                for level in (levels[place], levels[place] + 1):
                    if low < level < high:
                        edge = _mixture_start(nodes, levels, weights, means, inverses, level)
                        if edge <= value:
                            low, below = level, edge
                        else:
                            high, above = level, edge
                if high <= levels[place] + 1:
                    break
            while high - low > 1:
                level = (low + high) // 2
                edge = _mixture_start(nodes, levels, weights, means, inverses, level)
                if edge <= value:
                    low, below = level, edge
                else:
                    high, above = level, edge
            symbols[index] = low
        else:
            below = _mixture_start(nodes, levels, weights, means, inverses, symbols[index])
            above = _mixture_start(nodes, levels, weights, means, inverses, symbols[index] + 1)
        start[index] = below
        frequency[index] = above - below


@njit(nogil=True, cache=True)
def _gaussian(
    outputs: Outputs,
    edges: Signed,
    nodes: Signed,
    scales: Signed,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :data:`Find`."""
    for index in range(len(symbols)):
        group, member = (first + index) // outputs.shape[2], (first + index) % outputs.shape[2]
        mean = _clip(np.int64(outputs[group, 0, member]), -LATENT_LIMIT, LATENT_LIMIT)
        inverse = _inverse_scale(scales, np.int64(outputs[group, 1, member]), LATENT_MINIMUM)
        if len(values):
            value = np.int64(values[index])
            low, high = 0, len(edges) - 1
            while high - low > 1:
                symbol = (low + high) // 2
                if _distribution_function(nodes, ((edges[symbol] - mean) * inverse) >> LATENT_SHIFT) <= value:
                    low = symbol
                else:
                    high = symbol
            symbols[index] = low
        below = _distribution_function(nodes, ((edges[symbols[index]] - mean) * inverse) >> LATENT_SHIFT)
        above = _distribution_function(nodes, ((edges[symbols[index] + 1] - mean) * inverse) >> LATENT_SHIFT)
        start[index] = below
        frequency[index] = above - below


class CompiledMaker:
    """A :class:`bbans.intervals.makers.Maker`."""

    def bernoulli(self, outputs: Outputs) -> Distribution:
        return _made(partial(_bernoulli, outputs, bernoulli.frequencies_of_one()), outputs, bernoulli.PRECISION)

    def logistic(self, outputs: Outputs) -> Distribution:
        nodes, scales = logistic.distribution_table().nodes, logistic.scale_table()
        return _made(partial(_logistic, outputs, nodes, scales), outputs)

    def mixture(self, outputs: Outputs, components: int, levels: tuple[int, ...]) -> Distribution:
        nodes, scales, shares = mixture.distribution_table().nodes, logistic.scale_table(), mixture.weight_table()
        masses = np.array(levels, np.int64)
        return _made(partial(_mixture, outputs, components, masses, nodes, scales, shares), outputs)

    def gaussian(self, bins: PriorBins, outputs: Outputs) -> Distribution:
        nodes, scales = gaussian.distribution_table().nodes, gaussian.deviation_table()
        return _made(partial(_gaussian, outputs, bins.edges, nodes, scales), outputs)


def _made(find: Find, outputs: Outputs, precision: int = PRECISION) -> Compiled:
    return Compiled(find, outputs.shape[0] * outputs.shape[2], precision)
