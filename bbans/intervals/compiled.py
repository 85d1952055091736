"""The distributions of :mod:`bbans.intervals` in compiled code: the same integers, one symbol after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bbans.ans.numba_core import NumbaStack, pop_lanes
from bbans.ans.stack import Stack, Words
from bbans.errors import ImpossibleSymbol
from bbans.intervals import bernoulli, gaussian, logistic, mixture
from bbans.intervals.coding import pop_blocks
from bbans.intervals.distribution import Integers, Symbols
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


VECTOR = 8
"""Mixtures whose edges are looked at together."""
BLOCK = 64
"""Mixtures whose parameters are."""


@njit(nogil=True, cache=True)
def _clip(value: int, minimum: int, maximum: int) -> int:
    return min(max(value, minimum), maximum)


@intrinsic
def _look_up(typing: Any, table: Any, place: Any) -> Any:
    """An entry of an int64 table whose address is given: what LLVM can't make a gathering instruction of, which takes
    twice as long on many processors.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(builder.gep(start, [arguments[1]]), "monotonic", 8)

    return types.int64(types.int64, types.int64), emit


def _slopes(nodes: Signed) -> Signed:
    """A distribution function as it is looked up here: each node in the upper 32 bits, the way to the next below."""
    return (nodes[:-1] << 32) | np.diff(nodes)


@njit(nogil=True, cache=True)
def _distribution_function(slopes: Signed, standardized: int) -> int:
    """See :class:`bbans.intervals.location_scale.DistributionTable`."""
    last = len(slopes) << INNER_BITS
    place: int = _clip(standardized + last // 2, 0, last - 1)
    node: int = slopes[place >> INNER_BITS]
    inside: int = (node >> 32) + ((node & 0xFFFFFFFF) * (place & ((1 << INNER_BITS) - 1)) >> INNER_BITS)
    return inside


@intrinsic
def _add_shares(
    typing: Any,
    slopes: Any,
    last: Any,
    levels: Any,
    components: Any,
    stride: Any,
    means: Any,
    inverses: Any,
    weights: Any,
    sums: Any,
) -> Any:
    """What the components of :data:`VECTOR` mixtures put below the lower edges of levels, added up, times
    ``2**PRECISION``.

    All but ``last``, which ends the table, and ``components`` are addresses of 64-bit integers, and ``stride`` is from
    a component to the next. LLVM would not make vectors of a loop that looks things up and stores.
    """
    integer, vector = ir.IntType(64), ir.VectorType(ir.IntType(64), VECTOR)

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def splat(value: Any) -> Any:
            nothing = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR)
            return builder.shuffle_vector(first, nothing, zeros)

        def constant(value: int) -> Any:
            return ir.Constant(vector, [value] * VECTOR)

        def vector_at(address: Any) -> Any:
            return builder.inttoptr(address, vector.as_pointer())

        def load(address: Any) -> Any:
            return builder.load(vector_at(address), align=8)

        slopes, last, levels, components, stride, means, inverses, weights, sums = arguments
        table = builder.inttoptr(slopes, integer.as_pointer())
        one, middle, end = constant(1), splat(builder.lshr(last, integer(1))), splat(builder.sub(last, integer(1)))
        edges = builder.sub(builder.shl(load(levels), one), one)
        edges = builder.shl(edges, constant(MEAN_FRACTION - 1))
        before, loop, after = builder.block, builder.append_basic_block("component"), builder.append_basic_block("sum")
        builder.branch(loop)
        builder.position_at_end(loop)
        component, total = builder.phi(integer), builder.phi(vector)
        component.add_incoming(integer(0), before)
        total.add_incoming(constant(0), before)
        offset = builder.mul(component, stride)
        mean, inverse, weight = (load(builder.add(start, offset)) for start in (means, inverses, weights))
        place = builder.ashr(builder.mul(builder.sub(edges, mean), inverse), constant(EDGE_SHIFT))
        place = builder.add(place, middle)
        place = builder.select(builder.icmp_signed("<", place, constant(0)), constant(0), place)
        place = builder.select(builder.icmp_signed(">", place, end), end, place)
        where = builder.lshr(place, constant(INNER_BITS))
        node = ir.Constant(vector, ir.Undefined)
        for lane in range(VECTOR):
            number = ir.Constant(ir.IntType(32), lane)
            found = builder.load(builder.gep(table, [builder.extract_element(where, number)]))
            node = builder.insert_element(node, found, number)
        slope = builder.and_(node, constant(0xFFFFFFFF))
        inner = builder.and_(place, constant((1 << INNER_BITS) - 1))
        inside = builder.add(
            builder.lshr(node, constant(32)), builder.lshr(builder.mul(slope, inner), constant(INNER_BITS))
        )
        more = builder.add(total, builder.mul(inside, weight))
        following = builder.add(component, integer(1))
        component.add_incoming(following, loop)
        total.add_incoming(more, loop)
        builder.cbranch(builder.icmp_signed("<", following, components), loop, after)
        builder.position_at_end(after)
        builder.store(more, vector_at(sums), align=8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), emit


@njit(nogil=True, cache=True)
def _inverse_scale(table: Signed, log_scale: int, minimum: int) -> int:
    """See :func:`bbans.intervals.location_scale.look_up_inverse_scale`."""
    rounded = (log_scale + (1 << (DROPPED_BITS - 1))) >> DROPPED_BITS
    place = _clip(rounded - (minimum << LOG_SCALE_BITS), 0, len(table) - 1)
    inverse: int = _look_up(table.ctypes.data, place)
    return inverse


# Kinds of distributions: plain numbers, since numba takes almost a millisecond to see what an enum is.
BERNOULLI, LOGISTIC, MIXTURE, GAUSSIAN = range(4)

NO_INTEGERS: Signed = np.empty(0, np.int64)


Tables = tuple[int, int, Signed, Signed, Signed, int, Signed]
"""What tells distributions from outputs ``(groups, kinds, members)``, as :data:`bbans.intervals.makers.Outputs`: their
kind; precision; the slopes of the standard distribution function, or of Bernoulli distributions the frequencies of one;
inverse scales; the point masses of a mixture, or the edges of the bins of latents; the number of components; and
shares, which weights are made of. (Not a class: numba's caches of compiled code hold what arguments are, and must be
readable when classes have other names.)
"""


def _tables(
    kind: int,
    precision: int,
    slopes: Signed,
    scales: Signed = NO_INTEGERS,
    levels: Signed = NO_INTEGERS,
    components: int = 0,
    shares: Signed = NO_INTEGERS,
) -> Tables:
    return kind, precision, slopes, scales, levels, components, shares


@njit(nogil=True, cache=True)
def _bernoulli(
    tables: Tables,
    outputs: Outputs,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :func:`find`."""
    _, _, frequencies, _, _, _, _ = tables
    for index in range(len(symbols)):
        logit = np.int64(outputs[(first + index) // outputs.shape[2], 0, (first + index) % outputs.shape[2]])
        step = _clip((logit + (1 << (LOGIT_SHIFT - 1))) >> LOGIT_SHIFT, -LOGIT_STEPS, LOGIT_STEPS)
        one = np.uint64(frequencies[step + LOGIT_STEPS])
        zero = np.uint64(LOGIT_TOTAL) - one
        if len(values):
            symbols[index] = 1 if values[index] >= zero else 0
        start[index] = zero if symbols[index] else np.uint64(0)
        frequency[index] = one if symbols[index] else zero


@njit(nogil=True, cache=True)
def _logistic_start(slopes: Signed, mean: int, inverse: int, symbol: int) -> int:
    if symbol == 0:
        edge = -BEYOND
    elif symbol == LEVELS:
        edge = BEYOND
    else:
        edge = (2 * symbol - 1) << (MEAN_FRACTION - 1)
    start: int = _distribution_function(slopes, ((edge - mean) * inverse) >> EDGE_SHIFT) + symbol
    return start


@njit(nogil=True, cache=True)
def _logistic(
    tables: Tables,
    outputs: Outputs,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :func:`find`."""
    _, _, slopes, scales, _, _, _ = tables
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
                edge = _logistic_start(slopes, mean, inverse, level)
                if edge <= value:
                    low, below = level, edge
                    level = min(level + reach, (low + high) // 2) if high == LEVELS else (low + high) // 2
                else:
                    high, above = level, edge
                    level = max(level - reach, (low + high) // 2) if low == 0 else (low + high) // 2
                reach *= 2
            symbols[index] = low
        else:
            below = _logistic_start(slopes, mean, inverse, symbols[index])
            above = _logistic_start(slopes, mean, inverse, symbols[index] + 1)
        start[index] = below
        frequency[index] = above - below


@njit(nogil=True, cache=True)
def _mixture_parameters(tables: Tables, outputs: Outputs, weights: Signed, means: Signed, inverses: Signed) -> None:
    """Of mixtures whose outputs are ``(kinds, n)``, ``(components, n)`` each; weights of point masses come first."""
    _, _, _, scales, _, components, shares = tables
    kinds, size = outputs.shape
    count = kinds - 2 * components
    largest, total = np.empty(size, np.int64), np.zeros(size, np.int64)
    for index in range(size):
        largest[index] = np.int64(outputs[0, index])
    for kind in range(1, count):
        for index in range(size):
            largest[index] = max(largest[index], np.int64(outputs[kind, index]))
    for kind in range(count):
        for index in range(size):
            step = min((largest[index] - np.int64(outputs[kind, index])) >> WEIGHT_SHIFT, WEIGHT_STEPS)
            share = _look_up(shares.ctypes.data, step)
            weights[kind, index] = share
            total[index] += share
    for kind in range(count):
        for index in range(size):
            share = np.float64(weights[kind, index]) * (WEIGHT_TOTAL / np.float64(total[index]))
            weights[kind, index] = np.int64(np.floor(share))
    for component in range(components):
        for index in range(size):
            means[component, index] = _clip(np.int64(outputs[count + component, index]), -MEAN_LIMIT, MEAN_LIMIT)
            log_scale = np.int64(outputs[count + components + component, index])
            inverses[component, index] = _inverse_scale(scales, log_scale, LOG_SCALE_MINIMUM)


@njit(nogil=True, cache=True)
def _mixture_starts(
    tables: Tables, weights: Signed, means: Signed, inverses: Signed, first: int, levels: Signed, start: Signed
) -> None:
    """Where the intervals of levels ``0 .. LEVELS`` start, for :data:`VECTOR` mixtures from the ``first`` on."""
    _, _, slopes, _, masses, _, _ = tables
    _add_shares(
        slopes.ctypes.data,
        len(slopes) << INNER_BITS,
        levels.ctypes.data,
        len(means),
        8 * BLOCK,
        means.ctypes.data + 8 * first,
        inverses.ctypes.data + 8 * first,
        weights.ctypes.data + 8 * (len(masses) * BLOCK + first),
        start.ctypes.data,
    )
    for index in range(VECTOR):
        start[index] = (start[index] >> PRECISION) + levels[index]
    for place in range(len(masses)):
        for index in range(VECTOR):
            start[index] += weights[place, first + index] if masses[place] < levels[index] else 0
    for index in range(VECTOR):
        start[index] = 0 if levels[index] == 0 else 1 << PRECISION if levels[index] == LEVELS else start[index]


@njit(nogil=True, cache=True)
def _mixture(
    tables: Tables,
    outputs: Outputs,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :func:`find`."""
    _, _, _, _, masses, components, _ = tables
    members = outputs.shape[2]
    weights = np.zeros((len(masses) + components, BLOCK), np.int64)
    means, inverses = np.zeros((components, BLOCK), np.int64), np.zeros((components, BLOCK), np.int64)
    below, above, level = np.empty(VECTOR, np.int64), np.empty(VECTOR, np.int64), np.zeros(VECTOR, np.int64)
    low, high, edge = np.empty(VECTOR, np.int64), np.empty(VECTOR, np.int64), np.empty(VECTOR, np.int64)
    # Most pixels of data with a point mass at 0 lie there; otherwise the search begins in the middle.
    first_level = 1 if len(masses) and masses[0] == 0 else LEVELS // 2
    done = 0
    while done < len(symbols):
        group, member = (first + done) // members, (first + done) % members
        size = min(BLOCK, members - member, len(symbols) - done)
        _mixture_parameters(tables, outputs[group, :, member : member + size], weights, means, inverses)
        for place in range(0, size, VECTOR):
            count = min(VECTOR, size - place)
            here = done + place
            if len(values):
                for index in range(VECTOR):
                    low[index], high[index], below[index], above[index] = 0, LEVELS, 0, 1 << PRECISION
                    level[index] = first_level
                searching = True
                while searching:
                    _mixture_starts(tables, weights, means, inverses, place, level, edge)
                    searching = False
                    for index in range(count):
                        if edge[index] <= np.int64(values[here + index]):
                            low[index], below[index] = level[index], edge[index]
                        else:
                            high[index], above[index] = level[index], edge[index]
                        searching |= high[index] - low[index] > 1
                        level[index] = max(low[index], (low[index] + high[index]) // 2)
                for index in range(count):
                    symbols[here + index] = low[index]
            else:
                for index in range(count):
                    level[index] = symbols[here + index]
                _mixture_starts(tables, weights, means, inverses, place, level, below)
                for index in range(count):
                    level[index] += 1
                _mixture_starts(tables, weights, means, inverses, place, level, above)
            for index in range(count):
                start[here + index] = below[index]
                frequency[here + index] = above[index] - below[index]
        done += size


@njit(nogil=True, cache=True)
def _gaussian(
    tables: Tables,
    outputs: Outputs,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """See :func:`find`."""
    _, _, slopes, scales, edges, _, _ = tables
    for index in range(len(symbols)):
        group, member = (first + index) // outputs.shape[2], (first + index) % outputs.shape[2]
        mean = _clip(np.int64(outputs[group, 0, member]), -LATENT_LIMIT, LATENT_LIMIT)
        inverse = _inverse_scale(scales, np.int64(outputs[group, 1, member]), LATENT_MINIMUM)
        if len(values):
            value = np.int64(values[index])
            low, high = 0, len(edges) - 1
            while high - low > 1:
                symbol = (low + high) // 2
                if _distribution_function(slopes, ((edges[symbol] - mean) * inverse) >> LATENT_SHIFT) <= value:
                    low = symbol
                else:
                    high = symbol
            symbols[index] = low
        below = _distribution_function(slopes, ((edges[symbols[index]] - mean) * inverse) >> LATENT_SHIFT)
        above = _distribution_function(slopes, ((edges[symbols[index] + 1] - mean) * inverse) >> LATENT_SHIFT)
        start[index] = below
        frequency[index] = above - below


@njit(nogil=True, cache=True)
def find(
    tables: Tables,
    outputs: Outputs,
    first: int,
    values: Integers,
    symbols: Symbols,
    start: Integers,
    frequency: Integers,
) -> None:
    """From the first distribution on: write start and frequency of the intervals of symbols, one for each distribution,
    which are found first if there are values (else none are given). ``outputs`` are int64, and contiguous.
    """
    kind, _, _, _, _, _, _ = tables
    if kind == BERNOULLI:
        _bernoulli(tables, outputs, first, values, symbols, start, frequency)
    elif kind == LOGISTIC:
        _logistic(tables, outputs, first, values, symbols, start, frequency)
    elif kind == MIXTURE:
        _mixture(tables, outputs, first, values, symbols, start, frequency)
    else:
        _gaussian(tables, outputs, first, values, symbols, start, frequency)


@njit(nogil=True, cache=True)
def pop_symbols(tables: Tables, outputs: Outputs, symbols: Symbols, heads: Integers, buffer: Words, top: int) -> int:
    """Pop symbols as :func:`bbans.intervals.pop` does; returns where the tail begins now, beyond the end of the buffer
    if words are missing.
    """
    _, precision, _, _, _, _, _ = tables
    lanes, mask = len(heads), np.uint64((1 << precision) - 1)
    values, start, frequency = np.empty(lanes, np.uint64), np.empty(lanes, np.uint64), np.empty(lanes, np.uint64)
    for first in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        size = min(lanes, len(symbols) - first)
        for lane in range(size):
            values[lane] = heads[lane] & mask
        find(tables, outputs, first, values[:size], symbols[first : first + size], start[:size], frequency[:size])
        top = pop_lanes(heads, start[:size], frequency[:size], precision, buffer, top)
        if top > len(buffer):
            break
    return top


@dataclass(frozen=True, eq=False)
class Compiled:
    """Some of the distributions that outputs stand for: a :class:`bbans.intervals.distribution.Distribution`."""

    tables: Tables
    outputs: Outputs
    count: int
    first: int = 0

    @staticmethod
    def of(tables: Tables, outputs: Outputs) -> Compiled:
        """All of them."""
        outputs = np.ascontiguousarray(outputs, np.int64)
        return Compiled(tables, outputs, outputs.shape[0] * outputs.shape[2])

    @property
    def precision(self) -> int:
        return self.tables[1]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, block: slice) -> Compiled:
        start, stop, _ = block.indices(self.count)
        return replace(self, count=stop - start, first=self.first + start)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        """Raises :class:`bbans.errors.ImpossibleSymbol` for a bin of frequency 0, which only latents have."""
        start, frequency = np.empty(self.count, np.uint64), np.empty(self.count, np.uint64)
        find(self.tables, self.outputs, self.first, np.empty(0, np.uint64), symbols, start, frequency)
        if not frequency.all():
            raise ImpossibleSymbol("a latent lies where its posterior can't have put it")
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols = np.empty(self.count, np.int64)
        start, frequency = np.empty(self.count, np.uint64), np.empty(self.count, np.uint64)
        find(self.tables, self.outputs, self.first, values, symbols, start, frequency)
        return symbols, start, frequency

    def pop_from(self, stack: Stack) -> Symbols:
        """See :class:`bbans.intervals.coding.Poppable`: one call, if the stack is in compiled code too."""
        if self.first or not isinstance(stack, NumbaStack):
            return pop_blocks(stack, self)
        symbols = np.empty(self.count, np.int64)
        stack.popped_to(pop_symbols(self.tables, self.outputs, symbols, stack.heads, stack.buffer, stack.top))
        return symbols


# Copies, because numba takes long to see what read-only arrays are.


@cache
def _bernoulli_tables() -> Tables:
    return _tables(BERNOULLI, bernoulli.PRECISION, bernoulli.frequencies_of_one().astype(np.int64))


@cache
def _logistic_tables() -> Tables:
    return _tables(LOGISTIC, PRECISION, _slopes(logistic.distribution_table().nodes), logistic.scale_table().copy())


@cache
def _mixture_tables(components: int, levels: tuple[int, ...]) -> Tables:
    slopes, scales = _slopes(mixture.distribution_table().nodes), logistic.scale_table().copy()
    masses, shares = np.array(levels, np.int64), mixture.weight_table().astype(np.int64)
    return _tables(MIXTURE, PRECISION, slopes, scales, masses, components, shares)


@cache
def _gaussian_tables(bins: PriorBins) -> Tables:
    slopes, scales = _slopes(gaussian.distribution_table().nodes), gaussian.deviation_table().copy()
    return _tables(GAUSSIAN, PRECISION, slopes, scales, bins.edges.copy())


class CompiledMaker:
    """A :class:`bbans.intervals.makers.Maker`."""

    def bernoulli(self, outputs: Outputs) -> Compiled:
        return Compiled.of(_bernoulli_tables(), outputs)

    def logistic(self, outputs: Outputs) -> Compiled:
        return Compiled.of(_logistic_tables(), outputs)

    def mixture(self, outputs: Outputs, components: int, levels: tuple[int, ...]) -> Compiled:
        return Compiled.of(_mixture_tables(components, levels), outputs)

    def gaussian(self, bins: PriorBins, outputs: Outputs) -> Compiled:
        return Compiled.of(_gaussian_tables(bins), outputs)
