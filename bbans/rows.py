"""Rows that may lie anywhere: an array, or what reads parts of one from files when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ArrayError
from bbans.symbols import NUMERIC_KINDS, check_numeric

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Rows(Protocol):
    """An array with at least one axis, read by slices of the first one.

    Arrays of NumPy are, and arrays of zarr; :class:`bbans.integrations.dask.NpyFiles` is.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, part: Any, /) -> Any: ...


class Spread(Protocol):
    """``map`` that keeps the order and may do its work elsewhere: in threads, or in other processes.

    For other processes functions and arguments must be what pickle takes.
    """

    def __call__(self, function: Callable[[Argument], Result], arguments: list[Argument], /) -> Iterator[Result]: ...


def check_rows(rows: Rows) -> None:
    """Raise :class:`bbans.errors.ArrayError` unless ``rows`` hold plain numbers and have a first axis."""
    if isinstance(rows, np.ndarray):
        check_numeric(rows)
    if rows.dtype.kind not in NUMERIC_KINDS or not rows.shape:
        raise ArrayError(f"expected rows of plain numbers, got an array of {rows.dtype} and shape {rows.shape}")


def block_of(rows: Rows, part: slice) -> NDArray[Any]:
    """Some rows as an array in memory."""
    block: NDArray[Any] = np.asarray(rows[part])
    return block


def sample_of(rows: Rows, pixels: int, count: int) -> NDArray[Any]:
    """At most ``count`` images of so many pixels from all over the rows, ``(images, pixels)``.

    >>> sample_of(np.arange(20).reshape(5, 2, 2), pixels=2, count=3).tolist()
    [[0, 1], [6, 7], [12, 13]]
    """
    row_pixels = math.prod(rows.shape[1:])
    if row_pixels < pixels:  # all rows together are one image
        return block_of(rows, slice(None)).reshape(1, pixels)
    in_row = row_pixels // pixels
    images = rows.shape[0] * in_row
    chosen = range(0, images, max(1, images // count))[:count]
    return np.stack(
        [block_of(rows, slice(i // in_row, i // in_row + 1)).reshape(in_row, pixels)[i % in_row] for i in chosen]
    )
