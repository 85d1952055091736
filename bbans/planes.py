"""Elements as planes of bytes, or of differences between neighbours: what makes pictures and scans small for zstandard.

Differences are taken along some axes of an array, one axis after the other, and wrap around; elements count as unsigned
integers of their bytes, whatever they are, so that every bit comes back. They are taken either between whole
elements, or between the bytes of each plane by itself (better where all bytes are like pictures, as when 8 bits were
scaled to 16).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.errors import FormatError

KINDS = "biuf"
SIZES = (1, 2, 4, 8)
AXES_TRIED = 4


@dataclass(frozen=True)
class Planes:
    """How an array is made into planes."""

    axes: tuple[int, ...]
    """Along which differences are taken, counted from the last axis, which is 0, in ascending order..."""
    by_byte: bool
    """...between bytes, not between whole elements."""

    @property
    def number(self) -> int:
        """All of it in an integer: twice the sum of ``2**axis``, and one if by bytes."""
        return 2 * sum(1 << axis for axis in self.axes) + self.by_byte

    @staticmethod
    def of(number: int, dtype: np.dtype[Any], dimensions: int) -> Planes:
        """The inverse of :attr:`number`; :class:`bbans.errors.FormatError` if there is none for such arrays."""
        mask = number >> 1
        axes = tuple(axis for axis in range(dimensions) if mask >> axis & 1)
        found = Planes(axes, bool(number & 1))
        if not fits(dtype) or mask >> dimensions or (found.by_byte and (dtype.itemsize == 1 or not axes)):
            raise FormatError(f"a stored chunk has planes of kind {number}, which its array can't have")
        return found


def fits(dtype: np.dtype[Any]) -> bool:
    """Whether such elements can be made into planes."""
    return dtype.kind in KINDS and dtype.itemsize in SIZES


def candidates(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Planes]:
    """The ways that are worth trying: differences along any of the last axes that have more than one entry."""
    if not fits(dtype):
        return
    axes = [axis for axis, size in enumerate(reversed(shape)) if size > 1][:AXES_TRIED]
    for count in range(len(axes) + 1):
        for chosen in itertools.combinations(axes, count):
            if chosen or dtype.itemsize > 1:
                yield Planes(chosen, False)
            if chosen and dtype.itemsize > 1:
                yield Planes(chosen, True)


def split(array: NDArray[Any], planes: Planes) -> bytes:
    """The planes of an array, lowest byte first.

    >>> split(np.array([[0, 1, 2], [258, 259, 260]], "<u2"), Planes((0,), False)).hex(" ")
    '00 01 01 02 01 01 00 00 00 01 00 00'
    """
    values = _integers(array)
    if planes.by_byte:
        values = _bytes_first(values)
    for axis in planes.axes:
        found = values.copy()
        later, earlier = _neighbours(values.ndim, axis)
        found[later] -= values[earlier]
        values = found
    return (values if planes.by_byte else _bytes_first(values)).tobytes()


def join(data: bytes, planes: Planes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array that :func:`split` made ``data`` of."""
    little = np.dtype(f"<u{dtype.itemsize}")
    values: NDArray[Any] = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, *shape)
    if not planes.by_byte:
        values = _elements(values, little)
    elif planes.axes:
        values = values.copy()
    for axis in reversed(planes.axes):
        np.add.accumulate(values, axis=-1 - axis, dtype=values.dtype, out=values)
    if planes.by_byte:
        values = _elements(values, little)
    return values.astype(little.newbyteorder(dtype.byteorder)).view(dtype)


def _integers(array: NDArray[Any]) -> NDArray[Any]:
    """The elements as unsigned integers, the lowest byte first in memory."""
    order = array.dtype.byteorder
    integers = np.ascontiguousarray(array).view(np.dtype(f"u{array.dtype.itemsize}").newbyteorder(order))
    return integers.astype(f"<u{array.dtype.itemsize}")


def _bytes_first(values: NDArray[Any]) -> NDArray[np.uint8]:
    """From ``shape`` to ``(bytes, *shape)``."""
    split = np.ascontiguousarray(values)[..., None].view(np.uint8)
    return np.ascontiguousarray(np.moveaxis(split, -1, 0))


def _elements(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1)).view(dtype)[..., 0].copy()


def _neighbours(dimensions: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All entries but the first of an axis counted from the last one, and all but the last."""
    before = (slice(None),) * (dimensions - 1 - axis)
    after = (slice(None),) * axis
    return (*before, slice(1, None), *after), (*before, slice(-1), *after)
