"""Evaluating networks over maps on any engine: convolutions, and what has been seen of an image so far.

Neighbours in a row, with all their channels, lie beside each other in memory, and images innermost. So what a layer
sees of one row beside a position is one operand of a matrix product as it lies there, and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bbans.parallel import unshared_products
from bbans.portable.context import BLOCK, NEAR, ContextNetwork, Head
from bbans.portable.convolution import Convolution, ConvolutionalNetwork, Line, Offsets, Size, halved
from bbans.portable.engine import Engine, Product

Values = NDArray[np.float32]

BLOCK_COLUMNS = 2048
"""Positions of images that are evaluated together: enough for the matrix products, few enough to stay in cache."""


@dataclass(frozen=True)
class Run:
    """Places beside a position: ``width`` columns of a row, the first so many rows and columns away."""

    row: int
    column: int
    width: int = 1


HERE = Run(0, 0)


@dataclass(frozen=True, eq=False)
class Map:
    """Integers up to 2**24 for each channel of each position of images, in a margin of zeros."""

    values: Values
    """``(rows, columns, channels, images)``, contiguous."""
    above: int
    """Rows of the margin..."""
    left: int
    """...and its columns."""

    @staticmethod
    def of(values: Values, above: int, below: int, left: int, right: int) -> Map:
        """A copy of ``values`` in a margin."""
        height, width, *rest = values.shape
        x = Map(np.zeros((above + height + below, left + width + right, *rest), np.float32), above, left)
        x.values[above : above + height, left : left + width] = values
        return x

    def at(self, line: Line, run: Run = HERE) -> Values:
        """What lies at the places of a run beside the positions of a line: a view ``(positions, places * channels,
        images)``.
        """
        _, _, channels, images = self.values.shape
        down, right, channel, image = self.values.strides
        offset = (self.above + line.row + run.row) * down + (self.left + line.column + run.column) * right
        shape = (line.count, run.width * channels, images)
        return np.ndarray(
            shape, np.float32, self.values, offset, (line.down * down + line.right * right, channel, image)
        )


def rows_of(size: Size) -> list[Line]:
    """All positions of an image: what is looked at together once all pixels are known."""
    return [Line(row, 0, 0, 1, size[1]) for row in range(size[0])]


def runs_of(offsets: Offsets) -> tuple[tuple[Run, ...], list[int]]:
    """Offsets as runs, and the order in which these go through them.

    >>> runs_of(((0, -1), (-1, 0), (-1, -1)))
    ((Run(row=-1, column=-1, width=2), Run(row=0, column=-1, width=1)), [2, 1, 0])
    """
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    runs: list[Run] = []
    for row, column in (offsets[index] for index in order):
        if runs and (runs[-1].row, runs[-1].column + runs[-1].width) == (row, column):
            runs[-1] = replace(runs[-1], width=runs[-1].width + 1)
        else:
            runs.append(Run(row, column))
    return tuple(runs), order


def _by_place(weight: NDArray[np.int16], order: list[int]) -> NDArray[np.int16]:
    """Weights that take channels, then places, as weights that take places in an order, then channels."""
    places = weight.reshape(len(weight), -1, len(order))[:, :, order]
    return places.swapaxes(1, 2).reshape(weight.shape)


def load_convolutions(engine: Engine, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
    """A function that evaluates ``network`` on maps ``(rows, columns, channels, images)`` without margins."""
    magnitudes = [network.input_magnitude, *[layer.product.output_magnitude for layer in network.layers]]
    steps = zip(network.layers, magnitudes, network.sizes, network.sizes[1:], strict=False)
    layers = [_load_convolution(engine, *step) for step in steps]

    def evaluate(x: Values) -> Values:
        y = np.empty((*network.sizes[-1], network.outputs, x.shape[3]), np.float32)
        with unshared_products():
            for block in blocks_of(x.shape[3], max(width for _, width in network.sizes)):
                before = part = x[:, :, :, block]
                for convolution, layer in zip(network.layers, layers, strict=True):
                    found = layer(part)
                    if convolution.residual:
                        found += before
                        np.clip(found, 0, convolution.product.maximum, out=found)
                    before, part = part, found
                y[:, :, :, block] = part
        return y

    return evaluate


def blocks_of(images: int, positions: int) -> list[slice]:
    """Images cut into blocks, for lines of so many positions."""
    step = max(1, BLOCK_COLUMNS // positions)
    return [slice(first, min(first + step, images)) for first in range(0, images, step)]


def _load_convolution(
    engine: Engine, layer: Convolution, magnitude: int, before: Size, after: Size
) -> Callable[[Values], Values]:
    """One convolution, from a map of size ``before`` to one of size ``after``."""
    if after == (2 * before[0], 2 * before[1]):
        return _load_doubling(engine, layer, magnitude)
    weight, kernel, reach = layer.product.weight, layer.kernel, layer.kernel // 2
    by_place = _by_place(weight, list(range(kernel**2)))
    loaded = engine.load_product(replace(layer.product, weight=by_place), magnitude)
    step = 2 if before != after == halved(before) else 1
    lines = [Line(step * row, 0, 0, step, after[1]) for row in range(after[0])]
    runs = [Run(row, -reach, kernel) for row in range(-reach, reach + 1)]

    def evaluate(x: Values) -> Values:
        if before != after and before == halved(after):
            x = x.repeat(2, axis=0).repeat(2, axis=1)[: after[0], : after[1]]
        source = Map.of(x, reach, reach, reach, reach)
        y = np.empty((*after, len(weight), x.shape[3]), np.float32)
        for row, line in enumerate(lines):
            y[row] = loaded([source.at(line, run) for run in runs])
        return y

    return evaluate


def _load_doubling(engine: Engine, layer: Convolution, magnitude: int) -> Callable[[Values], Values]:
    """A convolution of a map doubled, without doubling it: of the four positions that come of one, each sees its
    neighbours several times over, and their weights are added up instead.
    """
    outputs, reach = len(layer.product.weight), layer.kernel // 2
    weight = layer.product.weight.reshape(outputs, layer.channels, layer.kernel, layer.kernel)
    phases = []
    for down, right in np.ndindex(2, 2):
        rows, columns = ([(side + reached) // 2 for reached in range(-reach, reach + 1)] for side in (down, right))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        summed = np.zeros((outputs, height, width, layer.channels), np.int32)
        for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
            summed[:, row - rows[0], column - columns[0]] += weight[:, :, i, j]
        loaded = engine.load_product(replace(layer.product, weight=summed.reshape(outputs, -1)), magnitude)
        runs = [Run(row, columns[0], width) for row in range(rows[0], rows[-1] + 1)]
        phases.append((down, right, loaded, runs))

    def evaluate(x: Values) -> Values:
        source = Map.of(x, reach, reach, reach, reach)
        y = np.empty((2 * x.shape[0], 2 * x.shape[1], outputs, x.shape[3]), np.float32)
        for line in rows_of(x.shape[:2]):
            for down, right, loaded, runs in phases:
                y[2 * line.row + down, right::2] = loaded([source.at(line, run) for run in runs])
        return y

    return evaluate


@dataclass(frozen=True, eq=False)
class LoadedContext:
    """A context network on an engine."""

    network: ContextNetwork
    window: Product
    window_runs: tuple[Run, ...]
    blocks: tuple[tuple[Product, Product], ...]
    block_runs: tuple[Run, ...]
    heads: tuple[tuple[Product, Product], ...]
    near_runs: tuple[Run, ...]

    @staticmethod
    def of(engine: Engine, network: ContextNetwork) -> LoadedContext:
        pixel, hidden = network.pixel_input.magnitude, network.window.output_magnitude
        window_runs, window_order = runs_of(network.window_offsets)
        block_runs, block_order = runs_of(BLOCK)
        near_runs, near_order = runs_of(NEAR)
        places = len(window_order) * (network.pixel_input.channels(len(network.heads)) + 1)
        window = np.concatenate(
            [_by_place(network.window.weight[:, :places], window_order), network.window.weight[:, places:]], axis=1
        )
        blocks = []
        for block in network.blocks:
            mix = replace(block.mix, weight=_by_place(block.mix.weight, block_order))
            project = engine.load_product(block.project, block.mix.output_magnitude)
            blocks.append((engine.load_product(mix, hidden), project))
        heads = []
        for head in network.heads:
            output = replace(head.output, weight=_output_weight(network, head, near_order))
            magnitude = max(head.hidden.output_magnitude, pixel, network.pixel_input.unit)
            seen = engine.load_product(head.hidden, max(hidden, pixel))
            heads.append((seen, engine.load_product(output, magnitude)))
        return LoadedContext(
            network,
            engine.load_product(replace(network.window, weight=window), max(pixel, network.feature_magnitude)),
            window_runs,
            tuple(blocks),
            block_runs,
            tuple(heads),
            near_runs,
        )

    def start(self, features: Values) -> ContextState:
        """Images of which nothing is known but their features, ``(rows, columns, features, images)``."""
        network = self.network
        height, width, _, images = features.shape
        margin = (max(2, network.rows), 0, max(2, network.columns), max(1, network.columns))
        channels = network.pixel_input.channels(len(network.heads))
        pixels = np.zeros((height, width, channels + 1, images), np.float32)
        pixels[:, :, -1] = network.pixel_input.unit
        shape = (height + 1, width + 2, len(network.window.weight), images)
        hidden = [Map(np.zeros(shape, np.float32), 1, 1) for _ in range(len(network.blocks) + 1)]
        return ContextState(self, Map.of(features, 0, 0, 0, 0), Map.of(pixels, *margin), hidden)


def _output_weight(network: ContextNetwork, head: Head, order: list[int]) -> NDArray[np.int16]:
    """Weights of a head's output that take all that there is at the places near by, not only the values."""
    weight, channels = head.output.weight, len(network.heads)
    first = len(head.hidden.weight)
    last = first + len(order) * channels
    near = np.zeros((len(weight), len(order), network.pixel_input.channels(channels) + 1), np.int16)
    near[:, :, :channels] = weight[:, first:last].reshape(len(near), -1, channels)[:, order]
    return np.concatenate([weight[:, :first], near.reshape(len(near), -1), weight[:, last:]], axis=1)


@dataclass(frozen=True, eq=False)
class ContextState:
    """What is known of a batch of images, filled in as it becomes known."""

    loaded: LoadedContext
    features: Map
    pixels: Map
    """What the pixel input makes of the pixels, and :attr:`PixelInput.unit` inside the images."""
    hidden: list[Map]
    """What each block sees, and then the heads."""

    def learn(self, line: Line, channel: int, x: Values) -> None:
        """Fill in one channel of pixels, ``(positions, images)``."""
        network = self.loaded.network
        known = self.pixels.at(line)[:, channel : -1 : len(network.heads)]
        known[...] = network.pixel_input(x[:, None])

    def look(self, line: Line) -> None:
        """Find what the network makes of positions whose neighbours are known, not of their own pixels."""
        loaded = self.loaded
        windows = [self.pixels.at(line, run) for run in loaded.window_runs]
        self.hidden[0].at(line)[...] = loaded.window([*windows, self.features.at(line)])
        for (mix, project), seen, found in zip(loaded.blocks, self.hidden, self.hidden[1:], strict=False):
            change = project([mix([seen.at(line, run) for run in loaded.block_runs])])
            change += seen.at(line)
            np.clip(change, 0, loaded.network.hidden_maximum, out=found.at(line))

    def parameters(self, line: Line, channel: int) -> Values:
        """Of the distributions of one channel, ``(positions, outputs, images)``, from what :meth:`look` found."""
        hidden, output = self.loaded.heads[channel]
        earlier = [self.pixels.at(line)[:, :channel]] if channel else []
        near = [self.pixels.at(line, run) for run in self.loaded.near_runs]
        return output([hidden([self.hidden[-1].at(line), *earlier]), *near, *earlier])
