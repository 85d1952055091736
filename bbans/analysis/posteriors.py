"""Posteriors that are fitted to one image alone, many images at a time: what an encoder would be at its best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor, nn

from bbans.analysis.estimates import LogJoint, elbo
from bbans.nets import AuxiliaryFlow, DiagonalGaussian, FlowVAE
from bbans.nets.context import of_kind
from bbans.nets.flow import SeeingNetwork
from bbans.nets.gaussian import log_normal, standard_normal

MEAN_MAXIMUM = 8.0
"""Coding knows no means beyond."""
LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM = -8.0, 2.0


@dataclass(frozen=True)
class Fitting:
    """How a posterior is fitted: rounds of Adam's steps, at a rate that falls to 0 in each, until one gains little."""

    steps: int = 200
    """Of a round."""
    rounds: int = 5
    """At most."""
    samples: int = 8
    """Of each image in a step."""
    learning_rate: float = 0.05
    tolerance: float = 0.02
    """Nats an image: the last round is the one that gains less on average."""
    checked: int = 100
    """Samples of each image that tell what a round gained; always the same."""


class Fitted(Protocol):
    """A module with parameters for each image: their first axis."""

    def draw(self, samples: int, noise: Generator, path_only: bool = False, /) -> tuple[Tensor, Tensor]:
        """See :class:`bbans.analysis.estimates.Posterior`. With ``path_only`` the gradient leaves out how log q depends
        on parameters by other ways than through the draws: that is 0 on average, and near the best q most of the noise
        (G. Roeder, Y. Wu, D. Duvenaud, "Sticking the Landing", 2017).
        """

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is fitted."""


Kind = TypeVar("Kind", bound=Fitted)


class ImageGaussian(nn.Module):
    """A diagonal Gaussian for each image (IS-2), moved away from where it started, in units of its deviations."""

    def __init__(self, start: DiagonalGaussian) -> None:
        super().__init__()
        self.start = DiagonalGaussian(start.mean.detach(), start.log_deviation.detach())
        self.move = nn.Parameter(torch.zeros_like(self.start.mean))
        self.growth = nn.Parameter(torch.zeros_like(self.start.mean))

    @property
    def gaussian(self) -> DiagonalGaussian:
        """The Gaussians, within what coding knows."""
        mean = self.start.mean + torch.exp(self.start.log_deviation) * self.move
        log_deviation = self.start.log_deviation + self.growth
        return DiagonalGaussian(
            mean.clamp(-MEAN_MAXIMUM, MEAN_MAXIMUM), log_deviation.clamp(LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM)
        )

    def draw(self, samples: int, noise: Generator, path_only: bool = False) -> tuple[Tensor, Tensor]:
        q = self.gaussian
        z, log_q = q.draw(samples, noise)
        if path_only:
            log_q = DiagonalGaussian(q.mean.detach(), q.log_deviation.detach()).log_prob(z)
        return z, log_q


class ImageFlow(nn.Module):
    """A flow with auxiliary variables for each image (IS-3)."""

    def __init__(self, start: DiagonalGaussian, flow: AuxiliaryFlow, standardized: bool) -> None:
        """``flow`` has networks for each image; what it sees and moves is ``standardized`` by the Gaussian or not."""
        super().__init__()
        self.gaussian = ImageGaussian(start)
        self.flow = flow
        self.standardized = standardized

    @staticmethod
    def of_gaussian(start: DiagonalGaussian, hidden: int, noise: Generator) -> ImageFlow:
        """One that is still nothing but a Gaussian."""
        return ImageFlow(start, AuxiliaryFlow(lambda: ImageNetworks.drawn(start.mean, hidden, noise)), True)

    @staticmethod
    def of_network(network: FlowVAE, pixels: Tensor) -> ImageFlow:
        """Those that a network's amortized flow is for images, float ``(images, pixels)``."""
        q, features = network.seen(pixels)
        amortized = (*network.flow.of_latents, *network.flow.of_auxiliary, network.flow.reverse)
        each = iter(amortized)

        def next_one() -> ImageNetworks:
            seeing = next(each)
            assert isinstance(seeing, SeeingNetwork)
            return ImageNetworks.seeing(seeing, features.detach())

        return ImageFlow(q, AuxiliaryFlow(next_one, len(network.flow.of_latents)), False)

    def draw(self, samples: int, noise: Generator, path_only: bool = False) -> tuple[Tensor, Tensor]:
        q = self.gaussian.gaussian
        start, log_q = q.draw(samples, noise)
        v = standard_normal(start, noise)
        log_q = log_q + log_normal(v)
        moved, v, growth = self.flow.move(self._framed(q, start), v)
        z = self._unframed(q, moved)
        log_reverse = self.flow.log_reverse(moved, v)
        if path_only:
            q = DiagonalGaussian(q.mean.detach(), q.log_deviation.detach())
            start, v, growth = self.flow.back(self._framed(q, z), v)
            log_q = q.log_prob(self._unframed(q, start)) + log_normal(v)
        return z, log_q - growth - log_reverse

    def _framed(self, q: DiagonalGaussian, z: Tensor) -> Tensor:
        """Latents as the couplings see them."""
        return (z - q.mean) * torch.exp(-q.log_deviation) if self.standardized else z

    def _unframed(self, q: DiagonalGaussian, seen: Tensor) -> Tensor:
        return q.mean + torch.exp(q.log_deviation) * seen if self.standardized else seen


class ImageNetworks(nn.Module):
    """One network of one hidden layer for each image."""

    def __init__(self, first: Tensor, first_bias: Tensor, last: Tensor, last_bias: Tensor) -> None:
        """``(images, inputs, hidden)``, ``(images, hidden)``, ``(images, hidden, outputs)``, ``(images, outputs)``."""
        super().__init__()
        self.first, self.first_bias = nn.Parameter(first), nn.Parameter(first_bias)
        self.last, self.last_bias = nn.Parameter(last), nn.Parameter(last_bias)

    @staticmethod
    def drawn(like: Tensor, hidden: int, noise: Generator) -> ImageNetworks:
        """For latents such as ``like``, with random hidden units, and outputs of 0."""
        images, latents = like.shape
        first = torch.randn((images, latents, hidden), generator=noise, device=like.device, dtype=like.dtype)
        return ImageNetworks(
            first / math.sqrt(latents),
            like.new_zeros(images, hidden),
            like.new_zeros(images, hidden, 2 * latents),
            like.new_zeros(images, 2 * latents),
        )

    @staticmethod
    def seeing(network: SeeingNetwork, features: Tensor) -> ImageNetworks:
        """What an amortized network is for images with these features, ``(images, features)``."""
        first, last = of_kind(nn.Linear, network.layers)
        images, latents = len(features), first.in_features - features.shape[1]
        return ImageNetworks(
            first.weight[:, :latents].T.expand(images, -1, -1).clone(),
            features @ first.weight[:, latents:].T + first.bias,
            last.weight.T.expand(images, -1, -1).clone(),
            last.bias.expand(images, -1).clone(),
        )

    def forward(self, z: Tensor) -> Tensor:
        hidden = torch.tanh(torch.matmul(z.transpose(0, 1), self.first) + self.first_bias[:, None])
        return (torch.matmul(hidden, self.last) + self.last_bias[:, None]).transpose(0, 1)


def fit_gaussian(log_joint: LogJoint, start: DiagonalGaussian, how: Fitting, noise: Generator) -> ImageGaussian:
    """The diagonal Gaussians that maximize the ELBO of their images (IS-2), from ``start``."""
    return _fitted(log_joint, ImageGaussian(start), how, noise)


def fit_flow(log_joint: LogJoint, start: ImageFlow, how: Fitting, noise: Generator) -> ImageFlow:
    """The flows that maximize the ELBO of their images (IS-3), from ``start``, which is changed."""
    return _fitted(log_joint, start, how, noise)


def _fitted(log_joint: LogJoint, posterior: Kind, how: Fitting, noise: Generator) -> Kind:
    parameters = list(posterior.parameters())
    seed = int(torch.randint(1 << 62, (), generator=noise, device=noise.device))

    def reached() -> Tensor:
        return elbo(log_joint, posterior, how.checked, Generator(noise.device).manual_seed(seed)).value

    best = reached()
    for _ in range(how.rounds):
        before = [parameter.detach().clone() for parameter in parameters]
        optimizer = torch.optim.Adam(parameters, lr=how.learning_rate)
        for step in range(how.steps):
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
            z, log_q = posterior.draw(how.samples, noise, True)
            loss = (log_q - log_joint(z)).mean(0).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        now = reached()
        worse = ~(now > best)
        with torch.no_grad():  # what a round made worse goes back
            for parameter, old in zip(parameters, before, strict=True):
                parameter[worse] = old[worse]
        gain = (now - best).clamp(min=0).nan_to_num()
        best = best + gain
        if float(gain.mean()) < how.tolerance:
            break
    return posterior
