"""Elementary functions with the same result on every machine.

The exponentials of different libraries, and of one library on different processors, differ in the last bits. These
functions use only ``+``, ``-``, ``*``, ``/``, rounding to an integer and scaling by powers of two, each a
separate operation on float64 arrays; IEEE 754 fixes the result of every one of them. They make the tables
that coding looks its numbers up in, so they need not be fast. Accuracy is about 1e-15, which the tests hold
against Python's ``math``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INVERSE_LOG_2 = 1.4426950408889634
LOG_2_HIGH = 6.93147180369123816490e-01
LOG_2_LOW = 1.90821492927058770002e-10
"""log(2) in two parts; the first has so few bits that its product with a small integer is exact."""

SQRT_HALF = 0.7071067811865476
INVERSE_SQRT_2_PI = 0.3989422804014327


def exponential(x: Floats) -> Floats:
    """exp(x) for ``-700 <= x <= 700``."""
    power = np.rint(x * INVERSE_LOG_2)
    reduced = (x - power * LOG_2_HIGH) - power * LOG_2_LOW
    total = np.ones_like(reduced)
    for order in range(14, 0, -1):
        total = 1.0 + total * reduced / order
    return np.ldexp(total, power.astype(np.int64))


def logarithm(x: Floats) -> Floats:
    """log(x) for positive numbers that are not subnormal: ``log(r)`` is ``2 artanh((r - 1) / (r + 1))``."""
    reduced, power = np.frexp(x)
    small = reduced < SQRT_HALF
    reduced, power = np.where(small, 2.0 * reduced, reduced), np.where(small, power - 1, power).astype(np.float64)
    ratio = (reduced - 1.0) / (reduced + 1.0)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    for order in range(23, 0, -2):
        total = total * square + 1.0 / order
    return power * LOG_2_HIGH + (power * LOG_2_LOW + 2.0 * (ratio * total))


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exponential(-x))


def normal_density(x: Floats) -> Floats:
    """The density of the standard normal distribution."""
    return INVERSE_SQRT_2_PI * exponential(-0.5 * (x * x))


def normal_cdf(x: Floats) -> Floats:
    """The distribution function of the standard normal distribution, with an absolute error below 1e-15.

    The series of G. Marsaglia, "Evaluating the normal distribution" (2004), equation 1: all its terms have one
    sign, so nothing cancels.
    """
    x = np.clip(x, -8.5, 8.5)
    square = x * x
    term = x
    total = x
    for order in range(3, 260, 2):
        term = term * square / order
        total = total + term
    return 0.5 + normal_density(x) * total


def normal_quantile(probability: Floats) -> Floats:
    """The inverse of :func:`normal_cdf`, for probabilities in ``[1e-8, 1 - 1e-8]``."""
    grid = np.arange(-6 * 256, 6 * 256 + 1) / 256.0
    values = normal_cdf(grid)
    place = np.clip(np.searchsorted(values, probability) - 1, 0, len(grid) - 2)
    x = grid[place] + (probability - values[place]) / (values[place + 1] - values[place]) / 256.0
    for _ in range(4):  # Newton's steps
        x = x - (normal_cdf(x) - probability) / normal_density(x)
    return x
