"""K-step optimal inference (GG Algorithm 2): the encoder's posterior, moved up the ELBO of its own image.

The decoder has the image before it needs q, so it repeats the same K steps. For that every number here is the same
on every machine: the gradient runs backward through the frozen decoder in integers, the noise is a fixed table, and
the rest is float64 with correctly rounded operations only, each element for itself.

The optimizer is part of the format: Adam on (mean, log standard deviation), the mean in units of the deviation that it
starts from, with an antithetic pair of noise samples and a step size that falls linearly to a tenth. On the two MNIST
models it gets further in 5 steps than the paper's Adam (5e-3, one sample) in 10: ``benchmarks/steps.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

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
from bbans.portable import elementary
from bbans.portable.elementary import Floats
from bbans.portable.engine import Differentiate

STEPS_MAXIMUM = 1000

LikelihoodGradient = Callable[[NDArray[np.int64], Symbols], NDArray[np.int64]]
"""From decoder outputs and pixels ``(images, pixels)`` to the integer gradient of log p(x given z) with respect to the
outputs, of the outputs' shape."""


@dataclass(frozen=True)
class Optimizer:
    """How the steps are taken."""

    step_size: float = 0.1
    """Of the log standard deviation, and of the mean too if ``mean_step_size`` is 0."""
    mean_step_size: float = 1.0
    """Of the mean, in standard deviations of the posterior that the steps start from."""
    decay: float = 0.9
    """By how much of itself the step size has fallen at the last step."""
    samples: int = 2
    """Noise samples a step; the second half mirrors the first."""
    momentum: float = 0.6
    second_momentum: float = 0.95
    epsilon: float = 1e-8


PAPER = Optimizer(step_size=5e-3, mean_step_size=0.0, decay=0.0, samples=1, momentum=0.9, second_momentum=0.999)
"""What the paper does: Adam on one noise sample."""


@dataclass(frozen=True, eq=False)
class RefinedPosterior:
    """K steps on top of any posterior, for one decoder."""

    differentiate: Differentiate
    likelihood_gradient: LikelihoodGradient
    gradient_unit: float
    """What one unit of the integer gradient with respect to the decoder's inputs is worth, in nats an input unit."""
    input_magnitude: int
    steps: int
    optimizer: Optimizer = Optimizer()

    def __call__(self, outputs: NDArray[np.int64], x: Symbols) -> NDArray[np.int64]:
        """What an encoder puts out, int64 ``(images, 2 * latents)``, for images ``x`` int64 ``(images, pixels)``,
        after the steps.
        """
        mean, log_deviation = np.split(np.ldexp(outputs.astype(np.float64), -MEAN_FRACTION), 2, axis=1)
        refined = np.concatenate(self._climb(mean, log_deviation, x), axis=1)
        return np.rint(np.ldexp(refined, MEAN_FRACTION)).astype(np.int64)

    def _climb(self, mean: Floats, log_deviation: Floats, x: Symbols) -> tuple[Floats, Floats]:
        """Algorithm 2: Adam on the negative ELBO."""
        how = self.optimizer
        parameters = _limited(np.stack([mean, log_deviation]))
        sizes = np.full_like(parameters, how.step_size)
        if how.mean_step_size:
            sizes[0] = how.mean_step_size * elementary.exponential(parameters[1])
        first_moment, second_moment = np.zeros_like(parameters), np.zeros_like(parameters)
        first_weight = second_weight = 1.0
        for step in range(self.steps):
            gradient = self._gradient(parameters[0], parameters[1], x, step)
            first_moment = how.momentum * first_moment + (1.0 - how.momentum) * gradient
            second_moment = how.second_momentum * second_moment + (1.0 - how.second_momentum) * (gradient * gradient)
            first_weight, second_weight = first_weight * how.momentum, second_weight * how.second_momentum
            fallen = 1.0 - how.decay * ((step + 1) / self.steps)
            scaled = np.sqrt(second_moment / (1.0 - second_weight)) + how.epsilon
            parameters = _limited(parameters - fallen * sizes * ((first_moment / (1.0 - first_weight)) / scaled))
        return parameters[0], parameters[1]

    def _gradient(self, mean: Floats, log_deviation: Floats, x: Symbols, step: int) -> Floats:
        """The gradient of the negative ELBO with respect to mean and log standard deviation, stacked."""
        deviation = elementary.exponential(log_deviation)
        noise = noise_table(mean.shape[1], self.optimizer.samples)[step]
        through_mean, through_deviation = np.zeros_like(mean), np.zeros_like(mean)
        for sample in noise:
            z = np.rint(np.ldexp(mean + deviation * sample, CENTRE_FRACTION)).astype(np.int64)
            z = np.minimum(np.maximum(z, -self.input_magnitude), self.input_magnitude)
            integers = self.differentiate(z, lambda outputs, part: self.likelihood_gradient(outputs, x[part]))
            uphill = integers.astype(np.float64) * self.gradient_unit
            through_mean = through_mean + uphill
            through_deviation = through_deviation + uphill * sample
        share = 1.0 / len(noise)
        return np.stack(
            [
                mean - share * through_mean,
                deviation * deviation - 1.0 - share * (through_deviation * deviation),
            ]
        )


def _limited(parameters: Floats) -> Floats:
    """Stacked means and logs of standard deviations within what coding knows."""
    mean, log_deviation = parameters
    return np.stack(
        [
            np.minimum(np.maximum(mean, -MEAN_MAXIMUM), MEAN_MAXIMUM),
            np.minimum(np.maximum(log_deviation, LOG_DEVIATION_MINIMUM), LOG_DEVIATION_MAXIMUM),
        ]
    )


@cache
def noise_table(latents: int, samples: int) -> Floats:
    """Standard normal noise for every step, ``(STEPS_MAXIMUM, samples, latents)``: quantiles of a fixed sequence."""
    drawn = (samples + 1) // 2
    count = STEPS_MAXIMUM * drawn * latents
    words = np.frombuffer(hashlib.shake_128(b"bbans noise").digest(2 * count), "<u2").astype(np.float64)
    normal = elementary.normal_quantile((words + 0.5) / 65536.0).reshape(STEPS_MAXIMUM, drawn, latents)
    table = np.concatenate([normal, -normal], axis=1)[:, :samples].copy()
    table.flags.writeable = False
    return table
