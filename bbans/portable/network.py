"""Networks in integers, and the proof that evaluating them is exact.

A layer computes ``clip((weight @ x + bias) >> shift)`` on integers. Whatever evaluates it, in floating point or
not, gets the same integers as long as no sum, and no partial sum in any order, leaves the range in which the
arithmetic is exact. :meth:`Linear.bound` bounds all of them from the weights, and a :class:`Network` can't be
made if a bound is over 2**53.

Convolutions (:mod:`bbans.portable.convolution`) are products of the same kind, over patches, with the same bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError

OUTPUT_FRACTION = 16
"""What a frozen network puts out are multiples of ``2**-OUTPUT_FRACTION``."""
FLOAT64_EXACT = 1 << 53
FLOAT32_EXACT = 1 << 24


@dataclass(frozen=True, eq=False)
class Linear:
    """An integer matrix product, a shift, and a clip."""

    weight: NDArray[np.int16]
    """Shape ``(outputs, inputs)``."""
    bias: NDArray[np.int64]
    """Shape ``(outputs,)``, in units of the product; it includes the half that makes the shift round."""
    shift: int
    """How many bits the sum is shifted right, rounding down."""
    minimum: int
    """Results are clipped to ``minimum .. maximum``; a minimum of 0 is a ReLU."""
    maximum: int

    def bound(self, input_magnitude: int) -> int:
        """The largest magnitude that a sum, whole or partial, can have for inputs up to ``input_magnitude``."""
        rows = np.abs(self.weight.astype(np.int64)).sum(axis=1).tolist()
        biases = self.bias.tolist()
        return max(int(row) * input_magnitude + abs(int(bias)) for row, bias in zip(rows, biases, strict=True))

    @property
    def output_magnitude(self) -> int:
        """The largest magnitude of a result."""
        return max(-self.minimum, self.maximum)

    def check(self, input_magnitude: int, name: str) -> None:
        """Raise :class:`bbans.errors.ModelError` if a sum could be inexact, or the layer's numbers make no sense."""
        if self.bias.shape != self.weight.shape[:1]:
            raise ModelError(f"{name}: weights of shape {self.weight.shape} and biases of shape {self.bias.shape}")
        if not 0 <= self.shift < 53 or self.minimum > self.maximum:
            raise ModelError(
                f"{name}: a shift of {self.shift} bits and a range of {self.minimum} to {self.maximum} make no sense"
            )
        bound = self.bound(input_magnitude)
        if bound > FLOAT64_EXACT:
            raise ModelError(f"{name}: sums can reach {bound}, over 2**53, and would not be exact")


def largest_sum(weight: NDArray[np.int16], input_magnitude: int) -> int:
    """The largest magnitude that a sum of a product ``(outputs, inputs)``, whole or partial, can have."""
    return int(np.abs(weight.astype(np.int64)).sum(axis=1).max()) * input_magnitude


@dataclass(frozen=True, eq=False)
class Network:
    """Layers, one after the other, on integers up to a known magnitude.

    Raises :class:`bbans.errors.ModelError` if the layers don't fit together or a sum could be inexact.
    """

    input_magnitude: int
    layers: tuple[Linear, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError("a network needs at least one layer")
        width, magnitude = self.inputs, self.input_magnitude
        for index, layer in enumerate(self.layers):
            if layer.weight.shape[1] != width:
                raise ModelError(f"layer {index}: expected {width} inputs, got weights of shape {layer.weight.shape}")
            layer.check(magnitude, f"layer {index}")
            width, magnitude = layer.weight.shape[0], layer.output_magnitude

    @property
    def inputs(self) -> int:
        """The width of the input."""
        return int(self.layers[0].weight.shape[1])

    @property
    def outputs(self) -> int:
        """The width of the result."""
        return int(self.layers[-1].weight.shape[0])

    @property
    def multiply_adds(self) -> int:
        """For an image."""
        return sum(layer.weight.size for layer in self.layers)

    @property
    def magnitudes(self) -> list[int]:
        """The largest magnitude of what goes into each layer."""
        return [self.input_magnitude, *[layer.output_magnitude for layer in self.layers[:-1]]]

    def bounds(self) -> list[int]:
        """The largest magnitude of a sum in each layer: the proof of exactness."""
        return [layer.bound(magnitude) for layer, magnitude in zip(self.layers, self.magnitudes, strict=True)]
