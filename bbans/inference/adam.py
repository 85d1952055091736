"""K steps as the GG paper takes them: Adam on mean and log standard deviation, with one noise sample a step.

Files are written with :func:`bbans.inference.refined.natural_gradient`; this is what it is measured against.
"""

from __future__ import annotations

import numpy as np

from bbans.inference.refined import Look, limited_log_deviation, limited_mean
from bbans.portable import elementary
from bbans.portable.elementary import Floats

STEP_SIZE = 5e-3
MOMENTUM, SECOND_MOMENTUM = 0.9, 0.999
EPSILON = 1e-8
SEED = 0


def adam(look: Look, mean: Floats, log_deviation: Floats, steps: int) -> tuple[Floats, Floats]:
    """A :data:`bbans.inference.refined.Climb`; every image sees the same noise."""
    noise = np.random.default_rng(SEED)
    parameters = np.stack([mean, log_deviation])
    first_moment, second_moment = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, steps + 1):
        gradient = _downhill(look, parameters[0], parameters[1], noise.standard_normal(mean.shape[1:]))
        first_moment = MOMENTUM * first_moment + (1 - MOMENTUM) * gradient
        second_moment = SECOND_MOMENTUM * second_moment + (1 - SECOND_MOMENTUM) * gradient**2
        scaled = np.sqrt(second_moment / (1 - SECOND_MOMENTUM**step)) + EPSILON
        parameters = parameters - STEP_SIZE * (first_moment / (1 - MOMENTUM**step)) / scaled
        parameters = np.stack([limited_mean(parameters[0]), limited_log_deviation(parameters[1])])
    return parameters[0], parameters[1]


def _downhill(look: Look, mean: Floats, log_deviation: Floats, noise: Floats) -> Floats:
    """The gradient of the negative one-sample ELBO with respect to mean and log standard deviation, stacked."""
    deviation = elementary.exponential(log_deviation)
    uphill = look(mean + deviation * noise, np.arange(len(mean))).slope(slice(None))
    return np.stack([mean - uphill, deviation**2 - 1 - uphill * noise * deviation])
