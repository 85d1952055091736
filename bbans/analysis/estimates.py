"""Bounds on log p(x), and estimates of it, for a batch of images at a time; all in nats.

Whatever is estimated here sees a model only as log p(x, z), and a posterior only as something to draw from. Every
function takes the source of its noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from bbans.nets import VAE, DiagonalGaussian
from bbans.nets.gaussian import log_normal, standard_normal

LogJoint = Callable[[Tensor], Tensor]
"""log p(x, z) of each image x of a batch: from latents ``(samples, images, latents)`` to ``(samples, images)``."""

ROWS = 2000
"""Decoders are evaluated for at most so many latents at once, if memory allows no more."""
PIXELS = 1 << 18
"""Nor for more pixels than this."""
ACCEPTANCE = 0.8
"""Of Hamiltonian proposals, what the size of the steps aims at..."""
ADAPTATION = 1.05
"""...growing and shrinking by this."""


class Posterior(Protocol):
    """q(z given x) of each image of a batch."""

    def draw(self, samples: int, noise: Generator, /) -> tuple[Tensor, Tensor]:
        """Latents ``(samples, images, latents)`` and log q of each, ``(samples, images)``: with auxiliary variables
        v, log q(z, v given x) - log r(v given z, x).
        """


@dataclass(frozen=True, eq=False)
class Estimate:
    """Of one number for each image, with the standard errors of the estimator's own noise; ``(images,)``."""

    value: Tensor
    error: Tensor


def log_joint_of(network: VAE, pixels: Tensor) -> LogJoint:
    """Of images, float ``(images, pixels)`` with values ``0 .. symbols - 1``."""
    rows = max(1, min(ROWS, PIXELS // network.pixels))

    def log_joint(z: Tensor) -> Tensor:
        samples, images, latents = z.shape
        which = torch.arange(images, device=z.device).repeat(samples)
        parts = zip(torch.split(z.reshape(-1, latents), rows), torch.split(which, rows), strict=True)
        log_likelihood = torch.cat([network.log_likelihood(pixels[chosen], part) for part, chosen in parts])
        return log_likelihood.reshape(samples, images) + log_normal(z)

    return log_joint


@torch.no_grad()
def elbo(log_joint: LogJoint, posterior: Posterior, samples: int, noise: Generator) -> Estimate:
    """L[q] = E_q[log p(x, z) - log q(z given x)] (IS-1), averaged over draws.

    Nothing in closed form: where q is the posterior, all draws say the same.
    """
    log_weight = torch.cat(list(_log_weights(log_joint, posterior, samples, noise)))
    return Estimate(log_weight.mean(0), log_weight.std(0) / math.sqrt(samples))


@torch.no_grad()
def importance_weighted(log_joint: LogJoint, posterior: Posterior, samples: int, noise: Generator) -> Estimate:
    """Log of the mean of p(x, z) / q(z given x) over draws: on average below log p(x), and with many near it (IS-4)."""
    return _log_mean_exp(torch.cat(list(_log_weights(log_joint, posterior, samples, noise))))


def _log_weights(log_joint: LogJoint, posterior: Posterior, samples: int, noise: Generator) -> Iterator[Tensor]:
    """Log p(x, z) - log q(z given x) of draws, in parts that fit into memory."""
    block = 50
    for first in range(0, samples, block):
        z, log_q = posterior.draw(min(block, samples - first), noise)
        yield log_joint(z) - log_q


def _log_mean_exp(log_weight: Tensor) -> Estimate:
    """Over the first axis; the error is that of the mean of the weights, relative to it."""
    count = len(log_weight)
    value = torch.logsumexp(log_weight, 0) - math.log(count)
    return Estimate(value, torch.exp(log_weight - value).std(0) / math.sqrt(count))


@dataclass(frozen=True)
class Annealing:
    """How long annealed importance sampling takes."""

    chains: int = 8
    """Of each image."""
    temperatures: int = 100
    """Between the base and the posterior..."""
    leapfrog: int = 4
    """...with a Hamiltonian transition of so many steps at each."""


@torch.no_grad()
def annealed_importance(log_joint: LogJoint, base: DiagonalGaussian, how: Annealing, noise: Generator) -> Estimate:
    """Log p(x) by annealed importance sampling with Hamiltonian transitions, from a Gaussian in place of p(z) (IS-4).

    From ``base``, which is best near the posterior, chains go through densities proportional to
    base**(1 - b) p(x, z)**b for b from 0 to 1 (R. Neal, "Annealed importance sampling", 2001). The mean of the weights
    is unbiased, so that its log is on average below log p(x). The sizes of the steps are found in a run of its own,
    and then stay fixed: otherwise the weights would not be unbiased.
    """
    images = len(base.mean)
    sizes = torch.full((how.temperatures, images), 0.5, device=base.mean.device, dtype=base.mean.dtype)
    pilot = Annealing(max(2, how.chains // 4), how.temperatures, how.leapfrog)
    _anneal(log_joint, base, pilot, noise, sizes, adapt=True)
    return _log_mean_exp(_anneal(log_joint, base, how, noise, sizes, adapt=False))


def _anneal(
    log_joint: LogJoint, base: DiagonalGaussian, how: Annealing, noise: Generator, sizes: Tensor, adapt: bool
) -> Tensor:
    """Log-weights ``(chains, images)``; with ``adapt``, ``sizes`` ``(temperatures, images)`` are written too."""
    deviation = torch.exp(base.log_deviation)

    def densities(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p(x, z), the base's log-density at z, which is u in units of the base, and the gradient of the first."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = log_joint(base.mean + deviation * u)
            (slope,) = torch.autograd.grad(value.sum(), u)
        return value.detach(), log_normal(u.detach()) - base.log_deviation.sum(-1), slope

    u = standard_normal(base.mean.expand(how.chains, *base.mean.shape), noise)
    joint, start, slope = densities(u)
    log_weight = torch.zeros_like(joint)
    size = sizes[0].clone()
    for index in range(how.temperatures):
        before, after = index / how.temperatures, (index + 1) / how.temperatures
        log_weight += (after - before) * (joint - start)
        if index == how.temperatures - 1:
            break
        if not adapt:
            size = sizes[index]
        step = size[None, :, None]
        momentum = standard_normal(u, noise)
        energy = 0.5 * (momentum**2).sum(-1) - after * joint - (1 - after) * start
        place, force = u, after * slope - (1 - after) * u
        for _ in range(how.leapfrog):
            momentum = momentum + 0.5 * step * force
            place = place + step * momentum
            found = densities(place)
            force = after * found[2] - (1 - after) * place
            momentum = momentum + 0.5 * step * force
        change = 0.5 * (momentum**2).sum(-1) - after * found[0] - (1 - after) * found[1] - energy
        uniform = torch.rand(change.shape, generator=noise, device=change.device, dtype=change.dtype)
        taken = torch.log(uniform) < -change
        u = torch.where(taken[..., None], place, u)
        joint, start = torch.where(taken, found[0], joint), torch.where(taken, found[1], start)
        slope = torch.where(taken[..., None], found[2], slope)
        if adapt:
            sizes[index] = size
            acceptance = torch.exp(-change.clamp(min=0)).nan_to_num().mean(0)
            size = torch.where(acceptance > ACCEPTANCE, size * ADAPTATION, size / ADAPTATION).clamp(1e-3, 2.0)
    return log_weight
