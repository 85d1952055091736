"""Integer networks in compiled code: 16-bit integers, summed up in 32 bits.

What it can't do it leaves to NumPy: gradients through maps, and layers that the proof doesn't allow (:func:`fits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.portable.convolution import ConvolutionalNetwork, Line, Size
from bbans.portable.engine import Call, Evaluate, Linearize, MapEngine, Product, Sums
from bbans.portable.layout import Place, Scratch, Stored, Values, cut
from bbans.portable.maps import load_convolutions
from bbans.portable.memory import Memory
from bbans.portable.network import Linear, Network
from bbans.portable.numba_dense import DenseNetwork, load_dense_gradient
from bbans.portable.numba_product import (
    OUTPUTS,
    SHORT_MAXIMUM,
    SUM_MAXIMUM,
    TILE,
    evaluate,
    evaluate_maps,
    pack,
    pairs_of,
    unpack,
    write,
)
from bbans.portable.numpy_engine import NumpyEngine


@dataclass(frozen=True)
class PairLayout:
    """Tiles of :data:`TILE` images, the last one filled up, and a group of int32 for each two channels of a position:
    the first in the lower 16 bits.
    """

    def groups(self, channels: int) -> int:
        return -(-channels // 2)

    def empty(self, images: int, shape: tuple[int, ...]) -> Stored:
        return np.zeros((-(-images // TILE), *shape, TILE), np.int32)

    def store(self, values: Values, stored: Stored) -> None:
        pack(np.ascontiguousarray(values), stored)

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        write(values, stored, channel)

    def blocks(self, images: int, positions: int) -> list[slice]:
        return [slice(0, images)]  # tile after tile, within a call

    def map_blocks(self, images: int, positions: int) -> list[slice]:
        return cut(images, TILE)


@dataclass(frozen=True)
class NumbaEngine:
    """A :class:`bbans.portable.engine.MapEngine`."""

    name: str = "numba"
    layout: PairLayout = PairLayout()

    def load(self, network: Network) -> Evaluate:
        return DenseNetwork.of(network) or NumpyEngine().load(network)

    def load_convolutions(self, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
        return load_convolutions(self, network)

    def suited(self, layers: Sequence[tuple[Linear, int]]) -> MapEngine:
        return self if all(fits(layer, magnitude) for layer, magnitude in layers) else NumpyEngine()

    def load_product(
        self, layer: Linear, input_magnitude: int, channels: Sequence[int], added_maximum: int = 0
    ) -> Product:
        parts, first = [], 0
        for width in channels:  # each begins with a pair of its own
            part = layer.weight[:, first : first + width]
            parts.append(np.pad(part, ((0, 0), (0, width % 2))))
            first += width
        weight = pairs_of(np.concatenate(parts, axis=1))
        bias = np.zeros(len(weight) * OUTPUTS, np.int32)
        bias[: len(layer.bias)] = layer.bias
        return _Product(
            weight,
            bias,
            layer.shift,
            np.array([layer.minimum, layer.maximum], np.int32),
            np.array([0, added_maximum], np.int32),
            len(layer.weight),
            layer.output_magnitude > SHORT_MAXIMUM,
            Memory(),
        )

    def load_calls(self, calls: Sequence[Call]) -> Calls:
        steps: list[list[int]] = []
        operands: list[tuple[int, ...]] = []
        for call in calls:
            assert isinstance(call.product, _Product)
            places = [_place(call.out), NOTHING if call.added is None else _place(call.added)]
            places += map(_place, call.parts)
            steps.append(call.product.step(len(operands), len(places), call.added is not None))
            operands += places
        return Calls(tuple(calls), np.array(steps, np.int64), np.array(operands, np.int64))

    def load_map_calls(self, calls: Sequence[tuple[Call, Size]]) -> Callable[[], None]:
        loaded, sizes = self.load_calls([call for call, _ in calls]), np.array([size for _, size in calls], np.int64)
        return lambda: evaluate_maps(loaded.steps, loaded.operands, sizes, loaded.tiles)

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        return NumpyEngine().load_sums(weight, input_magnitude)

    def load_gradient(self, network: Network) -> Linearize:
        return load_dense_gradient(network) or NumpyEngine().load_gradient(network)


def fits(layer: Linear, input_magnitude: int) -> bool:
    """Whether inputs and weights have 16 bits, and all sums 32."""
    return (
        input_magnitude <= SHORT_MAXIMUM
        and int(np.abs(layer.weight.astype(np.int64)).max()) <= SHORT_MAXIMUM
        and layer.bound(input_magnitude) <= SUM_MAXIMUM
        and layer.output_magnitude <= SUM_MAXIMUM
        and layer.shift < 32
    )


@dataclass(frozen=True, eq=False)
class _Product:
    """A :class:`bbans.portable.engine.Product`: see :class:`bbans.portable.numba_product.Step`."""

    weight: NDArray[np.int32]
    bias: NDArray[np.int32]
    shift: int
    limits: NDArray[np.int32]
    added_limits: NDArray[np.int32]
    outputs: int
    wide: bool
    memory: Memory

    @property
    def groups(self) -> int:
        return self.outputs if self.wide else -(-self.outputs // 2)

    def step(self, first_operand: int, operands: int, added: bool) -> list[int]:
        """The fields of :class:`bbans.portable.numba_product.Step`."""
        limits = self.added_limits if added else self.limits
        arrays = [_address(array) for array in (self.weight, self.bias, self.limits, limits)]
        return [*arrays, self.shift, self.weight.shape[1], self.outputs, self.wide, first_operand, operands]

    def __call__(self, parts: Sequence[Stored], added: Stored | None = None, out: Stored | None = None) -> Stored:
        tiles, positions = parts[0].shape[:2]
        if out is None:
            out = self.memory.take(0, (tiles, positions, self.groups, TILE), np.int32)
        operands = [_stored(out), NOTHING if added is None else _stored(added), *map(_stored, parts)]
        step = np.array([self.step(0, len(operands), added is not None)], np.int64)
        evaluate(step, np.array(operands, np.int64), (0, 0, 0, 0, positions), tiles)
        return out

    def read(self, found: Stored, images: int) -> Values:
        positions = found.reshape(len(found), -1, *found.shape[-2:])
        values = np.empty((positions.shape[1], self.outputs, images), np.float32)
        unpack(positions, values, self.wide)
        return values.reshape(*found.shape[1:-2], self.outputs, images)


@dataclass(frozen=True, eq=False)
class Calls:
    """What :func:`bbans.portable.numba_product.evaluate` takes."""

    calls: tuple[Call, ...]
    """What the addresses point to lives as long as these."""
    steps: NDArray[np.int64]
    operands: NDArray[np.int64]

    @property
    def tiles(self) -> int:
        """Of the maps."""
        return len(self.calls[0].out.map.stored)

    def __call__(self, line: Line) -> None:
        numbers = (line.row, line.column, line.down, line.right, line.count)
        evaluate(self.steps, self.operands, numbers, self.tiles)


NOTHING = (0, 0, 0, 0, 0, 0)
"""An operand that is not there."""


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _stored(x: Stored) -> tuple[int, ...]:
    """The fields of :class:`bbans.portable.numba_product.Operand` for positions that are given."""
    tile, position, _, _ = x.strides
    return _address(x), tile, 0, 0, position, x.shape[2]


def _place(place: Place) -> tuple[int, ...]:
    """The fields of :class:`bbans.portable.numba_product.Operand` for a place beside each position of a line."""
    stored = place.map.stored
    if isinstance(place.map, Scratch):
        return _stored(stored)
    tile, down, right, _, _ = stored.strides
    margin, step = place.map.margin, place.step
    offset = (margin.above + place.run.row) * down + (margin.left + place.run.column) * right
    groups = place.run.width * stored.shape[3] if place.groups is None else place.groups
    return _address(stored) + offset, tile, step * down, step * right, 0, groups
