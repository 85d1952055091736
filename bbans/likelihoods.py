"""p(x given z), ready to code images: all pixels at once, or each from those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.ans.stack import Stack
from bbans.intervals import Outputs, pop, push
from bbans.intervals.distribution import Distribution, Integers, Symbols
from bbans.parallel import unshared_products
from bbans.portable.context import diagonals
from bbans.portable.convolution import Line, rows_of
from bbans.portable.layout import Values
from bbans.portable.maps import LoadedContext

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IndependentLikelihood:
    """Pixels that are independent given z."""

    distribution: Distribution
    """Of all pixels, image after image."""
    images: int

    def push(self, stack: Stack, x: Symbols) -> None:
        push(stack, self.distribution, x.ravel())

    def pop(self, stack: Stack) -> Symbols:
        return pop(stack, self.distribution).reshape(self.images, -1)

    def bits(self, x: Symbols) -> float:
        return information(self.distribution, x.ravel())

    def bits_each(self, x: Symbols) -> Floats:
        return information_each(self.distribution, x.ravel()).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class ContextLikelihood:
    """Pixels that depend on z and on the pixels before them.

    All images of a batch are coded in lock-step, diagonal by diagonal, and the channels of a diagonal one after the
    other. The decoder knows only what it has; the encoder knows everything, and so gets all intervals first, and then
    pushes them in the opposite order.
    """

    context: LoadedContext
    features: Values
    """``(rows, columns, features, images)``."""
    distribution: Callable[[Outputs], Distribution]

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """Rows, columns, channels, images."""
        height, width, _, images = self.features.shape
        return height, width, len(self.context.network.heads), images

    def push(self, stack: Stack, x: Symbols) -> None:
        start, frequency, precision = self._intervals(x)
        for line in reversed(self._diagonals()):
            for channel in reversed(range(self._shape[2])):
                place = (channel, *line.index)
                push_intervals(stack, start[place].ravel(), frequency[place].ravel(), precision)

    def pop(self, stack: Stack) -> Symbols:
        x = np.empty(self._shape, np.int64)
        diagonals = self._diagonals()
        blocks = self.context.engine.layout.blocks(x.shape[3], max(line.count for line in diagonals))
        states = [self.context.start(self.features[:, :, :, block]) for block in blocks]
        with unshared_products():
            for line in diagonals:
                for state in states:
                    state.look(line)
                for channel in range(x.shape[2]):
                    outputs = len(self.context.network.heads[channel].output.weight)
                    parameters = np.empty((line.count, outputs, x.shape[3]), np.float32)
                    for state, block in zip(states, blocks, strict=True):
                        parameters[:, :, block] = state.parameters(line, channel)
                    symbols = pop(stack, self.distribution(parameters))
                    found = symbols.reshape(line.count, -1)
                    x[(*line.index, channel)] = found
                    for state, block in zip(states, blocks, strict=True):
                        state.learn(line, channel, found[:, block].astype(np.float32))
        return np.ascontiguousarray(x.reshape(-1, x.shape[3]).T)

    def bits(self, x: Symbols) -> float:
        _, frequency, precision = self._intervals(x)
        return float(frequency.size * precision - np.log2(frequency.astype(np.float64)).sum())

    def bits_each(self, x: Symbols) -> Floats:
        _, frequency, precision = self._intervals(x)
        bits = precision - np.log2(frequency.astype(np.float64))  # channels, rows, columns, images
        return np.ascontiguousarray(bits.transpose(3, 1, 2, 0)).reshape(x.shape)

    def _intervals(self, x: Symbols) -> tuple[Integers, Integers, int]:
        """Start and frequency of every pixel, ``(channels, rows, columns, images)``, and their precision."""
        height, width, channels, images = self._shape
        pixels = np.ascontiguousarray(x.T).reshape(self._shape)
        start = np.empty((channels, height, width, images), np.uint64)
        frequency = np.empty_like(start)
        precision = 0
        with unshared_products():
            for block in self.context.engine.layout.map_blocks(images, width):
                state = self.context.start(self.features[:, :, :, block])
                for line, row in zip(rows_of((height, width)), pixels[:, :, :, block], strict=True):
                    for channel in range(channels):
                        state.learn(line, channel, row[:, channel].astype(np.float32))
                for line in rows_of((height, width)):
                    state.look(line)
                    for channel in range(channels):
                        distribution = self.distribution(state.parameters(line, channel))
                        found = distribution.interval(pixels[line.row, :, channel, block].ravel())
                        for whole, part in zip((start, frequency), found, strict=True):
                            whole[channel, line.row, :, block] = part.reshape(width, -1)
                        precision = distribution.precision
        return start, frequency, precision

    def _diagonals(self) -> list[Line]:
        return diagonals(self.features.shape[:2], self.context.network.columns + 1)


def push_intervals(stack: Stack, start: Integers, frequency: Integers, precision: int) -> None:
    """Push intervals as :func:`bbans.intervals.push` pushes symbols."""
    for first in range(0, len(start), stack.lanes):
        block = slice(first, first + stack.lanes)
        stack.push(start[block], frequency[block], precision)


def information(distribution: Distribution, symbols: Symbols) -> float:
    """How many bits symbols cost."""
    return float(np.sum(information_each(distribution, symbols)))


def information_each(distribution: Distribution, symbols: Symbols) -> Floats:
    """How many bits each symbol costs."""
    frequency = distribution.interval(symbols)[1].astype(np.float64)
    bits: Floats = distribution.precision - np.log2(frequency)
    return bits
