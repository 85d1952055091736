"""The gradient of a network in small integers: cheap, near enough to climb by, and the same on every machine.

Forward, a gradient needs the network as it is: where a likelihood is narrow, a mean that is off by a level turns the
gradient around. Backward it needs no such care. There, what goes through a layer is rounded to 7 bits and a sign, in
units that each image sets for itself by its largest value, and weights are rounded until every sum of products is an
integer that float32 holds, in whatever order it is added up. All else is operations on single float32 or float64
elements that IEEE 754 fixes: ``+ - * /``, rounding to the nearest integer, comparing, converting. The rules are these.

- ``quantize(v, limit)`` is ``rint(v * (limit / largest))``, in units of ``largest / limit``, where ``largest`` is the
  largest magnitude in ``v``, but at least ``2**-60``.
- The network's results times ``2**-OUTPUT_FRACTION``, rounded to float32, are where a gradient is taken.
- It passes a layer as ``(quantize(g, 127) @ weight) * (unit * step)``, and is 0 where what the layer before gave was
  not above its minimum.
- It passes the first layer, with its weights as they are, as ``quantize(g, 32767)``, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.network import FLOAT32_EXACT, FLOAT64_EXACT, OUTPUT_FRACTION, Linear, Network

LIMIT = 127
"""Of a quantized value."""
FIRST_LIMIT = (1 << 15) - 1
"""Of a quantized gradient that goes through the first layer."""
TINY = 2.0**-60

Floats32 = NDArray[np.float32]


def quantize(v: Floats32, limit: int) -> tuple[Floats32, Floats32]:
    """Integers up to ``limit`` for each row, and the unit that they are in, ``(rows, 1)``."""
    largest = np.maximum(v.max(axis=1, keepdims=True), -v.min(axis=1, keepdims=True))
    largest = np.maximum(largest, np.float32(TINY))
    quantized = v * (np.float32(limit) / largest)
    return np.rint(quantized, out=quantized), largest / np.float32(limit)


@dataclass(frozen=True, eq=False)
class CoarseLayer:
    """A layer after the first, as a gradient sees it."""

    weight: NDArray[np.int16]
    """Shape ``(outputs, inputs)``."""
    step: np.float32
    """What a unit of the weights is worth."""


@dataclass(frozen=True, eq=False)
class Descent:
    """The way of a gradient from a network's results back to its inputs."""

    first_weight: NDArray[np.int16]
    """Shape ``(outputs, inputs)``."""
    first_step: float
    layers: tuple[CoarseLayer, ...]
    """All layers but the first."""

    @staticmethod
    def of(network: Network) -> Descent:
        """Raises :class:`bbans.errors.ModelError` if a product could be inexact."""
        first = network.layers[0]
        columns = np.abs(first.weight.astype(np.int64)).sum(axis=0)
        if int(columns.max()) * FIRST_LIMIT > FLOAT64_EXACT:
            raise ModelError("layer 0: sums of its gradients can be over 2**53, and would not be exact")
        units = [2.0**-layer.shift for layer in network.layers]
        units[-1] *= 2.0**-OUTPUT_FRACTION
        coarse = []
        for layer, unit in zip(network.layers[1:], units[1:], strict=True):
            step = _weight_step(layer)
            coarse.append(CoarseLayer(np.rint(layer.weight / step).astype(np.int16), np.float32(step * unit)))
        return Descent(first.weight, units[0], tuple(coarse))


def _weight_step(layer: Linear) -> float:
    """The finest power of two that weights can be rounded to with sums that stay exact in float32."""
    step = 1.0
    while True:
        magnitudes = np.abs(np.rint(layer.weight / step))
        if LIMIT * max(magnitudes.sum(axis=axis).max() for axis in (0, 1)) <= FLOAT32_EXACT:
            return step
        step *= 2.0
