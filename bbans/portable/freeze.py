"""Freezing: from a trained torch network to the integers that files are coded with.

Weights become 16-bit integers times a power of two, one for each layer; activations become integers of at
most 16 bits, their power of two chosen from the largest activation seen on calibration data, with a factor of
two to spare (a larger one is clipped: that costs rate, never correctness).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbans.errors import ModelError
from bbans.portable.network import OUTPUT_FRACTION, Linear, Network

WEIGHT_MAXIMUM = (1 << 15) - 1
ACTIVATION_BITS = 16
OUTPUT_MAXIMUM = 1 << 24


@torch.no_grad()
def freeze(network: nn.Sequential, calibration: Tensor, input_scale: float, input_magnitude: int) -> Network:
    """The integer twin of linear layers with a ReLU after each but the last.

    ``calibration`` is float ``(images, inputs)``, what the torch network takes; the integer network takes the
    same divided by ``input_scale``, as integers up to ``input_magnitude``. Its results are the torch network's
    times ``2**OUTPUT_FRACTION``. Raises :class:`bbans.errors.ModelError` for other kinds of layers, or if
    exactness can't be proven.
    """
    modules = list(network)
    layers: list[Linear] = []
    x = calibration
    scale = input_scale
    for index in range(0, len(modules), 2):
        linear = modules[index]
        last = index == len(modules) - 1
        if not isinstance(linear, nn.Linear) or not (last or isinstance(modules[index + 1], nn.ReLU)):
            raise ModelError(f"can freeze linear layers with a ReLU between them, got {linear} at {index}")
        x = linear(x) if last else torch.relu(linear(x))
        if last:
            fraction, minimum, maximum = OUTPUT_FRACTION, -OUTPUT_MAXIMUM, OUTPUT_MAXIMUM
        else:
            fraction = ACTIVATION_BITS - 1 - math.ceil(math.log2(float(x.max())))
            minimum, maximum = 0, (1 << ACTIVATION_BITS) - 1
        weight = linear.weight.double().numpy() * scale
        bias = linear.bias.double().numpy()
        layers.append(_round_layer(weight, bias, fraction, minimum, maximum))
        scale = 2.0**-fraction
    return Network(input_magnitude, tuple(layers))


def _round_layer(
    weight: NDArray[np.float64], bias: NDArray[np.float64], fraction: int, minimum: int, maximum: int
) -> Linear:
    """Round a layer whose results are to be multiples of ``2**-fraction``, for integer inputs."""
    precision = math.floor(math.log2(WEIGHT_MAXIMUM / np.abs(weight).max()))
    shift = precision - fraction
    if shift < 1:
        raise ModelError(f"the weights are too large to be frozen: a shift of {shift} bits is left")
    rounded = np.rint(np.ldexp(weight, precision)).astype(np.int16)
    offset = np.rint(np.ldexp(bias, precision)).astype(np.int64) + (1 << (shift - 1))
    return Linear(rounded, offset, shift, minimum, maximum)
