"""Log-probabilities that are the same on every machine: what optimal inference climbs, before anything is coded.

They come from tables whose entries are multiples of ``2**-LOG_PROB_FRACTION``, so that sums of them are exact in
float64, in whatever order they are added up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.portable.elementary import Floats

Floats32 = NDArray[np.float32]
Rows = NDArray[np.intp]
"""Which images."""

LOG_PROB_FRACTION = 16


class LogProb(Protocol):
    """Log p(x given z) of some images, as a function of a decoder's real outputs.

    It works in the same memory again and again: call it from one thread at a time.
    """

    def __call__(self, outputs: Floats32, rows: Rows | None = None, /) -> tuple[Floats, Callable[[], Floats32]]:
        """From outputs float32 ``(rows, outputs)`` for these of the images, or for all of them, to log p in nats,
        ``(rows,)``, and what computes its gradient with respect to the outputs, which is good until the next call.
        """


def multiples(values: Floats) -> Floats:
    """Values rounded to the nearest multiples of ``2**-LOG_PROB_FRACTION``."""
    rounded: Floats = np.ldexp(np.rint(np.ldexp(values, LOG_PROB_FRACTION)), -LOG_PROB_FRACTION)
    return rounded


def exact_sum(log_probabilities: Floats32) -> Floats:
    """The sum over pixels, float64 ``(images,)``, of such multiples, ``(images, pixels)``."""
    total: Floats = log_probabilities.sum(axis=1, dtype=np.float64)
    return total
