"""Pixels with context in compiled code: :class:`bbans.likelihoods.ContextLikelihood` in one call for many lines.

Line by line, threads that code chunks side by side would wait for each other, for Python's lock, before each call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bbans.ans.numba_core import NumbaStack, push_lanes
from bbans.ans.stack import Stack, Words
from bbans.intervals.compiled import Compiled, Tables, find, pop_symbols
from bbans.intervals.distribution import Integers, Symbols
from bbans.likelihoods import ContextLikelihood
from bbans.portable.convolution import Line
from bbans.portable.layout import Stored
from bbans.portable.maps import ContextState
from bbans.portable.numba_engine import Calls
from bbans.portable.numba_product import ONE, TILE, ZERO, Step, Table, evaluate, unpack

Context = tuple[
    Table, Table, tuple[tuple[Table, Table], ...], NDArray[np.bool_], Stored, Stored, tuple[int, int], NDArray[np.int32]
]
"""A context network and the maps that it works on:

- steps and operands as :func:`bbans.portable.numba_product.evaluate` takes them, and these for each channel's head;
- how the outputs of each head are stored, and where those of the head are that was evaluated last, ``(tiles, positions,
  groups, TILE)``;
- what is known of the pixels, ``(tiles, rows, columns, groups, TILE)``, and its margin above and left;
- what the network is given of a symbol, ``(kinds, symbols)``.
"""


def _context_of(state: ContextState) -> Context:
    network = state.loaded.network
    symbols = np.arange(network.pixel_input.symbols, dtype=np.float32)
    look, heads = state.look, [find for find, _ in state.heads]
    assert isinstance(look, Calls)
    calls = [find for find in heads if isinstance(find, Calls)]
    return (
        look.steps,
        look.operands,
        tuple((find.steps, find.operands) for find in calls),
        np.array([find.steps[-1, Step.WIDE] for find in calls], np.bool_),
        state.heads[0][1].map.stored,
        state.pixels.stored,
        (state.pixels.margin.above, state.pixels.margin.left),
        network.pixel_input(symbols[None]).astype(np.int32),
    )


@njit(nogil=True, cache=True)
def _learn(context: Context, row: int, column: int, channel: int, symbols: Symbols) -> None:
    """Fill in a channel of a position of all images."""
    _, _, heads, _, _, known, (above, left), given = context
    for kind in range(len(given)):
        place = kind * len(heads) + channel
        for index in range(len(symbols)):
            tile, image = index // TILE, index % TILE
            value = given[kind, symbols[index]]
            other = known[tile, above + row, left + column, place // 2, image]
            both = (other & 0xFFFF) | (value << 16) if place % 2 else (other & ~0xFFFF) | (value & 0xFFFF)
            known[tile, above + row, left + column, place // 2, image] = both


@njit(nogil=True, cache=True)
def _find_intervals(
    context: Context, tables: Tables, parameters: Table, pixels: Symbols, start: Integers, frequency: Integers
) -> None:
    """Start and frequency of all pixels ``(rows, columns, channels, images)`` of a tile, ``(channels, rows, columns,
    images)``; ``parameters`` is scratch, ``(columns, outputs, images)``.
    """
    look, look_operands, heads, wide, outputs, _, _, _ = context
    height, width, channels, images = pixels.shape
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                _learn(context, row, column, channel, pixels[row, column, channel])
    nothing, count = np.empty(0, np.uint64), width * images
    symbols, starts, frequencies = np.empty(count, np.int64), np.empty(count, np.uint64), np.empty(count, np.uint64)
    for row in range(height):
        line = (row, ZERO, ZERO, ONE, width)
        evaluate(look, look_operands, line, ONE)
        for channel in range(channels):
            steps, operands = heads[channel]
            evaluate(steps, operands, line, ONE)
            unpack(outputs[:, :width], parameters, wide[channel])
            for place in range(count):
                symbols[place] = pixels[row, place // images, channel, place % images]
            find(tables, parameters, ZERO, nothing, symbols, starts, frequencies)
            for place in range(count):
                start[channel, row, place // images, place % images] = starts[place]
                frequency[channel, row, place // images, place % images] = frequencies[place]


@njit(nogil=True, cache=True)
def _push_lines(
    lines: Table, start: Integers, frequency: Integers, precision: int, heads: Integers, buffer: Words, top: int
) -> tuple[Words, int]:
    """Push the pixels of lines, last line and channel first; returns a stack's buffer, and where its tail begins."""
    channels, height, _, images = start.shape
    lanes = len(heads)
    starts, frequencies = np.empty(height * images, np.uint64), np.empty(height * images, np.uint64)
    for index in range(len(lines) - 1, -1, -1):
        row, column, down, right, count = lines[index]
        for channel in range(channels - 1, -1, -1):
            for position in range(count):
                for image in range(images):
                    place = (channel, row + position * down, column + position * right, image)
                    starts[position * images + image] = start[place]
                    frequencies[position * images + image] = frequency[place]
            for first in range(0, count * images, lanes):
                block = slice(first, min(first + lanes, count * images))
                if top < lanes:
                    room = len(buffer) + lanes
                    larger = np.empty(room + len(buffer), np.uint32)
                    for word in range(len(buffer)):
                        larger[room + word] = buffer[word]
                    buffer, top = larger, top + room
                top = push_lanes(heads, starts[block], frequencies[block], precision, buffer, top)
    return buffer, top


@njit(nogil=True, cache=True)
def _pop_lines(
    context: Context,
    tables: Tables,
    lines: Table,
    parameters: Table,
    x: Symbols,
    heads: Integers,
    buffer: Words,
    top: int,
) -> int:
    """Pop the pixels ``x`` of lines, ``(rows, columns, channels, images)``; ``parameters`` is scratch, ``(rows,
    outputs, images)``. Returns where the tail begins now; it is beyond the end of the buffer if words are missing.
    """
    look, look_operands, networks, wide, outputs, _, _, _ = context
    height, _, channels, images = x.shape
    tiles, symbols = -(-images // TILE), np.empty(height * images, np.int64)
    for index in range(len(lines)):
        row, column, down, right, count = lines[index]
        line = (row, column, down, right, count)
        evaluate(look, look_operands, line, tiles)
        for channel in range(channels):
            steps, operands = networks[channel]
            evaluate(steps, operands, line, tiles)
            unpack(outputs[:tiles, :count], parameters[:count], wide[channel])
            top = pop_symbols(tables, parameters[:count], symbols[: count * images], heads, buffer, top)
            if top > len(buffer):
                return top
            for position in range(count):
                found = symbols[position * images : (position + 1) * images]
                for image in range(images):
                    x[row + position * down, column + position * right, channel, image] = found[image]
                _learn(context, row + position * down, column + position * right, channel, found)
    return top


def _numbers(lines: Sequence[Line]) -> Table:
    return np.array([(line.row, line.column, line.down, line.right, line.count) for line in lines], np.int64)


class CompiledContextLikelihood(ContextLikelihood):
    """The same intervals, and on a stack in compiled code the same operations."""

    def push(self, stack: Stack, x: Symbols) -> None:
        if not isinstance(stack, NumbaStack):
            super().push(stack, x)
            return
        start, frequency, precision = self._intervals(x)
        lines = _numbers(self._diagonals())
        stack.buffer, stack.top = _push_lines(lines, start, frequency, precision, stack.heads, stack.buffer, stack.top)

    def pop(self, stack: Stack) -> Symbols:
        height, _, _, images = self._shape
        parameters = self._parameters(height, images)
        distribution = self.distribution(parameters)
        if not (isinstance(stack, NumbaStack) and isinstance(distribution, Compiled)):
            return super().pop(stack)
        state = self.context.start(self.features)
        lines, x = _numbers(self._diagonals()), np.empty(self._shape, np.int64)
        context = _context_of(state)
        stack.popped_to(
            _pop_lines(context, distribution.tables, lines, parameters, x, stack.heads, stack.buffer, stack.top)
        )
        return np.ascontiguousarray(x.reshape(-1, images).T)

    def _intervals(self, x: Symbols) -> tuple[Integers, Integers, int]:
        height, width, channels, images = self._shape
        pixels = np.ascontiguousarray(x.T).reshape(self._shape)
        start = np.empty((channels, height, width, images), np.uint64)
        frequency = np.empty_like(start)
        layout = self.context.engine.layout
        state = self.context.start(self.features[:, :, :, :TILE])
        context = _context_of(state)
        precision = 0
        for block in layout.map_blocks(images, width):
            part = np.ascontiguousarray(pixels[:, :, :, block])
            layout.store(self.features[:, :, :, block], state.features.inside)
            parameters = self._parameters(width, part.shape[3])
            distribution = self.distribution(parameters)
            assert isinstance(distribution, Compiled)
            precision = distribution.precision
            # All contiguous, as else another version would be compiled.
            starts = np.empty((channels, height, width, part.shape[3]), np.uint64)
            frequencies = np.empty_like(starts)
            _find_intervals(context, distribution.tables, parameters, part, starts, frequencies)
            start[:, :, :, block], frequency[:, :, :, block] = starts, frequencies
        return start, frequency, precision

    def _parameters(self, positions: int, images: int) -> Table:
        """Room for what a head puts out."""
        return np.empty((positions, len(self.context.network.heads[0].output.weight), images), np.int64)
