"""Memory for results that don't outlive the next."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Memory(threading.local):
    """Of each thread, used again and again: fresh memory costs as much as what is computed in it."""

    def __init__(self) -> None:
        self._arrays: dict[int, NDArray[Any]] = {}

    def take(self, key: int, shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
        """An array, not initialized, that is good until the next one is taken with the same key."""
        size = math.prod(shape)
        array = self._arrays.get(key)
        if array is None or len(array) < size:
            array = self._arrays[key] = np.empty(size, kind)
        return array[:size].reshape(shape)
