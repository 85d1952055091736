"""Binary pixels, given the logit of a one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Integers, Symbols
from bbans.intervals.log_prob import Floats32, LogProb, Rows, exact_sum, multiples
from bbans.portable import elementary
from bbans.portable.elementary import Floats

Signed = NDArray[np.int64]

PRECISION = 20
TOTAL = np.uint64(1 << PRECISION)
LOGIT_FRACTION = 16
"""Logits come as multiples of ``2**-LOGIT_FRACTION``..."""
STEP_BITS = 6
"""...and are rounded to multiples of ``2**-STEP_BITS``..."""
LOGIT_MAXIMUM = 16
"""...between ``-LOGIT_MAXIMUM`` and ``LOGIT_MAXIMUM``."""


@cache
def frequencies_of_one() -> Integers:
    """The frequency of a one for each rounded logit."""
    steps = LOGIT_MAXIMUM << STEP_BITS
    logits = np.arange(-steps, steps + 1) / float(1 << STEP_BITS)
    frequency = np.rint(elementary.logistic(logits) * (1 << PRECISION))
    table = np.clip(frequency, 1, (1 << PRECISION) - 1).astype(np.uint64)
    table.flags.writeable = False
    return table


@cache
def _probabilities() -> tuple[Floats32, Floats32]:
    """The probability of what a rounded logit is for, and its logarithm."""
    probability = frequencies_of_one() / float(1 << PRECISION)
    log_prob = multiples(elementary.logarithm(probability))
    tables = probability.astype(np.float32), log_prob.astype(np.float32)
    for table in tables:
        table.flags.writeable = False
    return tables


def log_prob(x: Floats32) -> LogProb:
    """Log p(x) as a function of real logits, each ``(images, pixels)``; ``x`` holds pixels 0.0 and 1.0."""
    probabilities, log_probabilities = _probabilities()
    sign = x + x - np.float32(1)
    unit = sign * np.float32(1 << STEP_BITS)
    centre = np.float32(LOGIT_MAXIMUM << STEP_BITS) + np.float32(0.5)

    def at(logits: Floats32, rows: Rows | None = None) -> tuple[Floats, Callable[[], Floats32]]:
        place = (logits * (unit if rows is None else unit[rows]) + centre).astype(np.intp)

        def gradient() -> Floats32:
            probability = np.take(probabilities, place, mode="clip")
            result: Floats32 = (np.float32(1) - probability) * (sign if rows is None else sign[rows])
            return result

        return exact_sum(np.take(log_probabilities, place, mode="clip")), gradient

    return at


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """One Bernoulli distribution for each entry of ``frequency_of_one``, uint64 ``(n,)``."""

    frequency_of_one: Integers
    precision: int = PRECISION

    @staticmethod
    def from_logits(logits: NDArray[np.int64]) -> Bernoulli:
        """From decoder outputs: logits times ``2**16``, int64 ``(n,)``."""
        dropped = LOGIT_FRACTION - STEP_BITS
        rounded = (logits + (1 << (dropped - 1))) >> dropped
        steps = LOGIT_MAXIMUM << STEP_BITS
        return Bernoulli(frequencies_of_one()[np.minimum(np.maximum(rounded, -steps), steps) + steps])

    def __len__(self) -> int:
        return len(self.frequency_of_one)

    def __getitem__(self, block: slice) -> Bernoulli:
        return Bernoulli(self.frequency_of_one[block])

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        return self._interval(symbols != 0)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        one = values >= TOTAL - self.frequency_of_one
        return (one.astype(np.int64), *self._interval(one))

    def _interval(self, one: NDArray[np.bool_]) -> tuple[Integers, Integers]:
        """Zeros come first: ``[0, total - f)``, then ones."""
        zero_frequency = TOTAL - self.frequency_of_one
        return np.where(one, zero_frequency, np.uint64(0)), np.where(one, self.frequency_of_one, zero_frequency)
