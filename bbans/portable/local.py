"""The local network in integers: from the pixels before a pixel to the parameters of its distribution, at any size.

Nothing looks further right than ``columns`` in the rows above, so all pixels with the same ``column + slope * row`` can
be evaluated together: a *front* that moves through the image. Its pixels lie in different rows, one for each; so maps
are kept by front and row here, and only as many fronts as are looked back to. What it takes does not depend on how wide
the image is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.context import BLOCK, NEAR, WINDOW_MAXIMUM, Block, Head, PixelInput, check_layer
from bbans.portable.convolution import Offsets
from bbans.portable.network import FLOAT32_EXACT, Linear

Values = NDArray[np.floating]
Levels = NDArray[np.uint8]
Outputs = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LocalNetwork:
    """Raises :class:`bbans.errors.ModelError` if the layers don't fit together or a sum could be inexact."""

    pixel_input: PixelInput
    """Without ranges."""
    rows: int
    columns: int
    """The window reaches so many rows up, and so many columns to either side."""
    window: Linear
    """Takes, for each place of the window, the channels and one that is ``unit`` inside the image."""
    blocks: tuple[Block, ...]
    heads: tuple[Head, ...]
    """One for each channel of a pixel. Both layers take the values near by (places as in
    :data:`bbans.portable.context.NEAR`, channels within) and those of earlier channels, after the hidden channels or
    what the first gives.
    """

    def __post_init__(self) -> None:
        if not (2 <= self.rows <= WINDOW_MAXIMUM and 2 <= self.columns <= WINDOW_MAXIMUM and self.heads):
            raise ModelError(f"a window of {self.rows} rows and {self.columns} columns makes no sense")
        if self.pixel_input.ranges:
            raise ModelError("a local network is given levels and no ranges of them")
        pixel, hidden = self.pixel_input.magnitude, self.hidden
        check_layer(self.window, "window", len(self.window_offsets) * (self.channels + 1), hidden, pixel)
        magnitude = self.window.output_magnitude
        for block in self.blocks:
            mixed = int(block.mix.weight.shape[0])
            check_layer(block.mix, "mix", len(BLOCK) * hidden, mixed, magnitude)
            check_layer(block.project, "project", mixed, hidden, block.mix.output_magnitude)
        outputs = int(self.heads[0].output.weight.shape[0])
        for channel, head in enumerate(self.heads):
            units, seen = int(head.hidden.weight.shape[0]), len(NEAR) * self.channels + channel
            check_layer(head.hidden, "head", hidden + seen, units, max(magnitude, pixel))
            check_layer(head.output, "output", units + seen, outputs, max(head.hidden.output_magnitude, pixel))

    @property
    def channels(self) -> int:
        """Of a pixel."""
        return len(self.heads)

    @property
    def hidden(self) -> int:
        """Channels of what is known of a pixel."""
        return int(self.window.weight.shape[0])

    @property
    def outputs(self) -> int:
        """For each channel of a pixel."""
        return int(self.heads[0].output.weight.shape[0])

    @property
    def window_offsets(self) -> Offsets:
        """The places of the window, row by row."""
        above = [(row, column) for row in range(-self.rows, 0) for column in range(-self.columns, self.columns + 1)]
        return tuple(above + [(0, column) for column in range(-self.columns, 0)])

    @property
    def slope(self) -> int:
        """By how many columns a row is behind the one above it."""
        return self.columns + 1

    @property
    def reach(self) -> int:
        """How many rows above a pixel are looked at, through all blocks."""
        return self.rows + len(self.blocks)

    @property
    def fronts(self) -> int:
        """How many fronts are kept: the one that is evaluated, and those that it looks back to."""
        return self.slope * self.rows + self.columns + 1

    @property
    def layers(self) -> tuple[Linear, ...]:
        """All products, in the order in which they are evaluated."""
        blocks = [layer for block in self.blocks for layer in (block.mix, block.project)]
        return (self.window, *blocks, *[layer for head in self.heads for layer in (head.hidden, head.output)])

    @property
    def magnitudes(self) -> tuple[int, ...]:
        """The largest magnitude of what goes into each of the :attr:`layers`."""
        pixel, hidden = self.pixel_input.magnitude, self.window.output_magnitude
        blocks = [magnitude for block in self.blocks for magnitude in (hidden, block.mix.output_magnitude)]
        heads = [max(before, pixel) for head in self.heads for before in (hidden, head.hidden.output_magnitude)]
        return (pixel, *blocks, *heads)

    @property
    def multiply_adds(self) -> int:
        """For a pixel."""
        return sum(layer.weight.size for layer in self.layers)


@dataclass(frozen=True)
class Front:
    """The pixels ``(row, time - slope * row)`` for each row from ``first`` to before ``stop``."""

    time: int
    first: int
    stop: int
    slope: int

    @property
    def index(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Their rows and columns."""
        rows = np.arange(self.first, self.stop)
        return rows, self.time - self.slope * rows


def fronts(height: int, width: int, slope: int) -> NDArray[np.int64]:
    """All fronts of an image, in order: time, first row, and the row after the last, ``(fronts, 3)``.

    >>> [[(int(row), int(column)) for row, column in zip(*Front(*front, 2).index)] for front in fronts(2, 4, slope=2)]
    [[(0, 0)], [(0, 1)], [(0, 2), (1, 0)], [(0, 3), (1, 1)], [(1, 2)], [(1, 3)]]
    """
    time = np.arange(width + slope * (height - 1))
    first = np.maximum(0, -((width - 1 - time) // slope))
    stop = np.minimum(height, time // slope + 1)
    return np.stack([time, first, stop], axis=1)[first < stop]


@dataclass(frozen=True, eq=False)
class LoadedLocal:
    """A network ready to be evaluated, on NumPy; it holds no state and may be shared by threads."""

    network: LocalNetwork
    products: dict[int, Callable[[Values], Values]]
    """By the identity of a layer: exact products, rounded and clipped."""

    @staticmethod
    def of(network: LocalNetwork) -> LoadedLocal:
        """All layers of a network."""
        layers = zip(network.layers, network.magnitudes, strict=True)
        return LoadedLocal(network, {id(layer): _product(layer, magnitude) for layer, magnitude in layers})


class LocalState:
    """What is known of an image of so many rows while fronts move through it."""

    def __init__(self, loaded: LoadedLocal, rows: int) -> None:
        network = loaded.network
        self._network, self._products = network, loaded.products
        self._above = network.rows
        shape = (network.fronts, rows + self._above)
        # By front, channel and row; the first rows are those above the image, where everything is 0.
        self._pixels = np.zeros((shape[0], network.channels + 1, shape[1]))
        self._hidden = [np.zeros((shape[0], network.hidden, shape[1])) for _ in network.blocks]
        self._known: Values = np.empty(0)
        self._near: Values = np.empty(0)

    def look(self, front: Front) -> None:
        """Find out what can be known of a front's pixels from those before them."""
        for kept in (self._pixels, *self._hidden):
            kept[front.time % len(kept)] = 0.0  # also what lies beside the image
        network, rows = self._network, slice(front.first + self._above, front.stop + self._above)
        h = self._products[id(network.window)](self._seen(self._pixels, front, network.window_offsets))
        for block, kept in zip(network.blocks, self._hidden, strict=True):
            kept[front.time % len(kept), :, rows] = h
            mixed = self._products[id(block.mix)](self._mixed(kept, front))
            h = np.clip(h + self._products[id(block.project)](mixed), 0, network.window.maximum)
        self._known, self._near = h, self._seen(self._pixels[:, :-1], front, NEAR)

    def parameters(self, front: Front, channel: int) -> Outputs:
        """Of the distribution of a channel, ``(outputs, pixels of the front)``, times ``2**16``: from what the last
        look found, and the channels before, which are known.
        """
        head = self._network.heads[channel]
        rows = slice(front.first + self._above, front.stop + self._above)
        earlier = self._pixels[front.time % len(self._pixels), :channel, rows]
        near = np.concatenate([self._near, earlier])
        units = self._products[id(head.hidden)](np.concatenate([self._known, near]))
        return self._products[id(head.output)](np.concatenate([units, near])).astype(np.int64)

    def learn(self, front: Front, channel: int, levels: Levels) -> None:
        """Fill in a channel of a front's pixels."""
        pixel_input = self._network.pixel_input
        rows = slice(front.first + self._above, front.stop + self._above)
        now = self._pixels[front.time % len(self._pixels)]
        now[channel, rows] = pixel_input(levels[None].astype(np.float32))[0]
        now[-1, rows] = pixel_input.unit

    def _seen(self, kept: Values, front: Front, places: Offsets) -> Values:
        """What is kept at places beside each pixel: place after place, channels within."""
        parts = []
        for row, column in places:
            time = front.time + column + front.slope * row
            rows = slice(front.first + self._above + row, front.stop + self._above + row)
            parts.append(kept[time % len(kept), :, rows])
        return np.concatenate(parts)

    def _mixed(self, kept: Values, front: Front) -> Values:
        """What a block takes: channels, places within."""
        seen = self._seen(kept, front, BLOCK)
        return seen.reshape(len(BLOCK), -1, seen.shape[1]).swapaxes(0, 1).reshape(seen.shape)


def _product(layer: Linear, input_magnitude: int) -> Callable[[Values], Values]:
    """From integers ``(inputs, n)`` to the layer's results, all held in floating point that is exact for them."""
    dtype = np.float32 if layer.bound(input_magnitude) <= FLOAT32_EXACT else np.float64
    weight = cast(Values, layer.weight.astype(dtype))
    bias = cast(Values, layer.bias.astype(dtype)[:, None])

    def product(x: Values) -> Values:
        y: Values = weight @ x.astype(dtype, copy=False)
        y += bias
        y *= dtype(2.0**-layer.shift)
        np.floor(y, out=y)
        np.clip(y, layer.minimum, layer.maximum, out=y)
        return y

    return product
