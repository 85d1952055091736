"""One timed way through a codec and back, verified."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from bbans.errors import BenchmarkError


@dataclass(frozen=True)
class RoundTrip:
    """What a codec made of an array, and how long it took each way."""

    files: list[bytes]
    encode_seconds: float
    decode_seconds: float

    @property
    def size(self) -> int:
        """Bytes of all the files."""
        return sum(map(len, self.files))


def round_trip(
    array: NDArray[Any],
    encode: Callable[[NDArray[Any]], list[bytes]],
    decode: Callable[[list[bytes]], NDArray[Any]],
) -> RoundTrip:
    """Encode ``array`` to files and decode these.

    Raises :class:`bbans.errors.BenchmarkError` unless every byte comes back.

    >>> import numpy as np
    >>> array = np.arange(4, dtype=np.uint8)
    >>> round_trip(array, lambda a: [a.tobytes()], lambda files: np.frombuffer(files[0], np.uint8)).size
    4
    """
    start = time.perf_counter()
    files = encode(array)
    middle = time.perf_counter()
    decoded = decode(files)
    end = time.perf_counter()
    if (decoded.dtype, decoded.shape) != (array.dtype, array.shape) or decoded.tobytes() != array.tobytes():
        raise BenchmarkError("what it wrote does not decode to what it was given")
    return RoundTrip(files, middle - start, end - middle)
