"""Integer networks as floating-point matrix products in NumPy: exact, by the bounds of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.portable.engine import Cotangent, Differentiate, Evaluate
from bbans.portable.network import FLOAT32_EXACT, FLOAT64_EXACT, GRADIENT_MAXIMUM, BackwardPass, Linear, Network


@dataclass(frozen=True, eq=False)
class Prepared:
    """A layer with its weights in the smallest floating-point type that its bound allows."""

    weight: NDArray[Any]
    bias: NDArray[Any]
    scale: float
    minimum: int
    maximum: int

    @staticmethod
    def of(layer: Linear, bound: int) -> Prepared:
        kind = np.float32 if bound <= FLOAT32_EXACT else np.float64
        return Prepared(
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


@dataclass(frozen=True)
class NumpyEngine:
    """The default :class:`bbans.portable.engine.Engine`."""

    block: int = 512
    """Images evaluated at once: enough for the matrix product, few enough to stay in cache."""
    name: str = "numpy"

    def load(self, network: Network) -> Evaluate:
        layers = [Prepared.of(*pair) for pair in zip(network.layers, network.bounds(), strict=True)]

        def evaluate(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
            outputs = np.empty((len(inputs), network.outputs), np.int64)
            for first in range(0, len(inputs), self.block):
                x: NDArray[Any] = inputs[first : first + self.block]
                for layer in layers:
                    x = layer(x)
                outputs[first : first + self.block] = x
            return outputs

        return evaluate

    def load_gradient(self, network: Network, backward: BackwardPass) -> Differentiate:
        # All in float64: the bounds of the backward products are beyond float32.
        layers = [Prepared.of(layer, FLOAT64_EXACT) for layer in network.layers]

        def differentiate(inputs: NDArray[np.int64], cotangent: Cotangent) -> NDArray[np.int64]:
            gradients = np.empty(inputs.shape, np.int64)
            for first in range(0, len(inputs), self.block):
                part = slice(first, first + self.block)
                results: list[NDArray[Any]] = [inputs[part]]
                for layer in layers:
                    results.append(layer(results[-1]))
                gradient: NDArray[Any] = cotangent(results[-1].astype(np.int64), part).astype(np.float64)
                for index in reversed(range(len(layers))):
                    gradient = gradient @ layers[index].weight.T
                    gradient *= 2.0 ** -backward.shifts[index]
                    np.floor(gradient, out=gradient)
                    np.clip(gradient, -GRADIENT_MAXIMUM, GRADIENT_MAXIMUM, out=gradient)
                    if index:
                        before, y = layers[index - 1], results[index]
                        gradient *= (y > before.minimum) & (y < before.maximum)
                gradients[part] = gradient
            return gradients

        return differentiate
