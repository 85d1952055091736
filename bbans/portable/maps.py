"""Evaluating networks over maps on any engine: gathering, products, and what has been seen of an image so far.

Maps are float32 arrays ``(channels, positions, images)`` that hold integers up to 2**24; a map that is gathered from
has one position more, of zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.parallel import unshared_products
from bbans.portable.context import BLOCK, NEAR, ContextNetwork
from bbans.portable.convolution import ConvolutionalNetwork, Size, patches, places
from bbans.portable.engine import Engine, Product

Map = NDArray[np.float32]
Positions = NDArray[np.intp]

BLOCK_VALUES = 1 << 19
"""About how many values are gathered at once: they stay in cache until they are multiplied."""


def gather(source: Map, index: Positions) -> Map:
    """Patches ``(channels * offsets, positions, images)`` of a map, for an index ``(offsets, positions)``."""
    taken = np.take(source, index, axis=1)
    return taken.reshape(-1, index.shape[1], source.shape[2])


def multiply(product: Product, x: Map) -> Map:
    """A product over the channels of a map."""
    y = product(x.reshape(len(x), -1)).astype(np.float32, copy=False)
    return y.reshape(len(y), *x.shape[1:])


def with_outside(x: Map) -> Map:
    """The map with one position more, of zeros."""
    return np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)


def load_convolutions(engine: Engine, network: ConvolutionalNetwork) -> Callable[[Map], Map]:
    """A function that evaluates ``network`` on a map."""
    magnitudes = [network.input_magnitude, *[layer.product.output_magnitude for layer in network.layers]]
    products = [
        engine.load_product(layer.product, magnitude)
        for layer, magnitude in zip(network.layers, magnitudes, strict=False)
    ]
    steps = zip(network.sizes, network.sizes[1:], network.layers, strict=False)
    indices = [patches(before, after, layer.kernel) for before, after, layer in steps]

    def evaluate(x: Map) -> Map:
        with unshared_products():
            for product, index in zip(products, indices, strict=True):
                source = with_outside(x)
                blocks = [multiply(product, gather(source, index[:, part])) for part in _parts(source, index)]
                x = np.concatenate(blocks, axis=1)
        return x

    return evaluate


def _parts(source: Map, index: Positions) -> list[slice]:
    """Positions cut into blocks."""
    step = max(1, BLOCK_VALUES // (source.shape[0] * index.shape[0] * source.shape[2]))
    return [slice(first, first + step) for first in range(0, index.shape[1], step)]


@dataclass(frozen=True, eq=False)
class LoadedContext:
    """A context network on an engine, for images of one size."""

    network: ContextNetwork
    window: Product
    blocks: tuple[tuple[Product, Product], ...]
    heads: tuple[tuple[Product, Product], ...]
    window_places: Positions
    block_places: Positions
    near_places: Positions
    size: Size

    @staticmethod
    def of(engine: Engine, network: ContextNetwork, size: Size) -> LoadedContext:
        pixel = network.pixel_input.magnitude
        hidden = network.window.output_magnitude
        return LoadedContext(
            network,
            engine.load_product(network.window, max(pixel, network.feature_magnitude)),
            tuple(
                (engine.load_product(block.mix, hidden), engine.load_product(block.project, block.mix.output_magnitude))
                for block in network.blocks
            ),
            tuple(
                (
                    engine.load_product(head.hidden, max(hidden, pixel)),
                    engine.load_product(head.output, max(head.hidden.output_magnitude, pixel)),
                )
                for head in network.heads
            ),
            places(size, size, network.window_offsets),
            places(size, size, BLOCK),
            places(size, size, NEAR),
            size,
        )

    def start(self, features: Map) -> ContextState:
        """Images of which nothing is known but their features."""
        network, positions, images = self.network, features.shape[1] + 1, features.shape[2]
        channels = network.pixel_input.channels(len(network.heads))
        pixels = np.zeros((channels + 1, positions, images), np.float32)
        pixels[-1, :-1] = network.pixel_input.unit
        hidden = [np.zeros((len(network.window.weight), positions, images), np.float32) for _ in network.blocks]
        return ContextState(self, features, pixels, hidden)


@dataclass(frozen=True, eq=False)
class ContextState:
    """What is known of a batch of images, filled in as it becomes known."""

    loaded: LoadedContext
    features: Map
    pixels: Map
    """What the pixel input makes of the pixels."""
    hidden: list[Map]
    """What each block sees."""

    def learn(self, channel: int, positions: Positions | slice, x: Map) -> None:
        """Fill in one channel of pixels, ``(positions, images)``."""
        network = self.loaded.network
        self.pixels[channel : -1 : len(network.heads), positions] = network.pixel_input(x[None])

    def look(self, positions: Positions) -> Map:
        """What the network makes of positions whose neighbours are known, before their own pixels are looked at."""
        loaded = self.loaded
        window = gather(self.pixels, loaded.window_places[:, positions])
        h = multiply(loaded.window, np.concatenate([window, self.features[:, positions]]))
        for (mix, project), hidden in zip(loaded.blocks, self.hidden, strict=True):
            hidden[:, positions] = h
            change = multiply(project, multiply(mix, gather(hidden, loaded.block_places[:, positions])))
            change += h
            h = np.clip(change, 0, loaded.network.hidden_maximum, out=change)
        return h

    def parameters(self, channel: int, positions: Positions, h: Map) -> Map:
        """Of the distributions of one channel, ``(outputs, positions, images)``, from what :meth:`look` gave."""
        loaded, channels = self.loaded, len(self.loaded.network.heads)
        hidden, output = loaded.heads[channel]
        earlier = self.pixels[:channel, positions]
        seen = multiply(hidden, np.concatenate([h, earlier]))
        index = loaded.near_places[:, positions]
        near = np.take(self.pixels[:channels], index, axis=1).swapaxes(0, 1).reshape(-1, *h.shape[1:])
        return multiply(output, np.concatenate([seen, near, earlier]))

    def rows(self) -> list[Positions]:
        """All positions, row by row: what is looked at together once all pixels are known."""
        height, width = self.loaded.size
        return list(np.arange(height * width, dtype=np.intp).reshape(height, width))
