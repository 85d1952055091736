"""Integer networks over maps in compiled code: 16-bit integers, summed up in 32 bits.

What it can't do it leaves to NumPy: other networks than convolutions and contexts, and layers that the proof doesn't
allow (:func:`fits`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.portable.convolution import Line
from bbans.portable.engine import Call, Engine, Evaluate, Linearize, Product, Sums
from bbans.portable.layout import Place, Scratch, Stored, Values, cut
from bbans.portable.memory import Memory
from bbans.portable.network import Linear, Network
from bbans.portable.numba_product import OUTPUTS, TILE, evaluate, pack, unpack, write
from bbans.portable.numpy_engine import NumpyEngine

SHORT_MAXIMUM = (1 << 15) - 1
SUM_MAXIMUM = (1 << 31) - 1
BLOCK_COLUMNS = 4096
"""As :data:`bbans.portable.layout.BLOCK_COLUMNS`."""


@dataclass(frozen=True)
class PairLayout:
    """Tiles of :data:`TILE` images, the last one filled up, and a group of int32 for each two channels of a position:
    the first in the lower 16 bits.
    """

    def groups(self, channels: int) -> int:
        return -(-channels // 2)

    def store(self, values: Values) -> Stored:
        rows, columns, channels, images = values.shape
        stored = np.zeros((-(-images // TILE), rows, columns, self.groups(channels), TILE), np.int32)
        pack(values, stored)
        return stored

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        write(values, stored, channel)

    def blocks(self, images: int, positions: int) -> list[slice]:
        return cut(images, max(1, BLOCK_COLUMNS // positions // TILE) * TILE)


@dataclass(frozen=True)
class NumbaEngine:
    """An :class:`bbans.portable.engine.Engine`."""

    name: str = "numba"
    layout: PairLayout = PairLayout()

    def load(self, network: Network) -> Evaluate:
        return NumpyEngine().load(network)

    def suited(self, layers: Sequence[tuple[Linear, int]]) -> Engine:
        return self if all(fits(layer, magnitude) for layer, magnitude in layers) else NumpyEngine()

    def load_product(
        self, layer: Linear, input_magnitude: int, channels: Sequence[int], added_maximum: int = 0
    ) -> Product:
        blocks = -(-len(layer.weight) // OUTPUTS)
        weight = np.zeros((blocks * OUTPUTS, sum(map(self.layout.groups, channels)), 2), np.int16)
        bias = np.zeros(blocks * OUTPUTS, np.int32)
        bias[: len(layer.bias)] = layer.bias
        first = place = 0
        for width in channels:
            groups = self.layout.groups(width)
            part = np.zeros((len(layer.weight), 2 * groups), np.int16)
            part[:, :width] = layer.weight[:, first : first + width]
            weight[: len(part), place : place + groups] = part.reshape(len(part), groups, 2)
            first, place = first + width, place + groups
        pairs = weight.astype("<i2").view("<i4").astype(np.int32)[:, :, 0]
        return _Product(
            np.ascontiguousarray(pairs.reshape(blocks, OUTPUTS, -1).swapaxes(1, 2)),
            bias,
            layer.shift,
            np.array([layer.minimum, layer.maximum], np.int32),
            np.array([0, added_maximum], np.int32),
            len(layer.weight),
            layer.output_magnitude > SHORT_MAXIMUM,
            Memory(),
        )

    def load_calls(self, calls: Sequence[Call]) -> Callable[[Line], None]:
        steps, operands = [], []
        for call in calls:
            assert isinstance(call.product, _Product)
            steps.append(call.product.step(len(call.parts), call.added is not None))
            operands += [_place(call.out), NOTHING if call.added is None else _place(call.added)]
            operands += map(_place, call.parts)
        return _Calls(tuple(calls), np.array(steps, np.int64), np.array(operands, np.int64))

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        return NumpyEngine().load_sums(weight, input_magnitude)

    def load_gradient(self, network: Network) -> Linearize:
        return NumpyEngine().load_gradient(network)


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

    def step(self, parts: int, added: bool) -> list[int]:
        """The fields of :class:`bbans.portable.numba_product.Step`."""
        limits = self.added_limits if added else self.limits
        arrays = [_address(array) for array in (self.weight, self.bias, self.limits, limits)]
        return [*arrays, self.shift, self.weight.shape[1], self.outputs, self.wide, parts + 2]

    def __call__(self, parts: Sequence[Stored], added: Stored | None = None, out: Stored | None = None) -> Stored:
        tiles, positions = parts[0].shape[:2]
        if out is None:
            out = self.memory.take(0, (tiles, positions, self.groups, TILE), np.int32)
        operands = [_stored(out), NOTHING if added is None else _stored(added), *map(_stored, parts)]
        step = np.array([self.step(len(parts), added is not None)], np.int64)
        evaluate(step, np.array(operands, np.int64), (0, 0, 0, 0, positions), tiles)
        return out

    def read(self, found: Stored, images: int) -> Values:
        positions = found.reshape(len(found), -1, *found.shape[-2:])
        values = np.empty((positions.shape[1], self.outputs, images), np.float32)
        unpack(positions, values, self.wide)
        return values.reshape(*found.shape[1:-2], self.outputs, images)


@dataclass(frozen=True, eq=False)
class _Calls:
    """What :func:`bbans.portable.numba_product.evaluate` takes."""

    calls: tuple[Call, ...]
    """What the addresses point to lives as long as these."""
    steps: NDArray[np.int64]
    operands: NDArray[np.int64]

    def __call__(self, line: Line) -> None:
        tiles = len(self.calls[0].out.map.stored)
        evaluate(self.steps, self.operands, (line.row, line.column, line.down, line.right, line.count), tiles)


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
    offset = (place.map.above + place.run.row) * down + (place.map.left + place.run.column) * right
    groups = place.run.width * stored.shape[3] if place.groups is None else place.groups
    return _address(stored) + offset, tile, down, right, 0, groups
