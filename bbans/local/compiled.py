"""Strips in compiled code: :class:`bbans.local.likelihood.NumpyStripLikelihood` in one call for many fronts.

Rows are the lanes here: a vector holds a map's channels at one front for rows that follow each other, and a tile of
rows is evaluated together, as tiles of images are elsewhere (:mod:`bbans.portable.numba_product`). What lies in rows
above is in the same map, some lanes before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bbans.ans import fold, grow
from bbans.ans.numba_core import NumbaStack, push_lanes
from bbans.ans.stack import Stack, Words
from bbans.intervals import Outputs
from bbans.intervals.compiled import Compiled, Tables, find, pop_symbols
from bbans.intervals.distribution import Distribution, Integers
from bbans.local.likelihood import Edges, Lanes, NumpyStripLikelihood
from bbans.local.strips import Fronts, Strip
from bbans.portable.context import BLOCK, NEAR
from bbans.portable.convolution import Offsets
from bbans.portable.local import Levels, LocalNetwork
from bbans.portable.network import Linear
from bbans.portable.numba_engine import NumbaEngine, fits
from bbans.portable.numba_product import OUTPUTS, PAIR_BYTES, TILE, ZERO, Step, Table, multiply

Map = NDArray[np.int32]
"""By front, group of two channels, and row; the first rows are those above the image."""
Maps = tuple[Map, NDArray[np.int32], NDArray[np.int32]]
"""The pixels; what is known before each block, ``(blocks, fronts, groups, rows)``; and what is known after the last,
``(tiles, groups, TILE)``."""


class Part(IntEnum):
    """The fields of a part of a layer's inputs."""

    SOURCE = 0
    """One of the sources below."""
    TIME = 1
    """Fronts from a pixel's own to the one that is looked at..."""
    ROW = 2
    """...and rows."""
    GROUPS = 3


PIXELS, EARLIER, KNOWN, UNITS = range(4)
"""Sources: the pixels, what is known before the block, what was found last of all tiles, and what the layer before
gave."""

Layers = tuple[Table, Table, Table]
"""Steps as :class:`bbans.portable.numba_product.Step`, the parts of their inputs, and where those of each begin."""

Scratch = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Room for what a layer gives of a tile, ``(groups, TILE)``, and for outputs, ``(outputs, TILE)``."""
Work = tuple[Layers, Tables, Maps, Scratch, tuple[int, int], Table]
"""All that is needed to go through a strip. After the above: how many rows are kept above the image, and the slope; and
what the network is given of levels, and of what lies inside the image after them."""


@njit(nogil=True, cache=True)
def _evaluate(
    layers: Layers,
    index: int,
    pixels: Map,
    earlier: Map,
    known: Map,
    units: NDArray[np.int32],
    out: NDArray[np.int32],
    other: int,
    time: int,
    row: int,
    inputs: Table,
    nothing: Table,
) -> None:
    """Evaluate a layer for the tile of rows from ``row`` on, as :func:`bbans.portable.numba_product.multiply` does."""
    steps, parts, begins = layers
    step, place = steps[index], 0
    for number in range(begins[index], begins[index + 1]):
        source, groups = parts[number, Part.SOURCE], parts[number, Part.GROUPS]
        if source in (KNOWN, UNITS):
            address = known.ctypes.data if source == KNOWN else units.ctypes.data
            stride = PAIR_BYTES
        else:
            kept = pixels if source == PIXELS else earlier
            front = (time + parts[number, Part.TIME]) % kept.shape[0]
            address = kept.ctypes.data + front * kept.strides[0] + 4 * (row + parts[number, Part.ROW])
            stride = kept.strides[1]
        for _ in range(groups):
            inputs[place] = address
            address += stride
            place += 1
    multiply(step, inputs, other, out.ctypes.data, nothing)


@njit(nogil=True, cache=True)
def _keep(found: NDArray[np.int32], kept: Map, time: int, row: int, first: int, stop: int) -> None:
    """Put what was found of a tile into a map, and nothing where there is no pixel."""
    front = kept[time % len(kept)]
    before, after = max(first - row, 0), min(stop - row, TILE)
    for group in range(len(found)):
        place, there = found[group], front[group, row : row + TILE]
        if after - before < TILE:
            there[:] = 0
        for lane in range(before, after):
            there[lane] = place[lane]


@njit(nogil=True, cache=True)
def _look(work: Work, front: Table) -> None:
    """Find out what can be known of the pixels of a front, as :meth:`bbans.portable.local.LocalState.look`."""
    layers, _, (pixels, earlier, known), (scratch, _), (above, _), _ = work
    inputs, nothing = np.empty(layers[0][:, Step.PAIRS].max(), np.int64), np.zeros(OUTPUTS * PAIR_BYTES // 8, np.int64)
    time, first, stop = front[0], front[1] + above, front[2] + above
    # What lies beside the image, to the right.
    pixels[time % len(pixels), :, first - 1] = 0
    earlier[:, time % len(pixels), :, first - 1] = 0
    for tile in range(-(-(stop - first) // TILE)):
        row = first + tile * TILE
        pixels[time % len(pixels), :, row : min(stop, row + TILE)] = 0
        h = known[tile]
        _evaluate(layers, 0, pixels, pixels, h, h, h, ZERO, time, row, inputs, nothing)
        for block in range(len(earlier)):
            _keep(h, earlier[block], time, row, first, stop)
            _evaluate(layers, 1 + 2 * block, pixels, earlier[block], h, h, scratch, ZERO, time, row, inputs, nothing)
            _evaluate(
                layers, 2 + 2 * block, pixels, earlier[block], h, scratch, h, h.ctypes.data, time, row, inputs, nothing
            )


@njit(nogil=True, cache=True)
def _tell(work: Work, channel: int, front: Table, own: Table, parameters: Table) -> None:
    """Write the parameters of a channel of a front's own rows, ``(1, outputs, rows)``."""
    layers, _, (pixels, earlier, known), (scratch, wide), (above, _), _ = work
    inputs, nothing = np.empty(layers[0][:, Step.PAIRS].max(), np.int64), np.zeros(OUTPUTS * PAIR_BYTES // 8, np.int64)
    (time, begin, _), (_, first, stop) = front, own
    head = 1 + 2 * len(earlier) + 2 * channel
    for tile in range((first - begin) // TILE, -(-(stop - begin) // TILE)):
        here = begin + tile * TILE
        row = above + here
        _evaluate(layers, head, pixels, pixels, known[tile], scratch, scratch, ZERO, time, row, inputs, nothing)
        _evaluate(layers, head + 1, pixels, pixels, known[tile], scratch, wide, ZERO, time, row, inputs, nothing)
        for output in range(parameters.shape[1]):
            for index in range(max(first, here), min(stop, here + TILE)):
                parameters[0, output, index - first] = wide[output, index - here]


@njit(nogil=True, cache=True)
def _learn(work: Work, x: Levels, channel: int, front: Table) -> None:
    """Fill in a channel of the pixels of a front."""
    _, _, (pixels, _, _), _, (above, slope), given = work
    time, first, stop = front
    kept, channels = pixels[time % len(pixels)], x.shape[2]
    for row in range(first, stop):
        value = given[x[row, time - slope * row, channel]] & 0xFFFF
        kept[channel // 2, above + row] |= value << 16 if channel % 2 else value
        if channel == channels - 1:
            inside = given[-1] & 0xFFFF
            kept[channels // 2, above + row] |= inside << 16 if channels % 2 else inside


@njit(nogil=True, cache=True)
def _intervals(work: Work, x: Levels, fronts: Table, own: Table, starts: Edges, frequencies: Edges) -> None:
    """See :meth:`bbans.local.likelihood.StripLikelihood.intervals`."""
    _, tables, _, (_, wide), (_, slope), _ = work
    rows, done = len(x), 0
    symbols, nothing = np.empty(rows, np.int64), np.empty(0, np.uint64)
    start, frequency = np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    for index in range(len(fronts)):
        _look(work, fronts[index])
        time, first, stop = own[index]
        count = stop - first
        parameters = np.empty((1, len(wide), count), np.int64)
        for channel in range(x.shape[2]):
            if count:
                _tell(work, channel, fronts[index], own[index], parameters)
                for place in range(count):
                    row = first + place
                    symbols[place] = x[row, time - slope * row, channel]
                find(tables, parameters, ZERO, nothing, symbols[:count], start[:count], frequency[:count])
                for place in range(count):
                    starts[done + place], frequencies[done + place] = start[place], frequency[place]
                done += count
            _learn(work, x, channel, fronts[index])


@njit(nogil=True, cache=True)
def _pop(work: Work, x: Levels, fronts: Table, own: Table, heads: Integers, buffer: Words, top: int) -> int:
    """See :meth:`bbans.local.likelihood.StripLikelihood.pop`, for fronts with one number of lanes. Returns where the
    tail begins now; it is beyond the end of the buffer if words are missing.
    """
    _, tables, _, (_, wide), (_, slope), _ = work
    symbols = np.empty(len(x), np.int64)
    for index in range(len(fronts)):
        _look(work, fronts[index])
        time, first, stop = own[index]
        count = stop - first
        parameters = np.empty((1, len(wide), count), np.int64)
        for channel in range(x.shape[2]):
            if count:
                _tell(work, channel, fronts[index], own[index], parameters)
                top = pop_symbols(tables, parameters, symbols[:count], heads, buffer, top)
                if top > len(buffer):
                    return top
                for place in range(count):
                    row = first + place
                    x[row, time - slope * row, channel] = symbols[place]
            _learn(work, x, channel, fronts[index])
    return top


@njit(nogil=True, cache=True)
def _push(
    starts: Edges,
    frequencies: Edges,
    stop: int,
    counts: Table,
    channels: int,
    precision: int,
    heads: Integers,
    buffer: Words,
    top: int,
) -> tuple[Words, int, int]:
    """Push the values of fronts with one number of lanes, the last of which ends at ``stop``, last front and channel
    first. Returns the buffer, where the tail begins in it now, and where the first of the values lies.
    """
    lanes = len(heads)
    start, frequency = np.empty(lanes, np.uint64), np.empty(lanes, np.uint64)
    for front in range(len(counts) - 1, -1, -1):
        for _ in range(channels):
            first = stop - counts[front]
            for place in range(first, stop, lanes):
                size = min(lanes, stop - place)
                for lane in range(size):
                    start[lane], frequency[lane] = starts[place + lane], frequencies[place + lane]
                if top < lanes:
                    room = len(buffer) + lanes
                    larger = np.empty(room + len(buffer), np.uint32)
                    larger[room:] = buffer
                    buffer, top = larger, top + room
                top = push_lanes(heads, start[:size], frequency[:size], precision, buffer, top)
            stop = first
    return buffer, top, stop


@dataclass(frozen=True, eq=False)
class CompiledStripLikelihood:
    """A :class:`bbans.local.likelihood.StripLikelihood`."""

    in_numpy: NumpyStripLikelihood
    """For stacks that are not in compiled code."""
    layers: Layers
    products: tuple[Any, ...]
    """What the addresses in steps point into lives as long as these."""
    distribution: Callable[[Outputs], Distribution]

    @staticmethod
    def of(
        in_numpy: NumpyStripLikelihood, distribution: Callable[[Outputs], Distribution]
    ) -> CompiledStripLikelihood | None:
        """The same, or None if a layer has sums or inputs too large for compiled code."""
        found = _load(in_numpy.loaded.network)
        return None if found is None else CompiledStripLikelihood(in_numpy, *found, distribution)

    @property
    def network(self) -> LocalNetwork:
        """What is evaluated."""
        return self.in_numpy.loaded.network

    @property
    def precision(self) -> int:
        return self.in_numpy.precision

    def intervals(self, x: Levels, strip: Strip) -> tuple[Edges, Edges]:
        fronts = Fronts.of(strip, x.shape[1], self.network.slope)
        start = np.empty(int(fronts.counts.sum()) * self.network.channels, np.uint32)
        frequency = np.empty_like(start)
        _intervals(self._start(len(x)), x.copy(), fronts.all, fronts.own, start, frequency)
        return start, frequency

    def push(self, stack: Stack, edges: tuple[Edges, Edges], counts: Lanes, lanes: Lanes) -> None:
        if not isinstance(stack, NumbaStack):
            self.in_numpy.push(stack, edges, counts, lanes)
            return
        stop = len(edges[0])
        for first, last in reversed(_runs(lanes)):
            grow(stack, max(int(lanes[first]), stack.lanes))
            coding = self.network.channels, self.precision
            stack.buffer, stack.top, stop = _push(
                *edges, stop, counts[first:last], *coding, stack.heads, stack.buffer, stack.top
            )

    def pop(self, stack: Stack, x: Levels, strip: Strip, lanes: Lanes) -> None:
        if not isinstance(stack, NumbaStack):
            self.in_numpy.pop(stack, x, strip, lanes)
            return
        fronts = Fronts.of(strip, x.shape[1], self.network.slope)
        work, pixels = self._start(len(x)), x.copy()
        for first, stop in _runs(lanes):
            fold(stack, min(int(lanes[first]), stack.lanes))
            part = fronts.all[first:stop], fronts.own[first:stop]
            stack.popped_to(_pop(work, pixels, *part, stack.heads, stack.buffer, stack.top))
        x[:] = pixels

    def _start(self, rows: int) -> Work:
        """Where nothing is known yet of a strip of so many rows."""
        network = self.network
        above, tiles = network.rows, -(-rows // TILE)
        places, hidden = above + rows + TILE, -(-network.hidden // 2)
        maps = (
            np.zeros((network.fronts, network.channels // 2 + 1, places), np.int32),
            np.zeros((len(network.blocks), network.fronts, hidden, places), np.int32),
            np.zeros((tiles, hidden, TILE), np.int32),
        )
        widest = max(-(-len(layer.weight) // 2) for layer in network.layers)
        scratch = np.zeros((widest, TILE), np.int32), np.zeros((network.outputs, TILE), np.int32)
        levels = np.arange(network.pixel_input.symbols, dtype=np.float32)
        given = np.append(network.pixel_input(levels[None])[0].astype(np.int64), network.pixel_input.unit)
        some = self.distribution(np.zeros((1, network.outputs, 1), np.int64))
        assert isinstance(some, Compiled)
        return self.layers, some.tables, maps, scratch, (above, network.slope), given


def _runs(lanes: Lanes) -> list[tuple[int, int]]:
    """The fronts that follow each other with one number of lanes: the first, and the one after the last."""
    changes = np.flatnonzero(np.diff(lanes, prepend=0)).tolist()
    return list(pairwise([*changes, len(lanes)]))


def _load(network: LocalNetwork) -> tuple[Layers, tuple[Any, ...]] | None:
    """All layers, and what their addresses point into."""
    engine, slope, magnitudes = NumbaEngine(), network.slope, iter(network.magnitudes)
    if not all(fits(layer, magnitude) for layer, magnitude in zip(network.layers, network.magnitudes, strict=True)):
        return None
    loaded: list[tuple[Any, list[tuple[int, int, int, int]], bool]] = []

    def places(source: int, offsets: Offsets, channels: int) -> list[tuple[int, int, int, int]]:
        return [(source, column + slope * row, row, -(-channels // 2)) for row, column in offsets]

    def load(
        layer: Linear, channels: Sequence[int], parts: list[tuple[int, int, int, int]], added_maximum: int = 0
    ) -> None:
        """The next layer, in the network's order."""
        product = engine.load_product(layer, next(magnitudes), channels, added_maximum)
        loaded.append((product, parts, added_maximum > 0))

    here: Offsets = ((0, 0),)
    offsets, seen = network.window_offsets, network.channels + 1
    load(network.window, [seen] * len(offsets), places(PIXELS, offsets, seen))
    for block in network.blocks:
        # By place here, not by channel, so that a place is read in one run.
        weight = block.mix.weight.reshape(len(block.mix.weight), -1, len(BLOCK)).swapaxes(1, 2)
        mix = replace(block.mix, weight=np.ascontiguousarray(weight.reshape(block.mix.weight.shape)))
        load(mix, [network.hidden] * len(BLOCK), places(EARLIER, BLOCK, network.hidden))
        mixed = len(block.mix.weight)
        load(block.project, [mixed], places(UNITS, here, mixed), network.window.output_magnitude)
    for channel, head in enumerate(network.heads):
        near, beside = [network.channels] * len(NEAR), places(PIXELS, NEAR, network.channels)
        if channel:
            near, beside = [*near, channel], [*beside, *places(PIXELS, here, channel)]
        units = len(head.hidden.weight)
        load(head.hidden, [network.hidden, *near], [*places(KNOWN, here, network.hidden), *beside])
        load(head.output, [units, *near], [*places(UNITS, here, units), *beside])
    counts = [len(parts) for _, parts, _ in loaded]
    begins = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    steps = [product.step(0, 0, added) for product, _, added in loaded]
    table = np.array([part for _, parts, _ in loaded for part in parts], np.int64)
    products = tuple(product for product, _, _ in loaded)
    return (np.array(steps, np.int64), table, begins), products
