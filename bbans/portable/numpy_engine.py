"""Integer networks as floating-point matrix products in NumPy: exact, by the bounds of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.portable.descent import FIRST_LIMIT, LIMIT, TINY, CoarseLayer, Descent, Floats32
from bbans.portable.engine import Cotangent, Differentiate, Evaluate
from bbans.portable.network import FLOAT32_EXACT, Linear, Network


@dataclass(frozen=True)
class NumpyEngine:
    """The default :class:`bbans.portable.engine.Engine`."""

    block: int = 512
    """Images evaluated at once: enough for the matrix product, few enough to stay in cache."""
    name: str = "numpy"

    def load(self, network: Network) -> Evaluate:
        layers = [_Layer.of(*pair) for pair in zip(network.layers, network.bounds(), strict=True)]

        def evaluate(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
            outputs = np.empty((len(inputs), network.outputs), np.int64)
            for first in range(0, len(inputs), self.block):
                x: NDArray[Any] = inputs[first : first + self.block]
                for layer in layers:
                    x = layer(x)
                outputs[first : first + self.block] = x
            return outputs

        return evaluate

    def load_gradient(self, descent: Descent) -> Differentiate:
        first = descent.first
        weight, bias = first.weight.astype(np.float64), first.bias.astype(np.float64)
        layers = [_CoarseLayer.of(layer) for layer in descent.layers]
        minima = [np.float32(first.minimum), *(layer.minimum for layer in layers)]

        def differentiate(inputs: NDArray[np.int64], cotangent: Cotangent) -> NDArray[np.float64]:
            h = np.maximum(((inputs @ weight.T + bias) * first.step).astype(np.float32), minima[0])
            above = []
            for layer, minimum in zip(layers, minima, strict=False):
                above.append(h > minimum)
                h = layer.forward(h)
            g = cotangent(h)
            for layer in reversed(layers):
                g = layer.backward(g)
                g *= above.pop()
            quantized, unit = _quantize(g, FIRST_LIMIT)
            gradient: NDArray[np.float64] = quantized.astype(np.float64) @ weight
            gradient *= unit.astype(np.float64) * first.step
            return gradient

        return differentiate


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer with its weights in the smallest floating-point type that its bound allows."""

    weight: NDArray[Any]
    bias: NDArray[Any]
    scale: float
    minimum: int
    maximum: int

    @staticmethod
    def of(layer: Linear, bound: int) -> _Layer:
        kind = np.float32 if bound <= FLOAT32_EXACT else np.float64
        return _Layer(
            np.ascontiguousarray(layer.weight.T, kind),
            layer.bias.astype(kind),
            2.0**-layer.shift,
            layer.minimum,
            layer.maximum,
        )

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        y: NDArray[Any] = x.astype(self.weight.dtype, copy=False) @ self.weight
        y += self.bias
        y *= self.weight.dtype.type(self.scale)  # exact: a power of two
        np.floor(y, out=y)
        np.clip(y, self.minimum, self.maximum, out=y)
        return y


@dataclass(frozen=True, eq=False)
class _CoarseLayer:
    """A :class:`bbans.portable.descent.CoarseLayer`, whose sums float32 holds."""

    weight: Floats32
    bias: Floats32
    step: np.float32
    minimum: np.float32

    @staticmethod
    def of(layer: CoarseLayer) -> _CoarseLayer:
        return _CoarseLayer(layer.weight.astype(np.float32), layer.bias, layer.step, layer.minimum)

    def forward(self, h: Floats32) -> Floats32:
        y = self._product(h, self.weight.T)
        y += self.bias
        return np.maximum(y, self.minimum, out=y)

    def backward(self, g: Floats32) -> Floats32:
        return self._product(g, self.weight)

    def _product(self, v: Floats32, weight: Floats32) -> Floats32:
        quantized, unit = _quantize(v, LIMIT)
        y: Floats32 = quantized @ weight
        y *= unit * self.step
        return y


def _quantize(v: Floats32, limit: int) -> tuple[Floats32, Floats32]:
    """Integers up to ``limit`` for each row, and the unit that they are in, ``(rows, 1)``."""
    largest = np.maximum(v.max(axis=1, keepdims=True), -v.min(axis=1, keepdims=True))
    largest = np.maximum(largest, np.float32(TINY))
    quantized = v * (np.float32(limit) / largest)
    return np.rint(quantized, out=quantized), largest / np.float32(limit)
