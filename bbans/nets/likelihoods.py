"""Likelihoods p(x given z) in floating point, as training sees them.

Each has an integer twin in :mod:`bbans.intervals` that reads the same decoder outputs; the two must agree on
what an output means, and the tests hold them to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Likelihood(Protocol):
    """A distribution of pixels given the decoder's outputs."""

    @property
    def name(self) -> str:
        """The name that recipes and model files use."""

    @property
    def symbols(self) -> int:
        """How many values a pixel can take."""

    @property
    def outputs_per_pixel(self) -> int:
        """How many decoder outputs each pixel needs."""

    def initial_bias(self) -> tuple[float, ...]:
        """Bias of each kind of output before training."""

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        """Log-probability (nats) of each pixel.

        ``outputs`` is float ``(images, outputs_per_pixel * pixels)``, all outputs of a kind together, and
        ``pixels`` is ``(images, pixels)`` with values ``0 .. symbols - 1``; the result has its shape.
        """

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        """Pixels drawn from the distribution, float ``(images, pixels)``."""


@dataclass(frozen=True)
class Bernoulli:
    """Binary pixels; the decoder's output is the logit of a one."""

    name: str = "bernoulli"
    symbols: int = 2
    outputs_per_pixel: int = 1

    def initial_bias(self) -> tuple[float, ...]:
        return (-2.0,)

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        return -functional.binary_cross_entropy_with_logits(outputs, pixels, reduction="none")

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        return (torch.rand(outputs.shape, generator=noise, device=noise.device) < torch.sigmoid(outputs)).float()


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Pixels of 256 grey levels: a logistic density integrated over each level's bin.

    The outputs are the mean, in units of 128 grey levels, and the natural logarithm of the scale in grey
    levels. The bins of level 0 and level 255 reach to infinity.
    """

    name: str = "discretized-logistic"
    symbols: int = 256
    outputs_per_pixel: int = 2

    def initial_bias(self) -> tuple[float, ...]:
        return (0.0, 2.0)

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        mean, log_scale = outputs.chunk(2, dim=1)
        inverse_scale = torch.exp(-log_scale.clamp(LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM))
        centred = pixels - 128.0 * mean
        above = (centred + 0.5) * inverse_scale
        below = (centred - 0.5) * inverse_scale
        # log(sigmoid(above) - sigmoid(below)) without cancellation: with d = above - below > 0 it is
        # log_sigmoid(above) + log_sigmoid(-below) + log(1 - exp(-d)).
        inside = functional.logsigmoid(above) + functional.logsigmoid(-below) + torch.log(-torch.expm1(-inverse_scale))
        inside = torch.where(pixels < 0.5, functional.logsigmoid(above), inside)
        return torch.where(pixels > 254.5, functional.logsigmoid(-below), inside)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        mean, log_scale = outputs.chunk(2, dim=1)
        uniform = torch.rand(mean.shape, generator=noise, device=noise.device).clamp(1e-6, 1 - 1e-6)
        scale = torch.exp(log_scale.clamp(LOG_SCALE_MINIMUM, LOG_SCALE_MAXIMUM))
        return (128.0 * mean + scale * torch.logit(uniform)).round().clamp(0, 255)


LOG_SCALE_MINIMUM = -4.0
LOG_SCALE_MAXIMUM = 8.0

_LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Bernoulli(),
    "discretized-logistic": DiscretizedLogistic(),
}


def likelihood_named(name: str) -> Likelihood:
    """The likelihood that a recipe calls ``name``; :class:`ValueError` for an unknown one."""
    try:
        return _LIKELIHOODS[name]
    except KeyError:
        known = ", ".join(sorted(_LIKELIHOODS))
        raise ValueError(f"unknown likelihood {name!r}; expected one of: {known}") from None
