"""Exact matrix products in torch: in float64, or of 8-bit digits on the integer units of a CUDA device.

float32 is left out: torch and its environment may be set to round what goes into it (TF32, bfloat16).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.portable.network import Linear
from bbans.portable.torch_device import Device

DIGIT_BITS = 8
DIGITS_MAXIMUM = 3
DIGIT_SUM_MAXIMUM = (1 << 31) - 1
"""Products of digits are added up in int32."""
ROWS_LEAST = 32
"""``torch._int_mm`` takes more than 16 rows on CUDA..."""
UNIT = 16
"""...and inputs and outputs by the 8; by the 16, matrix units are sure to take them."""
TRIAL_ROWS = 1 << 15
TRIALS = 3


@dataclass(frozen=True, eq=False)
class DoubleProduct:
    """A :class:`bbans.portable.network.Linear`, from integers ``(rows, inputs)`` to ``(rows, outputs)``, both held in
    float64: exact, since the sums of every :class:`Linear` that a network takes are below 2**53.
    """

    weight: torch.Tensor
    """``(inputs, outputs)``, in units of the result: powers of two change no sum but by its exponent."""
    bias: torch.Tensor
    minimum: int
    maximum: int

    @staticmethod
    def of(layer: Linear, device: torch.device) -> DoubleProduct:
        weight, bias = (np.ldexp(part.astype(np.float64), -layer.shift) for part in (layer.weight, layer.bias))
        return DoubleProduct(
            torch.from_numpy(weight).to(device).t(), torch.from_numpy(bias).to(device), layer.minimum, layer.maximum
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight).floor_().clamp_(self.minimum, self.maximum)


@dataclass(frozen=True, eq=False)
class DigitProduct:
    """The same from products of 8-bit digits, which may be negative."""

    weight: torch.Tensor
    """int8 ``(digits of inputs * inputs, places * outputs)``, filled up: for each place what digits of weights
    contribute to it."""
    bias: torch.Tensor
    digits: int
    """Of inputs."""
    places: int
    inputs: int
    layer: Linear

    @staticmethod
    def of(layer: Linear, input_magnitude: int, device: torch.device) -> DigitProduct | None:
        """None if the sums of digits may be too large, or numbers too long."""
        outputs, inputs = layer.weight.shape
        largest = int(np.abs(layer.weight.astype(np.int64)).max())
        digits, of_weights = digits_for(input_magnitude), digits_for(largest)
        if max(digits, of_weights) > DIGITS_MAXIMUM or digits * inputs << 2 * (DIGIT_BITS - 1) > DIGIT_SUM_MAXIMUM:
            return None
        parts, places = split(layer.weight.astype(np.int64), of_weights), digits + of_weights - 1
        weight = np.zeros((fill(places * outputs), fill(digits * inputs)), np.int8)
        for first in range(digits):
            for second, part in enumerate(parts):
                row, column = (first + second) * outputs, first * inputs
                weight[row : row + outputs, column : column + inputs] = part
        bias = torch.from_numpy(layer.bias.astype(np.int64)).to(device)
        # As cuBLAS wants them: the rows of the left factor and the columns of the right one are contiguous.
        return DigitProduct(torch.from_numpy(weight).to(device).t(), bias, digits, places, inputs, layer)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        rows, outputs = len(x), len(self.bias)
        left = torch.zeros((max(rows, ROWS_LEAST), len(self.weight)), dtype=torch.int8, device=x.device)
        rest = x.to(torch.int32)
        for digit in range(self.digits):
            upper = (rest + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS
            left[:rows, digit * self.inputs : (digit + 1) * self.inputs] = rest - (upper << DIGIT_BITS)
            rest = upper
        found = torch._int_mm(left, self.weight)[:rows, : self.places * outputs]
        places = found.to(torch.int64).view(rows, self.places, outputs).unbind(1)
        sums = places[-1]
        for place in reversed(places[:-1]):
            sums = (sums << DIGIT_BITS) + place
        layer = self.layer
        return ((sums + self.bias) >> layer.shift).clamp_(layer.minimum, layer.maximum).to(torch.float64)


TensorProduct = DoubleProduct | DigitProduct


def load_product(layer: Linear, input_magnitude: int, device: Device) -> TensorProduct:
    """The product that suits the device: on CUDA the one that a trial finds to be faster."""
    with device.working():
        double = DoubleProduct.of(layer, device.torch)
        digits = DigitProduct.of(layer, input_magnitude, device.torch) if device.is_cuda else None
        return double if digits is None else fastest([double, digits], layer.weight.shape[1], device)


def fastest(products: Sequence[TensorProduct], inputs: int, device: Device) -> TensorProduct:
    """The fastest on many rows of zeros, the first of them if all take equally long or none works."""
    best, least = products[0], math.inf
    x = torch.zeros((TRIAL_ROWS, inputs), dtype=torch.float64, device=device.torch)
    for product in products:
        with suppress(RuntimeError):  # a device need not have integer units
            product(x)
            device.wait()
            start = time.perf_counter()
            for _ in range(TRIALS):
                product(x)
            device.wait()
            seconds = time.perf_counter() - start
            if seconds < least:
                best, least = product, seconds
    return best


def digits_for(magnitude: int) -> int:
    """How many digits from -128 to 127 make all integers up to a magnitude.

    >>> [digits_for(magnitude) for magnitude in (127, 128, 32639, 32640, 65535)]
    [1, 2, 2, 3, 3]
    """
    digits, largest = 1, (1 << (DIGIT_BITS - 1)) - 1
    while largest < magnitude:
        digits, largest = digits + 1, (largest << DIGIT_BITS) + (1 << (DIGIT_BITS - 1)) - 1
    return digits


def split(values: NDArray[np.int64], digits: int) -> list[NDArray[np.int64]]:
    """The digits of integers, lowest first.

    >>> [part.tolist() for part in split(np.array([1000, -1000]), 2)]
    [[-24, 24], [4, -4]]
    """
    parts = []
    for _ in range(digits):
        upper = (values + (1 << (DIGIT_BITS - 1))) >> DIGIT_BITS
        parts.append(values - (upper << DIGIT_BITS))
        values = upper
    return parts


def fill(count: int) -> int:
    """Up to whole units."""
    return -(-count // UNIT) * UNIT
