"""Arrays as a model sees them: rows of images, each pixel a symbol.

An array fits a model if it is made of images of the model's shape, and its elements are exactly ``scale`` times
a symbol, bit for bit, in whatever type they come: binary images may be bool, {0, 1} or {0, 255}, in integers or
in floating point.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ArrayError
from bbans.intervals.distribution import Symbols

REAL_KINDS = "biuf"
NUMERIC_KINDS = REAL_KINDS + "c"
BLOCK_ELEMENTS = 1 << 22


class SupportsDLPack(Protocol):
    """An array of another library that shares its memory, such as a tensor."""

    def __dlpack__(self) -> Any: ...

    def __dlpack_device__(self) -> Any: ...


def numeric_array(array: NDArray[Any] | SupportsDLPack) -> NDArray[Any]:
    """``array`` as a NumPy array without a copy, which may be another library's array in the machine's memory.

    Raises :class:`bbans.errors.ArrayError` unless it holds plain numbers.
    """
    if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__"):
        try:
            array = np.from_dlpack(cast(Any, array))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise ArrayError(
                f"a {type(array).__name__} must lie in the machine's memory, detached from any graph, in a type that "
                f"NumPy has (such as tensor.detach().cpu()): {error}"
            ) from error
    check_numeric(array)
    assert isinstance(array, np.ndarray)
    return array


def check_numeric(array: object) -> None:
    """Raise :class:`bbans.errors.ArrayError` unless ``array`` is a NumPy array that holds plain numbers."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMERIC_KINDS:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ArrayError(f"expected a NumPy array of booleans, integers, floats or complex numbers, got {found}")


def count_images(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> int | None:
    """How many images of ``image_shape`` an array holds, or None if it isn't made of such images or they have no size.

    Axes of length 1 in an image don't matter, and an image may be flattened.

    >>> count_images((100, 28, 28), (28, 28)), count_images((100, 784), (28, 28)), count_images((28, 28, 1), (28, 28))
    (100, 100, 1)
    >>> count_images((100, 32, 32), (28, 28)) is None
    True
    """
    pixels = math.prod(image_shape)
    wanted = [size for size in image_shape if size != 1]
    for leading in range(len(shape)) if pixels else ():
        image = shape[leading:]
        if math.prod(image) == pixels and (len(image) == 1 or [size for size in image if size != 1] == wanted):
            return math.prod(shape[:leading])
    return None


def find_scale(array: NDArray[Any], symbols: int) -> int | None:
    """The ``scale`` with which every element is ``scale`` times a symbol below ``symbols``, or None."""
    scales = fitting_scales(array, symbols)
    return scales[0] if scales else None


def fitting_scales(array: NDArray[Any], symbols: int) -> list[int]:
    """All scales that do what :func:`find_scale` says, the best first: where there are several, any will do."""
    if array.dtype.kind == "c":
        return []
    scales = [1, 255] if symbols == 2 else [1]
    flat = array.reshape(-1)
    for first in range(0, flat.size, BLOCK_ELEMENTS):
        block = np.ascontiguousarray(flat[first : first + BLOCK_ELEMENTS])
        scales = [scale for scale in scales if _fits(block, symbols, scale)]
        if not scales:
            break
    return scales


def to_symbols(array: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Elements divided by ``scale``, for an array that :func:`find_scale` gave it for: perhaps the array itself."""
    if scale == 1 and array.dtype == np.uint8:
        return array
    with np.errstate(invalid="ignore"):
        return array.astype(np.uint8) // np.uint8(scale)


def from_symbols(symbols: Symbols | NDArray[np.uint8], scale: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The inverse of :func:`to_symbols`."""
    if scale == 1 and symbols.dtype == dtype == np.uint8:
        return symbols
    return (symbols.astype(np.uint8) * np.uint8(scale)).astype(dtype)


def _fits(block: NDArray[Any], symbols: int, scale: int) -> bool:
    found = to_symbols(block, scale)
    same = from_symbols(found, scale, block.dtype)
    # Compared as bytes: -0.0 equals 0.0, and would come back as it.
    return bool(found.max() < symbols) and same.tobytes() == block.tobytes()
