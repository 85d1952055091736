"""Storing through zstandard what no model codes better: as it is, or in planes (:mod:`bbans.planes`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from bbans import planes
from bbans.container import Method
from bbans.errors import FormatError
from bbans.fields import FieldReader, varint
from bbans.planes import Planes

LEVEL = 19
QUICK_LEVEL = 3
NEAR = 0.7
"""What is below this share of what the quick level makes is taken to be better than the full level too."""
CLEAR = 0.9
"""What the quick level makes less than this share of needs no comparison at the full level."""
QUICK_BYTES, QUICK_PARTS = 1 << 26, 16
"""Of rows with more bytes, the quick level gets so many parts, which are a quarter of all."""
SAMPLE_BYTES = 1 << 17
Stored = tuple[Method, bytes]
"""How rows are stored, and the payload."""


def store(rows: NDArray[Any]) -> Stored:
    """Rows in the way that zstandard makes least of."""
    found = _best(rows)
    plain = rows.tobytes()
    if found is None:
        return Method.ZSTANDARD, _frame(plain)
    split = planes.split(rows, found)
    quick_planes, quick_plain = _quick_size(split), _quick_size(plain)
    in_planes = varint(found.number) + _frame(split)
    if quick_planes >= CLEAR * quick_plain and len(frame := _frame(plain)) <= len(in_planes):
        return Method.ZSTANDARD, frame
    return Method.PLANES, in_planes


def quick_size(rows: NDArray[Any]) -> int:
    """About how many bytes :func:`store` makes of rows, at the quick level; of many, a part is looked at."""
    while len(rows) == 1 and rows.ndim > 1:
        rows = rows[0]
    if rows.nbytes > QUICK_BYTES and len(rows) >= 4 * QUICK_PARTS:
        length = len(rows) // (4 * QUICK_PARTS)
        starts = [len(rows) * part // QUICK_PARTS for part in range(QUICK_PARTS)]
        found = sum(quick_size(rows[start : start + length]) for start in starts)
        return found * len(rows) // (length * QUICK_PARTS)
    planar, plain = _best(rows), _quick_size(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
    return plain if planar is None else min(plain, _quick_size(planes.split(rows, planar)))


def stored_if_smaller(rows: NDArray[Any], size: int, thorough: bool) -> Stored | None:
    """What :func:`store` makes of rows, if it is less than ``size`` bytes, or else None.

    The quick level decides, unless the comparison is to be ``thorough``: then the full level does.
    """
    quick = quick_size(rows)
    if size < (NEAR * quick if thorough else quick):
        return None
    stored = store(rows)
    return stored if len(stored[1]) < size else None


def restore(stored: Stored, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The rows that :func:`store` was given.

    Raises :class:`bbans.errors.FormatError` if they are not that many, or damaged.
    """
    method, payload = stored
    length = math.prod(shape) * dtype.itemsize
    try:
        if method is Method.ZSTANDARD:
            return np.frombuffer(_unpacked(payload, length), dtype).reshape(shape)
        reader = FieldReader(payload)
        found = Planes.of(reader.varint(), dtype, len(shape))
        return planes.join(_unpacked(reader.rest(), length), found, dtype, shape)
    except ValueError as error:  # no elements, in a shape that is too large for NumPy
        raise FormatError(f"a stored chunk can't have the shape {shape}: {error}") from error


def _best(rows: NDArray[Any]) -> Planes | None:
    """The planes that the quick level makes least of for a part of the rows, or None for the elements as they are."""
    count = max(1, SAMPLE_BYTES // max(1, rows[:1].nbytes))
    start = max(0, len(rows) - count) // 2
    sample = rows[start : start + count]
    sizes: dict[Planes | None, int] = {None: _quick_size(sample.tobytes())}
    for found in planes.candidates(sample.dtype, sample.shape) if sample.size else ():
        sizes[found] = _quick_size(planes.split(sample, found))
    return min(sizes, key=lambda found: sizes[found])


def _frame(data: bytes) -> bytes:
    """A zstandard frame with the length and a checksum of the content."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def _quick_size(data: bytes | memoryview) -> int:
    return len(zstandard.ZstdCompressor(level=QUICK_LEVEL).compress(data))


def _unpacked(frame: bytes, length: int) -> bytes:
    try:
        if zstandard.frame_content_size(frame) != length:
            raise FormatError(f"a stored chunk should hold {length} bytes and says otherwise: the file is damaged")
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as error:
        raise FormatError(f"a stored chunk is damaged: {error}") from error
