"""Fully connected networks in compiled code, on the product of :mod:`bbans.portable.numba_product`.

What goes into a layer may have 16 bits, so that 32 would not hold its sums. It is then split into its lower 8 bits and
the rest, each is multiplied on its own, and the two sums are put together in 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bbans.portable.network import Linear, Network, largest_sum
from bbans.portable.numba_product import OUTPUTS, PAIR_BYTES, TILE, Table, block_product, pairs_of

LIMB_BITS = 8
LIMB = 1 << LIMB_BITS
SUM_MAXIMUM = (1 << 31) - 1
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
    if int(np.abs(layer.weight.astype(np.int32)).max(initial=0)) > np.iinfo(np.int16).max:
        return None
    if magnitude <= np.iinfo(np.int16).max and largest_sum(layer.weight, magnitude) <= SUM_MAXIMUM:
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
        magnitudes = [network.input_magnitude, *[layer.output_magnitude for layer in network.layers]]
        rows, weights, first = [], [], 0
        for layer, magnitude in zip(network.layers, magnitudes, strict=False):
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
def _evaluate(layers: Table, biases: Table, inputs: Table, outputs: Table) -> None:
    """From ``(images, inputs)`` to ``(images, outputs)``."""
    pairs, blocks = layers[:, Field.PAIRS].max(), -(-layers[:, Field.OUTPUTS].max() // OUTPUTS)
    limbs, sums = np.zeros((2, pairs, TILE), np.int32), np.empty((2, blocks * OUTPUTS, TILE), np.int32)
    nothing, rows = np.zeros(OUTPUTS * TILE, np.int32), np.empty(pairs, np.int64)
    values = np.zeros(TILE, np.int64)
    limits = np.array([-SUM_MAXIMUM - 1, SUM_MAXIMUM], np.int32)
    for first in range(0, len(inputs), TILE):
        images = min(TILE, len(inputs) - first)
        for index in range(inputs.shape[1]):
            for image in range(images):
                values[image] = inputs[first + image, index]
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
            last = number + 1 == len(layers)
            for output in range(width):
                bias, minimum, maximum = biases[layer[Field.BIAS] + output], layer[Field.MINIMUM], layer[Field.MAXIMUM]
                for image in range(TILE):
                    values[image] = bias + np.int64(sums[0, output, image])
                if parts == 2:
                    for image in range(TILE):
                        values[image] += np.int64(sums[1, output, image]) << LIMB_BITS
                for image in range(TILE):
                    values[image] = min(max(values[image] >> shift, minimum), maximum)
                if last:
                    for image in range(images):
                        outputs[first + image, output] = values[image]
                else:
                    _put(limbs, layers[number + 1, Field.LIMBS], output, values)
