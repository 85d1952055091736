"""The distributions of :mod:`bbans.intervals` in compiled code: the same integers, one symbol after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


def _room(count: int) -> tuple[Symbols, Integers, Integers]:
    """For symbols, starts and frequencies."""
    return np.empty(count, np.int64), np.empty(count, np.uint64), np.empty(count, np.uint64)


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of the distributions that outputs ``(groups, outputs, members)`` stand for, member after member."""

    outputs: Outputs
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def part(self, block: slice) -> tuple[int, int]:
        """First and number of what a slice takes."""
        start, stop, _ = block.indices(self.count)
        return self.first + start, stop - start


@dataclass(frozen=True, eq=False)
class CompiledBernoulli(_Some):
    """A :class:`bbans.intervals.Bernoulli`."""

    precision: int = bernoulli.PRECISION

    def __getitem__(self, block: slice) -> CompiledBernoulli:
        first, count = self.part(block)
        return replace(self, first=first, count=count)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        _, start, frequency = _room(self.count)
        values = np.zeros(0, np.uint64)
        _bernoulli(self.outputs, self.first, bernoulli.frequencies_of_one(), values, symbols, start, frequency)
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols, start, frequency = _room(self.count)
        _bernoulli(self.outputs, self.first, bernoulli.frequencies_of_one(), values, symbols, start, frequency)
        return symbols, start, frequency


@njit(nogil=True, cache=True)
def _bernoulli(
    outputs: Outputs,
    first: int,
    table: Integers,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """Intervals of ``symbols``, which are found first if there are ``values``."""
    for index in range(len(symbols)):
        logit = np.int64(outputs[(first + index) // outputs.shape[2], 0, (first + index) % outputs.shape[2]])
        step = _clip((logit + (1 << (LOGIT_SHIFT - 1))) >> LOGIT_SHIFT, -LOGIT_STEPS, LOGIT_STEPS)
        one = table[step + LOGIT_STEPS]
        zero = np.uint64(LOGIT_TOTAL) - one
        if len(values):
            symbols[index] = 1 if values[index] >= zero else 0
        start[index] = zero if symbols[index] else np.uint64(0)
        frequency[index] = one if symbols[index] else zero


@dataclass(frozen=True, eq=False)
class CompiledLogistic(_Some):
    """A :class:`bbans.intervals.DiscretizedLogistic`."""

    precision: int = PRECISION

    def __getitem__(self, block: slice) -> CompiledLogistic:
        first, count = self.part(block)
        return replace(self, first=first, count=count)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        _, start, frequency = _room(self.count)
        self._find(np.zeros(0, np.uint64), symbols, start, frequency)
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols, start, frequency = _room(self.count)
        self._find(values, symbols, start, frequency)
        return symbols, start, frequency

    def _find(self, values: Integers, symbols: Symbols, start: Integers, frequency: Integers) -> None:
        nodes, scales = logistic.distribution_table().nodes, logistic.scale_table()
        _logistic(self.outputs, self.first, nodes, scales, values, symbols, start, frequency)


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
    first: int,
    nodes: Signed,
    scales: Signed,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """Intervals of ``symbols``, which are found first if there are ``values``."""
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


@dataclass(frozen=True, eq=False)
class CompiledMixture(_Some):
    """A :class:`bbans.intervals.LogisticMixture`."""

    components: int
    levels: Signed
    """With a point mass, in order."""
    precision: int = PRECISION

    def __getitem__(self, block: slice) -> CompiledMixture:
        first, count = self.part(block)
        return replace(self, first=first, count=count)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        _, start, frequency = _room(self.count)
        self._find(np.zeros(0, np.uint64), symbols, start, frequency)
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols, start, frequency = _room(self.count)
        self._find(values, symbols, start, frequency)
        return symbols, start, frequency

    def _find(self, values: Integers, symbols: Symbols, start: Integers, frequency: Integers) -> None:
        nodes, scales = mixture.distribution_table().nodes, logistic.scale_table()
        weights, count = mixture.weight_table(), self.components
        _mixture(
            self.outputs, self.first, count, self.levels, nodes, scales, weights, values, symbols, start, frequency
        )


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
    first: int,
    components: int,
    levels: Signed,
    nodes: Signed,
    scales: Signed,
    shares: NDArray[np.float64],
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """Intervals of ``symbols``, which are found first if there are ``values``."""
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
                if high == levels[place] + 1 or high <= levels[place]:
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


@dataclass(frozen=True, eq=False)
class CompiledGaussianBins(_Some):
    """A :class:`bbans.intervals.GaussianBins`."""

    bins: PriorBins
    precision: int = PRECISION

    def __getitem__(self, block: slice) -> CompiledGaussianBins:
        first, count = self.part(block)
        return replace(self, first=first, count=count)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        """Raises :class:`bbans.errors.ImpossibleSymbol` for a bin of frequency 0."""
        _, start, frequency = _room(self.count)
        self._find(np.zeros(0, np.uint64), symbols, start, frequency)
        if not frequency.all():
            raise ImpossibleSymbol("a latent lies where its posterior can't have put it")
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols, start, frequency = _room(self.count)
        self._find(values, symbols, start, frequency)
        return symbols, start, frequency

    def _find(self, values: Integers, symbols: Symbols, start: Integers, frequency: Integers) -> None:
        nodes, scales, bins = gaussian.distribution_table().nodes, gaussian.deviation_table(), self.bins
        _gaussian(self.outputs, self.first, bins.edges, nodes, scales, values, symbols, start, frequency)


@njit(nogil=True, cache=True)
def _gaussian(
    outputs: Outputs,
    first: int,
    edges: Signed,
    nodes: Signed,
    scales: Signed,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """Intervals of ``symbols``, which are found first if there are ``values``."""
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
        return CompiledBernoulli(outputs, 0, outputs.shape[0] * outputs.shape[2])

    def logistic(self, outputs: Outputs) -> Distribution:
        return CompiledLogistic(outputs, 0, outputs.shape[0] * outputs.shape[2])

    def mixture(self, outputs: Outputs, components: int, levels: tuple[int, ...]) -> Distribution:
        count = outputs.shape[0] * outputs.shape[2]
        return CompiledMixture(outputs, 0, count, components, np.array(levels, np.int64))

    def gaussian(self, bins: PriorBins, outputs: Outputs) -> Distribution:
        return CompiledGaussianBins(outputs, 0, outputs.shape[0] * outputs.shape[2], bins)
