"""Convolutions in integers: patches of a map, times integer matrices.

A library's convolution may be computed through Winograd's or Fourier's transform, which are not exact. Here a patch is
gathered and multiplied like any other input of a :class:`bbans.portable.network.Linear`, and so has the same proof.

A map is an array ``(channels, positions, images)``: images innermost, so that gathering a position copies a run, and
one product takes all positions and images as its columns. Positions go through the rows of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.network import FLOAT32_EXACT, Linear

Size = tuple[int, int]
"""Height and width."""
Offsets = tuple[tuple[int, int], ...]
"""Rows and columns from a position to others."""
KERNEL_MAXIMUM = 15


@dataclass(frozen=True)
class Line:
    """Positions at equal distances: ``(row + k * down, column + k * right)`` for each ``k`` below ``count``."""

    row: int
    column: int
    down: int
    right: int
    count: int

    @property
    def index(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Their rows and columns."""
        k = np.arange(self.count)
        return self.row + k * self.down, self.column + k * self.right


def rows_of(size: Size) -> list[Line]:
    """All positions of a map, row by row."""
    return [Line(row, 0, 0, 1, size[1]) for row in range(size[0])]


@dataclass(frozen=True, eq=False)
class Convolution:
    """A product over patches of ``kernel`` by ``kernel``, centred: channels of the input, then positions."""

    product: Linear
    kernel: int
    residual: bool = False
    """Whether what went into the layer before is added to the product, and both clipped to ``0 .. maximum`` again."""

    def __post_init__(self) -> None:
        if self.kernel % 2 != 1 or not 1 <= self.kernel <= KERNEL_MAXIMUM:
            raise ModelError(f"a kernel has an odd size up to {KERNEL_MAXIMUM}, got {self.kernel}")
        if self.product.weight.shape[1] % self.kernel**2:
            raise ModelError(
                f"{self.product.weight.shape[1]} weights an output are no whole channels of {self.kernel**2}"
            )

    @property
    def channels(self) -> int:
        """Of the input."""
        return int(self.product.weight.shape[1]) // self.kernel**2


@dataclass(frozen=True, eq=False)
class ConvolutionalNetwork:
    """Convolutions, one after the other, between maps whose sizes may halve or double.

    A position of a map that is half as high and wide lies at every second row and column of the larger one; a map that
    is twice as high and wide is first filled by repeating each position. Both round up, so that 7 is the half of 14 and
    of 13. Raises :class:`bbans.errors.ModelError` if the layers don't fit together or a sum could be inexact.
    """

    input_magnitude: int
    sizes: tuple[Size, ...]
    """Of the input and then of what each layer gives."""
    layers: tuple[Convolution, ...]

    def __post_init__(self) -> None:
        if not self.layers or len(self.sizes) != len(self.layers) + 1:
            raise ModelError("a convolutional network needs layers, and one size more than these")
        for before, after in zip(self.sizes, self.sizes[1:], strict=False):
            check_sizes(before, after)
        magnitudes = chain([self.input_magnitude], [layer.product for layer in self.layers])
        for index, (first, second) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if first.product.weight.shape[0] != second.channels:
                raise ModelError(
                    f"convolution {index + 1} takes {second.channels} channels, the one before gives "
                    f"{first.product.weight.shape[0]}"
                )
        for index, layer in enumerate(self.layers):
            if layer.residual:
                self._check_residual(index, magnitudes)

    def _check_residual(self, index: int, magnitudes: list[int]) -> None:
        """Raise unless a layer can add what went into the layer before: ``magnitudes`` are of what goes into each."""
        layer = self.layers[index]
        if (
            index < 1
            or self.sizes[index - 1] != self.sizes[index + 1]
            or self.layers[index - 1].channels != layer.product.weight.shape[0]
        ):
            raise ModelError(f"convolution {index} has nothing of its size before the layer before, to be added to it")
        if magnitudes[index - 1] + layer.product.output_magnitude > FLOAT32_EXACT or layer.product.maximum < 0:
            raise ModelError(f"convolution {index}: what it adds to could leave the integers that float32 holds")

    @property
    def inputs(self) -> int:
        """Channels of the input."""
        return self.layers[0].channels

    @property
    def outputs(self) -> int:
        """Channels of the result."""
        return int(self.layers[-1].product.weight.shape[0])

    @property
    def multiply_adds(self) -> int:
        """For an image."""
        sizes = zip(self.layers, self.sizes[1:], strict=True)
        return sum(layer.product.weight.size * math.prod(size) for layer, size in sizes)


def check_sizes(before: Size, after: Size) -> None:
    """Raise :class:`bbans.errors.ModelError` unless a layer can lead from one size to the other."""
    if before not in (after, halved(after)) and after != halved(before):
        raise ModelError(f"no convolution leads from a map of size {before} to one of {after}")


def halved(size: Size) -> Size:
    """Half of a size, rounded up."""
    return (-(-size[0] // 2), -(-size[1] // 2))


def chain(magnitudes: list[int], layers: list[Linear]) -> list[int]:
    """The largest magnitudes of what goes into layers that follow each other, and comes out of the last.

    Raises :class:`bbans.errors.ModelError` if a sum could be inexact.
    """
    for index, layer in enumerate(layers):
        layer.check(magnitudes[-1], f"layer {index}")
        magnitudes = [*magnitudes, layer.output_magnitude]
    return magnitudes


def patches(before: Size, after: Size, kernel: int) -> NDArray[np.intp]:
    """Where the patches of a convolution lie: :func:`places` for the offsets of a square of side ``kernel``."""
    reach = range(-(kernel // 2), kernel // 2 + 1)
    return places(before, after, tuple((row, column) for row in reach for column in reach))


def places(before: Size, after: Size, offsets: Offsets) -> NDArray[np.intp]:
    """For each offset, and each position of the map ``after``, a position of the map ``before``.

    Shape ``(offsets, height * width)``. A place outside is the position after the last, which holds zeros.

    >>> places((2, 3), (2, 3), ((0, -1),)).tolist()
    [[6, 0, 1, 6, 3, 4]]
    >>> places((1, 2), (2, 3), ((0, 0),)).tolist(), places((2, 3), (1, 2), ((0, 0),)).tolist()
    ([[0, 0, 1, 0, 0, 1]], [[0, 2]])
    """
    step, repeat = (2, 1) if after == halved(before) else (1, 1 if after == before else 2)
    if after == before:
        step = 1
    edge = after if repeat == 2 else before
    row, column = np.divmod(np.arange(math.prod(after)), after[1])
    moves = np.array(offsets, np.intp).reshape(-1, 2, 1)
    row, column = step * row + moves[:, 0], step * column + moves[:, 1]
    inside = (row >= 0) & (row < edge[0]) & (column >= 0) & (column < edge[1])
    return np.where(inside, row // repeat * before[1] + column // repeat, math.prod(before)).astype(np.intp)
