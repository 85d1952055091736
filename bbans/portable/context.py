"""The context network in integers: from features and the pixels already known to the parameters of the next.

The encoder knows all pixels and evaluates all positions at once; the decoder evaluates those whose neighbours it has.
Both gather the same integers and sum them exactly, so both get the same results. Because nothing looks further right
than ``columns`` in the row above, all positions with the same ``column + (columns + 1) * row`` can be evaluated
together: :func:`diagonals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.convolution import ConvolutionalNetwork, Line, Offsets, Size
from bbans.portable.network import Linear

NEAR: Offsets = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2))
"""The neighbours that a pixel's distribution sees as they are."""
BLOCK: Offsets = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0))
"""What a block looks at: a pixel and those beside it that come before it."""
WINDOW_MAXIMUM = 32


@dataclass(frozen=True)
class PixelInput:
    """How pixels are given to a network: as their value, and whether that lies in a range that is special."""

    symbols: int
    """Values are ``0 .. symbols - 1``."""
    centre: int
    """The value that is given as 0."""
    gain: int
    """By how much a value one higher is given as higher."""
    unit: int
    """What counts as 1 to the network."""
    ranges: tuple[tuple[int, int], ...]
    """First and last value of each range."""

    def __post_init__(self) -> None:
        sane = 1 <= self.unit <= 255 and 1 <= self.gain <= 255 and 0 <= self.centre < self.symbols <= 256
        if not sane or len(self.ranges) > 256:
            raise ModelError(f"{self} makes no sense")

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """From pixels ``(..., channels, images)`` to all values, and then for each range those within."""
        parts = [(x - np.float32(self.centre)) * np.float32(self.gain)]
        parts += [((x >= first) & (x <= last)) * np.float32(self.unit) for first, last in self.ranges]
        return np.concatenate(parts, axis=-2)

    @property
    def magnitude(self) -> int:
        """The largest that it makes of a pixel."""
        return max(self.unit, self.gain * max(self.centre, self.symbols - 1 - self.centre))

    def channels(self, channels: int) -> int:
        """How many channels it makes of so many."""
        return channels * (1 + len(self.ranges))


@dataclass(frozen=True, eq=False)
class Block:
    """``h + project(mix(h here and beside))``, not below 0."""

    mix: Linear
    """Takes channels, then places as in :data:`BLOCK`."""
    project: Linear


@dataclass(frozen=True, eq=False)
class Head:
    """From what is known of a position, and the channels before this one, to the parameters of a channel."""

    hidden: Linear
    """Takes the hidden channels, then the values of earlier channels."""
    output: Linear
    """Takes what ``hidden`` gives, then the values near by (places as in :data:`NEAR`, channels within), then those of
    earlier channels.
    """


@dataclass(frozen=True, eq=False)
class ContextNetwork:
    """Raises :class:`bbans.errors.ModelError` if the layers don't fit together or a sum could be inexact."""

    pixel_input: PixelInput
    rows: int
    columns: int
    """The window reaches so many rows up, and so many columns to either side."""
    window: Linear
    """Takes, for each channel of the pixel input and one that is ``unit`` inside the image, the places of the window;
    then the features."""
    feature_magnitude: int
    features: int
    blocks: tuple[Block, ...]
    heads: tuple[Head, ...]
    """One for each channel of a pixel."""

    def __post_init__(self) -> None:
        if not (0 <= self.rows <= WINDOW_MAXIMUM and 1 <= self.columns <= WINDOW_MAXIMUM and self.heads):
            raise ModelError(f"a window of {self.rows} rows and {self.columns} columns makes no sense")
        channels, pixel = len(self.heads), self.pixel_input.magnitude
        hidden = int(self.window.weight.shape[0])
        places = len(self.window_offsets) * (self.pixel_input.channels(channels) + 1)
        check_layer(self.window, "window", places + self.features, hidden, max(pixel, self.feature_magnitude))
        magnitude = self.window.output_magnitude
        for block in self.blocks:
            mixed = int(block.mix.weight.shape[0])
            check_layer(block.mix, "mix", len(BLOCK) * hidden, mixed, magnitude)
            check_layer(block.project, "project", mixed, hidden, block.mix.output_magnitude)
        outputs = self.heads[0].output.weight.shape[0]
        for channel, head in enumerate(self.heads):
            units = int(head.hidden.weight.shape[0])
            check_layer(head.hidden, "head", hidden + channel, units, max(magnitude, pixel))
            seen = units + len(NEAR) * channels + channel
            check_layer(head.output, "output", seen, outputs, max(head.hidden.output_magnitude, pixel))

    @property
    def window_offsets(self) -> Offsets:
        """The places of the window, row by row."""
        above = [(row, column) for row in range(-self.rows, 0) for column in range(-self.columns, self.columns + 1)]
        return tuple(above + [(0, column) for column in range(-self.columns, 0)])

    @property
    def hidden_maximum(self) -> int:
        """Hidden channels are clipped to ``0 .. hidden_maximum``."""
        return self.window.maximum

    @property
    def layers(self) -> tuple[Linear, ...]:
        """All products, in the order in which they are evaluated."""
        blocks = [layer for block in self.blocks for layer in (block.mix, block.project)]
        return (self.window, *blocks, *[layer for head in self.heads for layer in (head.hidden, head.output)])


@dataclass(frozen=True, eq=False)
class ContextDecoder:
    """From a map of latents to features, and from these and pixels to parameters."""

    upward: ConvolutionalNetwork
    context: ContextNetwork

    def __post_init__(self) -> None:
        if self.upward.outputs != self.context.features:
            raise ModelError(
                f"the context network takes {self.context.features} features, there are {self.upward.outputs}"
            )
        if self.upward.layers[-1].product.output_magnitude > self.context.feature_magnitude:
            raise ModelError("features can be larger than the context network takes")

    @property
    def pixel_input(self) -> PixelInput:
        """How pixels are given to this network, and to its encoders."""
        return self.context.pixel_input

    @property
    def multiply_adds(self) -> int:
        """For an image."""
        positions = math.prod(self.upward.sizes[-1])
        return self.upward.multiply_adds + positions * sum(layer.weight.size for layer in self.context.layers)


@dataclass(frozen=True, eq=False)
class ConvolutionalDecoder:
    """From a map of latents to the parameters of all pixels, which are independent of those at other positions."""

    upward: ConvolutionalNetwork
    """Gives kinds of parameters, and of each kind all channels of a pixel."""
    pixel_input: PixelInput
    """How pixels are given to its encoders."""

    @property
    def multiply_adds(self) -> int:
        """For an image."""
        return self.upward.multiply_adds


def diagonals(size: Size, slope: int) -> list[Line]:
    """The positions of an image, in groups that can be decoded one after the other.

    >>> [[(int(row), int(column)) for row, column in zip(*line.index)] for line in diagonals((2, 4), slope=2)]
    [[(0, 0)], [(0, 1)], [(0, 2), (1, 0)], [(0, 3), (1, 1)], [(1, 2)], [(1, 3)]]
    """
    height, width = size
    lines = []
    for time in range(width + slope * (height - 1)):
        first = max(0, -(-(time - width + 1) // slope))
        last = min(height - 1, time // slope)
        if first < last:
            lines.append(Line(first, time - slope * first, 1, -slope, last - first + 1))
        elif first == last:
            lines.append(Line(first, time - slope * first, 0, 0, 1))
    return lines


def check_layer(layer: Linear, name: str, inputs: int, outputs: int, magnitude: int) -> None:
    """Raise :class:`bbans.errors.ModelError` unless a layer takes and gives so many, and is exact."""
    if layer.weight.shape != (outputs, inputs):
        raise ModelError(f"{name}: expected weights of shape {(outputs, inputs)}, got {layer.weight.shape}")
    layer.check(magnitude, name)
