"""A decoder with context as a function of the latents alone, and the gradient of that: all pixels are known.

What the pixels add to the sums of each layer is computed once. What is left is a network from latents to the
parameters of all pixels, forward as it is, exactly, and backward by the rules of :mod:`bbans.portable.backward`:

- Of the window's weights only those count that act on features; of those of a head, only those that act on hidden
  channels.
- What the heads give to the hidden channels is added up in float32, in the order of the channels.
- A block gives what passes it by plus, added in float32, what passed its layers, the gradient being 0 where the block's
  result was not above 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bbans.parallel import unshared_products
from bbans.portable.backward import AnyMap, BackwardLayer, Map, Positions, convolve, multiply, with_outside
from bbans.portable.context import BLOCK, NEAR, Block, ContextDecoder
from bbans.portable.convolution import places
from bbans.portable.convolution_descent import (
    ConvolutionalDescent,
    DescentLayer,
    Kind,
    above,
    add_clipped,
    finish,
    kind_of,
)
from bbans.portable.descent import Floats32
from bbans.portable.engine import Engine, PullBack, Rows, Sums
from bbans.portable.network import OUTPUT_FRACTION, Linear


@dataclass(frozen=True, eq=False)
class _HalfKnown:
    """A layer some of whose inputs depend on pixels alone."""

    layer: Linear
    of_pixels: Sums
    of_others: Sums
    kind: Kind
    """Holds all sums exactly."""
    backward: BackwardLayer
    """With respect to the others."""

    @staticmethod
    def of(engine: Engine, layer: Linear, others: slice, magnitude: int, fraction: int = 0) -> _HalfKnown:
        """``others`` are the inputs that don't depend on pixels alone; results are multiples of ``2**-fraction``."""
        of_others = layer.weight[:, others]
        return _HalfKnown(
            layer,
            engine.load_sums(np.delete(layer.weight, others, axis=1), magnitude),
            engine.load_sums(of_others, magnitude),
            kind_of(layer, magnitude),
            BackwardLayer.of(engine, replace(layer, shift=layer.shift + fraction), of_others),
        )

    def know(self, pixels: Map, index: Positions | None = None) -> AnyMap:
        """What the bias and inputs that depend on pixels alone add to the sums."""
        sums = multiply(self.of_pixels, pixels) if index is None else convolve(self.of_pixels, pixels, index)
        known: AnyMap = sums.astype(self.kind) + self.layer.bias[:, None, None].astype(self.kind)
        return known

    def __call__(self, x: Map, known: AnyMap) -> Map:
        sums: AnyMap = multiply(self.of_others, x).astype(self.kind, copy=False)
        sums += known
        return finish(self.layer, sums)


@dataclass(frozen=True, eq=False)
class KnownPixels:
    """What the pixels of some images add to sums, ``(results, positions, images)``."""

    window: AnyMap
    heads: tuple[tuple[AnyMap, AnyMap], ...]
    """To those of both layers."""

    def which(self, images: NDArray[np.intp]) -> KnownPixels:
        """For some of them."""
        heads = tuple((np.take(hidden, images, 2), np.take(output, images, 2)) for hidden, output in self.heads)
        return KnownPixels(np.take(self.window, images, 2), heads)


@dataclass(frozen=True, eq=False)
class ContextDescent:
    """A decoder with context on an engine."""

    decoder: ContextDecoder
    upward: ConvolutionalDescent
    window: _HalfKnown
    blocks: tuple[tuple[DescentLayer, DescentLayer], ...]
    heads: tuple[tuple[_HalfKnown, _HalfKnown], ...]

    @staticmethod
    def of(engine: Engine, decoder: ContextDecoder) -> ContextDescent:
        """Raises :class:`bbans.errors.ModelError` if a product could be inexact."""
        network, size = decoder.context, decoder.upward.sizes[-1]
        pixel, window = network.pixel_input.magnitude, network.window
        seen, hidden = window.weight.shape[1] - network.features, window.output_magnitude
        beside = places(size, size, BLOCK)
        return ContextDescent(
            decoder,
            ConvolutionalDescent.of(engine, decoder.upward),
            _HalfKnown.of(engine, window, slice(seen, None), max(pixel, network.feature_magnitude)),
            tuple(_load_block(engine, block, hidden, beside) for block in network.blocks),
            tuple(
                (
                    _HalfKnown.of(engine, head.hidden, slice(len(window.weight)), max(hidden, pixel)),
                    _HalfKnown.of(
                        engine,
                        head.output,
                        slice(len(head.hidden.weight)),
                        max(head.hidden.output_magnitude, pixel),
                        OUTPUT_FRACTION,
                    ),
                )
                for head in network.heads
            ),
        )

    def know(self, x: Map) -> KnownPixels:
        """Images ``(channels, positions, images)``."""
        network, size = self.decoder.context, self.decoder.upward.sizes[-1]
        seen = network.pixel_input(x.swapaxes(0, 1)).swapaxes(0, 1)
        inside = np.full_like(seen[:1], network.pixel_input.unit)
        values = seen[: len(x)]
        near = np.take(with_outside(values), places(size, size, NEAR), axis=1).swapaxes(0, 1)
        near = near.reshape(-1, *x.shape[1:])
        with unshared_products():
            window_places = places(size, size, network.window_offsets)
            window = self.window.know(np.concatenate([seen, inside]), window_places)
            heads = tuple(
                (hidden.know(values[:channel]), output.know(np.concatenate([near, values[:channel]])))
                for channel, (hidden, output) in enumerate(self.heads)
            )
        return KnownPixels(window, heads)

    def linearize(self, known: KnownPixels, z: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
        """From latents' centres ``(images, latents)`` to the real parameters of all pixels, float32 ``(images,
        outputs * channels * positions)``, and the way of gradients back from there.
        """
        with unshared_products():
            walk = self._walk(known, self.upward.map_of(z))

        def pull_back(gradient: Floats32, rows: Rows) -> NDArray[np.float64]:
            with unshared_products():
                return self._back(walk, gradient, rows)

        return walk.parameters.reshape(len(z), -1), pull_back

    def _walk(self, known: KnownPixels, h: Map) -> _Walk:
        hidden, mixed, heads = [], [], []
        upward = self.upward.walk(h)
        h = self.window(upward[-1], known.window)
        hidden.append(h)
        for mix, project in self.blocks:
            mixed.append(mix(h))
            h = add_clipped(project(mixed[-1]), h, self.decoder.context.hidden_maximum)
            hidden.append(h)
        outputs = len(self.heads[0][1].layer.weight)
        parameters = np.empty((h.shape[2], outputs, len(self.heads), h.shape[1]), np.float32)
        for channel, ((first, second), (of_first, of_second)) in enumerate(zip(self.heads, known.heads, strict=True)):
            heads.append(first(h, of_first))
            found = second(heads[-1], of_second)
            np.multiply(found.transpose(2, 0, 1), np.float32(2.0**-OUTPUT_FRACTION), out=parameters[:, :, channel])
        return _Walk(upward, hidden, mixed, heads, parameters)

    def _back(self, walk: _Walk, gradient: Floats32, rows: Rows) -> NDArray[np.float64]:
        parameters = gradient.reshape(len(gradient), *walk.parameters.shape[1:]).transpose(2, 1, 3, 0)
        g: AnyMap = np.zeros((1, 1, 1), np.float32)
        for result, part, (hidden, output) in zip(walk.heads, parameters, self.heads, strict=True):
            g = g + hidden.backward(above(output.backward(part), result, hidden.layer.minimum, rows))
        for index in reversed(range(len(self.blocks))):
            mix, project = self.blocks[index]
            g = above(g, walk.hidden[index + 1], 0, rows)
            g += mix.backward(above(project.backward(g), walk.mixed[index], mix.layer.minimum, rows))
        g = self.window.backward(above(g, walk.hidden[0], self.window.layer.minimum, rows))
        return self.upward.back(walk.upward, g, rows)


@dataclass(frozen=True, eq=False)
class _Walk:
    """What layers gave, ``(channels, positions, images)``."""

    upward: list[Map]
    hidden: list[Map]
    """Of the window and of each block."""
    mixed: list[Map]
    heads: list[Map]
    """Of the first layers."""
    parameters: Floats32
    """In real numbers, ``(images, outputs, channels, positions)``."""


def _load_block(engine: Engine, block: Block, hidden: int, beside: Positions) -> tuple[DescentLayer, DescentLayer]:
    """Layers that take what is up to ``hidden``, and look ``beside`` each position."""
    mix = BackwardLayer.of(engine, block.mix, block.mix.weight, beside, beside.shape[1])
    project = BackwardLayer.of(engine, block.project, block.project.weight)
    return (
        DescentLayer.of(engine, block.mix, hidden, mix, beside),
        DescentLayer.of(engine, block.project, block.mix.output_magnitude, project),
    )
