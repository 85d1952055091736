"""Fully connected networks in compiled code, on the product of :mod:`bbans.portable.numba_product`.

What goes into a layer may have 16 bits, so that 32 would not hold its sums. It is then split into its lower 8 bits and
the rest, each is multiplied on its own, and the two sums are put together in 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bbans.portable.descent import FIRST_LIMIT, LIMIT, Descent, Floats32, quantize
from bbans.portable.engine import Linearize, PullBack, Rows
from bbans.portable.network import FLOAT32_EXACT, OUTPUT_FRACTION, Linear, Network, largest_sum
from bbans.portable.numba_product import (
    OUTPUTS,
    PAIR_BYTES,
    SHORT_MAXIMUM,
    SUM_MAXIMUM,
    TILE,
    Table,
    block_product,
    pairs_of,
)

LIMB_BITS = 8
LIMB = 1 << LIMB_BITS
MAGNITUDE_MAXIMUM = (1 << 16) - 1


class Field(IntEnum):
    """Of a layer, as :func:`_evaluate` takes it: addresses and numbers."""

    WEIGHT = 0
    """Address of int32 ``(blocks, pairs of inputs, OUTPUTS)``."""
    BIAS = 1
    """Where the biases of this layer begin."""
    PAIRS = 2
    OUTPUTS = 3
    LIMBS = 4
    """1, or 2 if what goes in is split."""
    SHIFT = 5
    MINIMUM = 6
    MAXIMUM = 7


def limbs_of(layer: Linear, magnitude: int) -> int | None:
    """Into how many parts inputs up to a magnitude must be split so that 32 bits hold all sums; None if 2 won't do."""
    if int(np.abs(layer.weight.astype(np.int32)).max(initial=0)) > SHORT_MAXIMUM:
        return None
    if magnitude <= SHORT_MAXIMUM and largest_sum(layer.weight, magnitude) <= SUM_MAXIMUM:
        return 1
    return 2 if magnitude <= MAGNITUDE_MAXIMUM and largest_sum(layer.weight, LIMB) <= SUM_MAXIMUM else None


@dataclass(frozen=True, eq=False)
class DenseNetwork:
    """An :data:`bbans.portable.engine.Evaluate`, safe to call from several threads."""

    layers: Table
    """Rows have the fields of :class:`Field`."""
    weights: tuple[NDArray[np.int32], ...]
    """What the addresses point to."""
    biases: NDArray[np.int64]
    """Of all layers, one after the other."""
    outputs: int

    @staticmethod
    def of(network: Network) -> DenseNetwork | None:
        """None if 32 bits don't hold its sums."""
        rows, weights, first = [], [], 0
        for layer, magnitude in zip(network.layers, network.magnitudes, strict=True):
            limbs, weight, outputs = limbs_of(layer, magnitude), pairs_of(layer.weight), len(layer.weight)
            if limbs is None:
                return None
            address = int(weight.__array_interface__["data"][0])
            rows.append((address, first, weight.shape[1], outputs, limbs, layer.shift, layer.minimum, layer.maximum))
            weights.append(weight)
            first += outputs
        biases = np.concatenate([layer.bias for layer in network.layers])
        return DenseNetwork(np.array(rows, np.int64), tuple(weights), biases, network.outputs)

    def __call__(self, inputs: NDArray[np.int64]) -> NDArray[np.int64]:
        outputs = np.empty((len(inputs), self.outputs), np.int64)
        _evaluate(self.layers, self.biases, inputs, outputs)
        return outputs


def load_dense_gradient(network: Network) -> Linearize | None:
    """See :class:`bbans.portable.engine.Engine`; None if 32 bits don't hold the network's sums."""
    forward = []
    for layer, magnitude in zip(network.layers, network.magnitudes, strict=True):
        loaded = DenseNetwork.of(Network(magnitude, (layer,)))
        if loaded is None:
            return None
        forward.append(loaded)
    descent = Descent.of(network)
    first, backward = descent.first_weight.astype(np.float64), []
    for coarse in descent.layers:
        weight = np.ascontiguousarray(coarse.weight.T)
        product = Linear(weight, np.zeros(len(weight), np.int64), 0, -FLOAT32_EXACT, FLOAT32_EXACT)
        loaded = DenseNetwork.of(Network(LIMIT, (product,)))
        assert loaded is not None, "sums that float32 holds fit 32 bits"
        backward.append((loaded, coarse.step))
    last = len(network.layers) - 1

    def linearize(inputs: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
        results = [inputs]
        for loaded in forward:
            results.append(loaded(results[-1]))

        def pull_back(g: Floats32, rows: Rows) -> NDArray[np.float64]:
            for index in range(last, 0, -1):
                loaded, step = backward[index - 1]
                quantized, unit = quantize(g, LIMIT)
                g = np.empty((len(quantized), loaded.outputs), np.float32)
                _evaluate(loaded.layers, loaded.biases, quantized, g)
                g *= unit * step
                g *= results[index][rows] > network.layers[index - 1].minimum
            quantized, unit = quantize(g, FIRST_LIMIT)
            gradient: NDArray[np.float64] = quantized.astype(np.float64) @ first
            gradient *= unit.astype(np.float64) * descent.first_step
            return gradient

        return np.ldexp(results[-1], -OUTPUT_FRACTION).astype(np.float32), pull_back

    return linearize


@njit(nogil=True, cache=True)
def _put(limbs: NDArray[np.int32], parts: int, index: int, values: Table) -> None:
    """Write an input of a layer, for the images of a tile; the even one of each pair must come first."""
    lower = limbs[0, index // 2]
    mask = 0xFFFF if parts == 1 else LIMB - 1
    if index % 2 == 0:
        for image in range(TILE):
            lower[image] = values[image] & mask
    else:
        for image in range(TILE):
            lower[image] |= np.int32((values[image] & mask) << 16)
    if parts == 2:
        upper = limbs[1, index // 2]
        if index % 2 == 0:
            for image in range(TILE):
                upper[image] = (values[image] >> LIMB_BITS) & 0xFFFF
        else:
            for image in range(TILE):
                upper[image] |= np.int32((values[image] >> LIMB_BITS) << 16)


@njit(nogil=True, cache=True)
def _evaluate(layers: Table, biases: Table, inputs: NDArray[Any], outputs: NDArray[Any]) -> None:
    """From integers ``(images, inputs)`` to ``(images, outputs)``, each in any type that holds them."""
    pairs, blocks = layers[:, Field.PAIRS].max(), -(-layers[:, Field.OUTPUTS].max() // OUTPUTS)
    limbs, sums = np.zeros((2, pairs, TILE), np.int32), np.empty((2, blocks * OUTPUTS, TILE), np.int32)
    nothing, rows = np.zeros(OUTPUTS * TILE, np.int32), np.empty(pairs, np.int64)
    values = np.zeros(TILE, np.int64)
    limits = np.array([-SUM_MAXIMUM - 1, SUM_MAXIMUM], np.int32)
    for first in range(0, len(inputs), TILE):
        images = min(TILE, len(inputs) - first)
        for index in range(inputs.shape[1]):
            for image in range(images):
                values[image] = np.int64(inputs[first + image, index])
            _put(limbs, layers[0, Field.LIMBS], index, values)
        for number in range(len(layers)):
            layer = layers[number]
            parts, shift, width = layer[Field.LIMBS], layer[Field.SHIFT], layer[Field.OUTPUTS]
            for part in range(parts):
                for pair in range(layer[Field.PAIRS]):
                    rows[pair] = limbs[part].ctypes.data + pair * PAIR_BYTES
                for block in range(-(-width // OUTPUTS)):
                    block_product(
                        layer[Field.WEIGHT] + 4 * block * layer[Field.PAIRS] * OUTPUTS,
                        nothing.ctypes.data,
                        limits.ctypes.data,
                        limits.ctypes.data,
                        rows.ctypes.data,
                        layer[Field.PAIRS],
                        0,
                        nothing.ctypes.data,
                        sums[part].ctypes.data + block * OUTPUTS * PAIR_BYTES,
                        OUTPUTS,
                        1,
                    )
            minimum, maximum = layer[Field.MINIMUM], layer[Field.MAXIMUM]
            for output in range(width):
                bias = biases[layer[Field.BIAS] + output]
                for image in range(TILE):
                    values[image] = bias + np.int64(sums[0, output, image])
                if parts == 2:
                    for image in range(TILE):
                        values[image] += np.int64(sums[1, output, image]) << LIMB_BITS
                for image in range(TILE):
                    values[image] = min(max(values[image] >> shift, minimum), maximum)
                if number + 1 < len(layers):
                    _put(limbs, layers[number + 1, Field.LIMBS], output, values)
                else:
                    for image in range(images):
                        outputs[first + image, output] = values[image]
