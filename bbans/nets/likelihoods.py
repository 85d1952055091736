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

    @property
    def mean_outputs(self) -> slice:
        """Which kinds of outputs are means of a pixel's value, in the units of :class:`DiscretizedLogistic`."""

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

    @property
    def mean_outputs(self) -> slice:
        return slice(0, 0)

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

    @property
    def mean_outputs(self) -> slice:
        return slice(0, 1)

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


@dataclass(frozen=True)
class ChannelLinearLogistic:
    """Colour pixels: discretized logistics, whose mean depends linearly on the channels before in the same pixel.

    The outputs are means and logs of scales, as those of :class:`DiscretizedLogistic`, and coefficients, each kind for
    red, green and blue in turn. By how much a channel is above its mean is expected of a later one too, times a
    coefficient: that of green on red, of blue on red, and of blue on green. Pixels come channel by channel, ``(images,
    3 * positions)``.

    Source: T. Salimans et al., "PixelCNN++" (2017), with one component, and means of a position before it sees any
    channel in place of values around 0.
    """

    name: str = "channel-linear-logistic"
    symbols: int = 256
    outputs_per_pixel: int = 3

    @property
    def mean_outputs(self) -> slice:
        return slice(0, 1)

    def initial_bias(self) -> tuple[float, ...]:
        return (0.0, 2.5, 0.5)

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        means, log_scales, coefficients = self._parts(outputs)
        x = pixels.reshape(means.shape)
        shifted = self._shifted(means, coefficients, x / 128.0 - means)
        log_scale = log_scales.flatten(1)
        return DiscretizedLogistic().log_prob(torch.cat([shifted.flatten(1), log_scale], dim=1), pixels)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        means, log_scales, coefficients = self._parts(outputs)
        x = torch.zeros_like(means)
        for channel in range(means.shape[1]):
            shifted = self._shifted(means, coefficients, x / 128.0 - means)[:, channel]
            parameters = torch.cat([shifted, log_scales[:, channel]], dim=1)
            x[:, channel] = DiscretizedLogistic().sample(parameters, noise)
        return x.flatten(1)

    @staticmethod
    def _parts(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, logs of scales and coefficients, each ``(images, 3, positions)``."""
        kinds = outputs.reshape(len(outputs), 3, 3, -1)
        return kinds[:, 0], kinds[:, 1], kinds[:, 2]

    @staticmethod
    def _shifted(means: Tensor, coefficients: Tensor, above: Tensor) -> Tensor:
        """Means that see by how much earlier channels are above theirs."""
        green = means[:, 1] + coefficients[:, 0] * above[:, 0]
        blue = means[:, 2] + coefficients[:, 1] * above[:, 0] + coefficients[:, 2] * above[:, 1]
        return torch.stack([means[:, 0], green, blue], dim=1)


@dataclass(frozen=True)
class LogisticMixture:
    """Pixels of 256 grey levels: several discretized logistics, and levels that have a probability of their own.

    The outputs are the log-weights of the point masses and of the components (of which a softmax is taken), the means,
    and the logs of the scales of the components, as those of :class:`DiscretizedLogistic`.
    """

    components: int
    masses: tuple[int, ...]
    """The levels that have a point mass."""
    name: str = "logistic-mixture"
    symbols: int = 256

    @property
    def outputs_per_pixel(self) -> int:
        return len(self.masses) + 3 * self.components

    @property
    def mean_outputs(self) -> slice:
        first = len(self.masses) + self.components
        return slice(first, first + self.components)

    def initial_bias(self) -> tuple[float, ...]:
        spread = [0.6 * (2 * index + 1 - self.components) / self.components for index in range(self.components)]
        return (*[0.0] * (len(self.masses) + self.components), *spread, *[2.5] * self.components)

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        log_weights, means, log_scales = self._parts(outputs)
        logistic = DiscretizedLogistic()
        levels = pixels[:, None].expand_as(means).flatten(1)
        inside = logistic.log_prob(torch.cat([means.flatten(1), log_scales.flatten(1)], dim=1), levels)
        terms = [log_weights[:, len(self.masses) :] + inside.reshape(means.shape)]
        if self.masses:
            levels_with_mass = torch.tensor(self.masses, dtype=pixels.dtype, device=pixels.device)
            hit = pixels[:, None] == levels_with_mass[:, None]
            terms.append(torch.where(hit, log_weights[:, : len(self.masses)], NEVER))
        return torch.logsumexp(torch.cat(terms, dim=1), dim=1)

    def sample(self, outputs: Tensor, noise: torch.Generator) -> Tensor:
        log_weights, means, log_scales = self._parts(outputs)
        uniform = torch.rand(log_weights.shape, generator=noise, device=noise.device).clamp(1e-20, 1 - 1e-7)
        chosen = (log_weights - torch.log(-torch.log(uniform))).argmax(1, keepdim=True)
        component = (chosen - len(self.masses)).clamp(min=0)
        parameters = torch.cat([means.gather(1, component), log_scales.gather(1, component)], dim=1).flatten(1)
        levels = DiscretizedLogistic().sample(parameters, noise)
        for index, level in enumerate(self.masses):
            levels = torch.where(chosen[:, 0] == index, float(level), levels)
        return levels

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and logs of scales, each ``(images, masses and components, pixels)``."""
        kinds = outputs.reshape(len(outputs), self.outputs_per_pixel, -1)
        first, second = len(self.masses) + self.components, len(self.masses) + 2 * self.components
        return torch.log_softmax(kinds[:, :first], dim=1), kinds[:, first:second], kinds[:, second:]


NEVER = -1e4
"""A log-probability of nothing, in nats."""
LOG_SCALE_MINIMUM = -4.0
LOG_SCALE_MAXIMUM = 8.0
