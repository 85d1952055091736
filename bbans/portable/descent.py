"""The gradient of a network in small integers: cheap, near enough to climb by, and the same on every machine.

Optimal inference takes many gradients and needs none of them exactly. So what goes through a layer, forward or
backward, is rounded to 7 bits and a sign, in units that each image sets for itself by its largest value, and weights
are rounded until every sum of products is an integer that float32 holds, in whatever order it is added up. All else
is operations on single float32 or float64 elements that IEEE 754 fixes: ``+ - * /``, rounding to the nearest integer,
comparing, converting. The rules are these.

- ``quantize(v, limit)`` is ``rint(v * (limit / largest))``, in units of ``largest / limit``, where ``largest`` is the
  largest magnitude in ``v``, but at least ``2**-60``.
- The first layer, whose input may need all its bits, is ``h = max((weight @ x + bias) * step, minimum)``, in integers
  and float64, rounded to float32 before the maximum.
- A further layer is ``h = max((weight @ quantize(h, 127)) * (unit * step) + bias, minimum)``; the last has no minimum.
- Backward it is ``(quantize(g, 127) @ weight) * (unit * step)``, and 0 where its ``h`` was at the minimum.
- The first layer is passed backward with ``quantize(g, 32767)``, in float64.
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


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The layer that integers go into."""

    weight: NDArray[np.int16]
    """Shape ``(outputs, inputs)``."""
    bias: NDArray[np.int64]
    """Shape ``(outputs,)``."""
    step: float
    """What a unit of the sum is worth."""
    minimum: float


@dataclass(frozen=True, eq=False)
class CoarseLayer:
    """A layer after the first."""

    weight: NDArray[np.int16]
    """Shape ``(outputs, inputs)``."""
    bias: Floats32
    """Shape ``(outputs,)``."""
    step: np.float32
    """What a unit of the weights is worth."""
    minimum: np.float32


@dataclass(frozen=True, eq=False)
class Descent:
    """A network as descending sees it: from integers to real results, and a gradient from these back."""

    first: FirstLayer
    layers: tuple[CoarseLayer, ...]

    @staticmethod
    def of(network: Network) -> Descent:
        """Raises :class:`bbans.errors.ModelError` if a product could be inexact."""
        columns = np.abs(network.layers[0].weight.astype(np.int64)).sum(axis=0)
        if int(columns.max()) * FIRST_LIMIT > FLOAT64_EXACT:
            raise ModelError("layer 0: sums of its gradients can be over 2**53, and would not be exact")
        last = len(network.layers) - 1
        layers: list[CoarseLayer] = []
        for index, layer in enumerate(network.layers):
            unit = 2.0**-layer.shift * (2.0**-OUTPUT_FRACTION if index == last else 1.0)
            minimum = -np.inf if index == last else float(layer.minimum)
            if index == 0:
                first = FirstLayer(layer.weight, layer.bias, unit, minimum)
                continue
            step = _weight_step(layer)
            weight = np.rint(layer.weight / step).astype(np.int16)
            bias = (layer.bias * unit).astype(np.float32)
            layers.append(CoarseLayer(weight, bias, np.float32(step * unit), np.float32(minimum)))
        return Descent(first, tuple(layers))


def _weight_step(layer: Linear) -> float:
    """The finest power of two that weights can be rounded to with sums that stay exact in float32."""
    step = 1.0
    while True:
        magnitudes = np.abs(np.rint(layer.weight / step))
        if LIMIT * max(magnitudes.sum(axis=axis).max() for axis in (0, 1)) <= FLOAT32_EXACT:
            return step
        step *= 2.0
