"""p(x given z), ready to code images: all pixels at once, or each from those before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.ans.stack import Stack
from bbans.intervals import pop, push
from bbans.intervals.distribution import Distribution, Integers, Symbols
from bbans.parallel import unshared_products
from bbans.portable.context import diagonals
from bbans.portable.maps import LoadedContext, Map

BLOCK_IMAGES = 64
"""That the encoder evaluates together: enough for the matrix products, few enough to stay in cache."""
Parameters = NDArray[np.int64]
"""Network outputs, ``(outputs, n)``."""


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


@dataclass(frozen=True, eq=False)
class ContextLikelihood:
    """Pixels that depend on z and on the pixels before them.

    All images of a batch are coded in lock-step, diagonal by diagonal, and the channels of a diagonal one after the
    other. The decoder knows only what it has; the encoder knows everything, and so gets all intervals first, and then
    pushes them in the opposite order.
    """

    context: LoadedContext
    features: Map
    """``(features, positions, images)``."""
    distribution: Callable[[Parameters], Distribution]

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Positions, channels, images."""
        return self.features.shape[1], len(self.context.network.heads), self.features.shape[2]

    def push(self, stack: Stack, x: Symbols) -> None:
        start, frequency, precision = self._intervals(x)
        for positions in reversed(self._diagonals()):
            for channel in reversed(range(self._shape[1])):
                first = start[channel, positions].ravel()
                push_intervals(stack, first, frequency[channel, positions].ravel(), precision)

    def pop(self, stack: Stack) -> Symbols:
        positions, channels, images = self._shape
        x = np.empty((positions, channels, images), np.int64)
        state = self.context.start(self.features)
        with unshared_products():
            for group in self._diagonals():
                h = state.look(group)
                for channel in range(channels):
                    symbols = pop(stack, self._distribution(state.parameters(channel, group, h)))
                    found = symbols.reshape(len(group), images)
                    x[group, channel] = found
                    state.learn(channel, group, found.astype(np.float32))
        return np.ascontiguousarray(x.reshape(-1, images).T)

    def bits(self, x: Symbols) -> float:
        _, frequency, precision = self._intervals(x)
        return float(frequency.size * precision - np.log2(frequency.astype(np.float64)).sum())

    def _intervals(self, x: Symbols) -> tuple[Integers, Integers, int]:
        """Start and frequency of every pixel, ``(channels, positions, images)``, and their precision."""
        blocks = [slice(first, first + BLOCK_IMAGES) for first in range(0, len(x), BLOCK_IMAGES)]
        with unshared_products():
            parts = [self._block_intervals(x[block], block) for block in blocks]
        start, frequency = (np.concatenate(part, axis=2) for part in zip(*(part[:2] for part in parts), strict=True))
        return start, frequency, parts[0][2]

    def _block_intervals(self, x: Symbols, block: slice) -> tuple[Integers, Integers, int]:
        """:meth:`_intervals` of a block of the images."""
        positions, channels, _ = self._shape
        images = len(x)
        start = np.empty((channels, positions, images), np.uint64)
        frequency = np.empty_like(start)
        precision = 0
        pixels = np.ascontiguousarray(x.T).reshape(positions, channels, images)
        state = self.context.start(self.features[:, :, block])
        for channel in range(channels):
            state.learn(channel, slice(0, positions), pixels[:, channel].astype(np.float32))
        for row in state.rows():
            h = state.look(row)
            for channel in range(channels):
                distribution = self._distribution(state.parameters(channel, row, h))
                found = distribution.interval(pixels[row, channel].ravel())
                start[channel, row], frequency[channel, row] = (part.reshape(len(row), images) for part in found)
                precision = distribution.precision
        return start, frequency, precision

    def _distribution(self, parameters: Map) -> Distribution:
        return self.distribution(parameters.reshape(len(parameters), -1).astype(np.int64))

    def _diagonals(self) -> list[NDArray[np.intp]]:
        return diagonals(self.context.size, self.context.network.columns + 1)


def push_intervals(stack: Stack, start: Integers, frequency: Integers, precision: int) -> None:
    """Push intervals as :func:`bbans.intervals.push` pushes symbols."""
    for first in range(0, len(start), stack.lanes):
        block = slice(first, first + stack.lanes)
        stack.push(start[block], frequency[block], precision)


def information(distribution: Distribution, symbols: Symbols) -> float:
    """How many bits symbols cost."""
    frequency = distribution.interval(symbols)[1].astype(np.float64)
    return float(np.sum(distribution.precision - np.log2(frequency)))
