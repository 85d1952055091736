"""K-step optimal inference (GG Algorithm 2): the encoder's posterior, moved up the ELBO of its own image.

The decoder has the image before it needs q, so it repeats the same K steps. For that every number here is the same
on every machine: the gradient runs backward through the frozen decoder by the rules of :mod:`bbans.portable.descent`,
and the rest is float64 with correctly rounded operations only, each element for itself.

How the steps are taken is part of the format: :func:`natural_gradient`. The paper's way, :mod:`bbans.inference.adam`,
is here to be measured against: ``benchmarks/steps.py``. The paper moves the standard deviations too; with the mean in
place that gains less than a thousandth of a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Symbols
from bbans.intervals.gaussian import (
    CENTRE_FRACTION,
    LOG_DEVIATION_MAXIMUM,
    LOG_DEVIATION_MINIMUM,
    MEAN_FRACTION,
    MEAN_MAXIMUM,
)
from bbans.parallel import map_in_order
from bbans.portable import elementary
from bbans.portable.descent import Floats32
from bbans.portable.elementary import Floats
from bbans.portable.engine import Cotangent, Differentiate

STEPS_MAXIMUM = 1000
BLOCK_MINIMUM, BLOCK_MAXIMUM = 32, 256
"""Images that climb together: enough for the matrix products, few enough to stay in cache."""

LogProbGradient = Callable[[Floats32], Cotangent]
"""For pixels ``(images, pixels)``: from real decoder outputs to the gradient of log p(x given z) with respect to them,
in nats."""
Slope = Callable[[Floats], Floats]
"""From latents ``(images, latents)`` to the gradient of log p(x given z) with respect to them, in nats."""
Climb = Callable[[Slope, Floats, Floats, int], tuple[Floats, Floats]]
"""From the slope, mean and log standard deviation ``(images, latents)`` and K to mean and log standard deviation."""

FIRST_SIZE, LAST_SIZE = 0.5, 0.25
"""The size of the steps falls linearly."""
MOMENTUM = 0.4
STEP_MAXIMUM = 2.0
"""In standard deviations."""


def natural_gradient(slope: Slope, mean: Floats, log_deviation: Floats, steps: int) -> tuple[Floats, Floats]:
    """Steps up log p(x, z), from the mean, in units of the posterior that the encoder gave; its deviation stays.

    The natural gradient of the mean of a Gaussian is the gradient times its variance: where the encoder knows how
    narrow the posterior is, it also knows how far to go.
    """
    deviation = elementary.exponential(log_deviation)
    velocity = np.zeros_like(mean)
    for step in range(steps):
        size = FIRST_SIZE + (LAST_SIZE - FIRST_SIZE) * (step / max(1, steps - 1))
        uphill = size * (deviation * (slope(mean) - mean))
        velocity = MOMENTUM * velocity + np.minimum(np.maximum(uphill, -STEP_MAXIMUM), STEP_MAXIMUM)
        mean = limited_mean(mean + deviation * velocity)
    return mean, log_deviation


@dataclass(frozen=True, eq=False)
class RefinedPosterior:
    """K steps on top of any posterior, for one decoder."""

    differentiate: Differentiate
    log_prob_gradient: LogProbGradient
    input_magnitude: int
    steps: int
    climb: Climb = natural_gradient
    threads: int = 1
    """How many blocks of images climb at once."""

    def __call__(self, outputs: NDArray[np.int64], x: Symbols) -> NDArray[np.int64]:
        """What an encoder puts out, int64 ``(images, 2 * latents)``, for images ``x`` int64 ``(images, pixels)``,
        after the steps.
        """
        size = min(BLOCK_MAXIMUM, max(BLOCK_MINIMUM, math.ceil(len(x) / self.threads)))
        blocks = [slice(first, first + size) for first in range(0, len(x), size)]
        if len(blocks) == 1:
            return self._block(outputs, x)
        return np.concatenate(
            list(map_in_order(lambda part: self._block(outputs[part], x[part]), blocks, self.threads))
        )

    def _block(self, outputs: NDArray[np.int64], x: Symbols) -> NDArray[np.int64]:
        mean, log_deviation = np.split(np.ldexp(outputs.astype(np.float64), -MEAN_FRACTION), 2, axis=1)
        log_prob_gradient = self.log_prob_gradient(x.astype(np.float32))

        def slope(z: Floats) -> Floats:
            centre = np.rint(np.ldexp(z, CENTRE_FRACTION)).astype(np.int64)
            centre = np.minimum(np.maximum(centre, -self.input_magnitude), self.input_magnitude)
            scaled: Floats = np.ldexp(self.differentiate(centre, log_prob_gradient), CENTRE_FRACTION)
            return scaled

        refined = self.climb(slope, limited_mean(mean), limited_log_deviation(log_deviation), self.steps)
        return np.rint(np.ldexp(np.concatenate(refined, axis=1), MEAN_FRACTION)).astype(np.int64)


def limited_mean(mean: Floats) -> Floats:
    """Means within what coding knows."""
    return np.minimum(np.maximum(mean, -MEAN_MAXIMUM), MEAN_MAXIMUM)


def limited_log_deviation(log_deviation: Floats) -> Floats:
    """Logs of standard deviations within what coding knows."""
    return np.minimum(np.maximum(log_deviation, LOG_DEVIATION_MINIMUM), LOG_DEVIATION_MAXIMUM)
