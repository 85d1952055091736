"""Convolutions as a function of the map that goes into them, and the gradient of that.

Forward they are what they are, exactly, and backward they follow the rules of :mod:`bbans.portable.backward`. A
residual layer gives what was added to it, added in float32, what passed it and the layer before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.parallel import unshared_products
from bbans.portable.backward import AnyMap, BackwardLayer, Map, Positions, convolve, multiply
from bbans.portable.convolution import ConvolutionalNetwork, chain, patches
from bbans.portable.descent import Floats32
from bbans.portable.engine import Engine, PullBack, Rows, Sums
from bbans.portable.network import FLOAT32_EXACT, OUTPUT_FRACTION, Linear

Kind = type[np.float32] | type[np.float64]


@dataclass(frozen=True, eq=False)
class DescentLayer:
    """A layer on all positions of a map, there and back."""

    layer: Linear
    sums: Sums
    kind: Kind
    """Holds all sums exactly."""
    index: Positions | None
    """Where it looks, ``(offsets, positions)``; None for a layer that doesn't look beside."""
    backward: BackwardLayer

    @staticmethod
    def of(
        engine: Engine, layer: Linear, magnitude: int, backward: BackwardLayer, index: Positions | None = None
    ) -> DescentLayer:
        """For inputs up to a magnitude."""
        sums = engine.load_sums(layer.weight, magnitude)
        return DescentLayer(layer, sums, kind_of(layer, magnitude), index, backward)

    def __call__(self, x: Map) -> Map:
        sums = multiply(self.sums, x) if self.index is None else convolve(self.sums, x, self.index)
        sums = sums.astype(self.kind, copy=False)
        sums += self.layer.bias[:, None, None].astype(self.kind)
        return finish(self.layer, sums)


def kind_of(layer: Linear, magnitude: int) -> Kind:
    """What holds all sums of a layer exactly."""
    return np.float32 if layer.bound(magnitude) <= FLOAT32_EXACT else np.float64


def finish(layer: Linear, sums: AnyMap) -> Map:
    """What a layer makes of its sums, in the same memory if it can."""
    sums *= sums.dtype.type(2.0**-layer.shift)
    np.floor(sums, out=sums)
    np.clip(sums, layer.minimum, layer.maximum, out=sums)
    return sums.astype(np.float32, copy=False)


def add_clipped(change: Map, h: Map, maximum: int) -> Map:
    """What a layer that adds to ``h`` gives, in the memory of ``change``."""
    change += h
    return np.clip(change, 0, maximum, out=change)


def above(gradient: AnyMap, result: Map, minimum: int, rows: Rows) -> AnyMap:
    """A gradient where a layer gave some of the images more than its minimum, and 0 elsewhere, in the same memory."""
    chosen = result[:, :, rows] if isinstance(rows, slice) else np.take(result, rows, axis=2)
    np.copyto(gradient, 0, where=chosen <= minimum)
    return gradient


@dataclass(frozen=True, eq=False)
class ConvolutionalDescent:
    """A convolutional network on an engine."""

    network: ConvolutionalNetwork
    layers: tuple[DescentLayer, ...]

    @staticmethod
    def of(engine: Engine, network: ConvolutionalNetwork) -> ConvolutionalDescent:
        """Raises :class:`bbans.errors.ModelError` if a product could be inexact."""
        magnitudes = chain([network.input_magnitude], [layer.product for layer in network.layers])
        layers: list[DescentLayer] = []
        for convolution, magnitude, before, after in zip(
            network.layers, magnitudes, network.sizes, network.sizes[1:], strict=False
        ):
            layer, index, count = convolution.product, patches(before, after, convolution.kernel), math.prod(before)
            if layers:
                backward = BackwardLayer.of(engine, layer, layer.weight, index, count)
            else:
                backward = BackwardLayer.of_first(engine, layer, index, count)
            layers.append(DescentLayer.of(engine, layer, magnitude, backward, index))
        return ConvolutionalDescent(network, tuple(layers))

    def linearize(self, z: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
        """From latents' centres ``(images, latents)`` to real parameters, float32 ``(images, outputs * positions)``,
        and the way of gradients back from there.
        """
        with unshared_products():
            results = self.walk(self.map_of(z))
        last = results[-1]
        shape, unit = (len(z), *last.shape[:2]), np.float32(2.0**-OUTPUT_FRACTION)
        parameters = np.multiply(last.transpose(2, 0, 1), unit, order="C")

        def pull_back(gradient: Floats32, rows: Rows) -> NDArray[np.float64]:
            of_results = gradient.reshape(-1, *shape[1:]).transpose(1, 2, 0) * unit
            with unshared_products():
                return self.back(results, of_results, rows)

        return parameters.reshape(len(z), -1), pull_back

    def map_of(self, z: NDArray[np.int64]) -> Map:
        """Latents ``(images, latents)`` as what goes into the first layer."""
        return np.ascontiguousarray(z.T, np.float32).reshape(self.network.inputs, -1, len(z))

    def walk(self, h: Map) -> list[Map]:
        """What the layers give, one after the other."""
        results: list[Map] = []
        before = h
        for layer, convolution in zip(self.layers, self.network.layers, strict=True):
            found = layer(h)
            if convolution.residual:
                found = add_clipped(found, before, layer.layer.maximum)
            before, h = h, found
            results.append(found)
        return results

    def back(self, results: list[Map], gradient: AnyMap, rows: Rows) -> NDArray[np.float64]:
        """From the gradient with respect to what the last layer gave some of the images, which is written over, to
        that with respect to the latents, ``(rows, latents)``.
        """
        added: AnyMap | None = None
        g = gradient
        for layer, convolution, result in zip(
            reversed(self.layers), reversed(self.network.layers), reversed(results), strict=True
        ):
            g = above(g, result, 0 if convolution.residual else layer.layer.minimum, rows)
            passed = g if convolution.residual else None
            g = layer.backward(g)
            if added is not None:
                g += added
            added = passed
        return np.ascontiguousarray(g.reshape(-1, g.shape[2]).T, np.float64)
