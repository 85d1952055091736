"""Integer networks as floating-point matrix products in NumPy: exact, by the bounds of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.portable.convolution import ConvolutionalNetwork, Line, Size
from bbans.portable.descent import FIRST_LIMIT, LIMIT, Descent, Floats32, quantize
from bbans.portable.engine import Call, Evaluate, Linearize, Product, PullBack, Rows, Sums, in_turn, over_maps
from bbans.portable.layout import PlainLayout, Stored, Values
from bbans.portable.maps import load_convolutions
from bbans.portable.memory import Memory
from bbans.portable.network import FLOAT32_EXACT, OUTPUT_FRACTION, Linear, Network, largest_sum


@dataclass(frozen=True)
class NumpyEngine:
    """The default :class:`bbans.portable.engine.MapEngine`."""

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

    def load_convolutions(self, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
        return load_convolutions(self, network)

    @property
    def layout(self) -> PlainLayout:
        return PlainLayout()

    def suited(self, layers: Sequence[tuple[Linear, int]]) -> NumpyEngine:
        return self

    def load_product(
        self, layer: Linear, input_magnitude: int, channels: Sequence[int], added_maximum: int = 0
    ) -> Product:
        kind = np.float32 if layer.bound(input_magnitude) <= FLOAT32_EXACT else np.float64
        # In units of the result: powers of two change no sum but by its exponent.
        weight = np.ldexp(layer.weight.astype(kind), -layer.shift)
        bias = np.ldexp(layer.bias.astype(kind), -layer.shift)[:, None]
        return _Product(weight, bias, (layer.minimum, layer.maximum), added_maximum, Memory())

    def load_calls(self, calls: Sequence[Call]) -> Callable[[Line], None]:
        return in_turn(calls)

    def load_map_calls(self, calls: Sequence[tuple[Call, Size]]) -> Callable[[], None]:
        return over_maps(calls)

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        kind = np.float32 if largest_sum(weight, input_magnitude) <= FLOAT32_EXACT else np.float64
        loaded = weight.astype(kind)
        return lambda columns: loaded @ columns.astype(kind, copy=False)

    def load_gradient(self, network: Network) -> Linearize:
        forward = [_Layer.of(*pair) for pair in zip(network.layers, network.bounds(), strict=True)]
        descent = Descent.of(network)
        first = descent.first_weight.astype(np.float64)
        backward = [(layer.weight.astype(np.float32), layer.step) for layer in descent.layers]
        memory = Memory()

        def linearize(inputs: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
            x: NDArray[Any] = inputs
            results = []
            for index, layer in enumerate(forward):
                x = layer(x, memory.take(index, (len(x), layer.weight.shape[1]), layer.weight.dtype))
                results.append(x)

            def pull_back(g: Floats32, rows: Rows) -> NDArray[np.float64]:
                for index in range(len(backward), 0, -1):
                    weight, step = backward[index - 1]
                    quantized, unit = quantize(g, LIMIT)
                    g = quantized @ weight
                    g *= unit * step
                    g *= results[index - 1][rows] > forward[index - 1].minimum
                quantized, unit = quantize(g, FIRST_LIMIT)
                gradient: NDArray[np.float64] = quantized.astype(np.float64) @ first
                gradient *= unit.astype(np.float64) * descent.first_step
                return gradient

            real = memory.take(len(forward), x.shape, np.dtype(np.float32))
            return np.multiply(x, 2.0**-OUTPUT_FRACTION, out=real), pull_back

        return linearize


@dataclass(frozen=True, eq=False)
class _Product:
    """A :class:`bbans.portable.engine.Product`."""

    weight: NDArray[Any]
    bias: NDArray[Any]
    limits: tuple[int, int]
    added_maximum: int
    memory: Memory

    @property
    def groups(self) -> int:
        return len(self.weight)

    def __call__(self, parts: Sequence[Stored], added: Stored | None = None, out: Stored | None = None) -> Stored:
        kind = self.weight.dtype
        inputs = [part[0] for part in parts]
        positions, _, images = inputs[0].shape
        widths = [part.shape[1] for part in inputs]
        if min(widths) < len(self.weight):  # narrow parts are sooner copied than multiplied one by one
            together = self.memory.take(0, (positions, sum(widths), images), kind)
            inputs, widths = [np.concatenate(inputs, axis=1, out=together)], [sum(widths)]
        y = self.memory.take(1, (positions, len(self.weight), images), kind)
        np.matmul(self.weight[:, : widths[0]], inputs[0].astype(kind, copy=False), out=y)
        first = widths[0]
        for part, width in zip(inputs[1:], widths[1:], strict=True):
            term = self.memory.take(2, y.shape, kind)
            y += np.matmul(self.weight[:, first : first + width], part.astype(kind, copy=False), out=term)
            first += width
        y += self.bias
        np.floor(y, out=y)
        np.clip(y, *map(kind.type, self.limits), out=y)  # several times faster than np.maximum with a number
        if added is not None:
            y += added[0]
            np.clip(y, kind.type(0), kind.type(self.added_maximum), out=y)
        if out is None:
            return y.astype(np.float32, copy=False)[None]
        out[0] = y
        return out

    def read(self, found: Stored, images: int) -> Values:
        values: Values = found[0]
        return values


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

    def __call__(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        y: NDArray[Any] = np.matmul(x.astype(self.weight.dtype, copy=False), self.weight, out=out)
        y += self.bias
        y *= self.weight.dtype.type(self.scale)  # exact: a power of two
        np.floor(y, out=y)
        np.clip(y, self.minimum, self.maximum, out=y)
        return y
