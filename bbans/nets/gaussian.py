"""The diagonal Gaussian that an encoder gives for each image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """q(z given x): each latent by itself, ``(images, latents)``; all results are in nats."""

    mean: Tensor
    log_deviation: Tensor

    def draw(self, samples: int, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws ``(samples, images, latents)``, through which gradients flow, and the log-density of each, ``(samples,
        images)``.
        """
        standard = standard_normal(self.mean.expand(samples, *self.mean.shape), noise)
        z = self.mean + torch.exp(self.log_deviation) * standard
        return z, self.log_prob(z)

    def sample(self, noise: torch.Generator | None = None) -> Tensor:
        """One draw for each image, through which gradients flow."""
        return self.mean + torch.exp(self.log_deviation) * standard_normal(self.mean, noise)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of latents ``(..., images, latents)``, summed to ``(..., images)``."""
        standardized = (z - self.mean) * torch.exp(-self.log_deviation)
        return -(0.5 * standardized**2 + self.log_deviation + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl_to_prior(self) -> Tensor:
        """KL(q to N(0, I)) of each latent, ``(images, latents)``."""
        return 0.5 * (self.mean**2 + torch.exp(2 * self.log_deviation) - 1) - self.log_deviation

    def entropy(self) -> Tensor:
        """Differential entropy, summed to ``(images,)``."""
        return (self.log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum(1)


def standard_normal(like: Tensor, noise: torch.Generator | None) -> Tensor:
    """Draws from N(0, 1), as many as ``like`` has elements, and where they are."""
    return torch.randn(like.shape, generator=noise, device=like.device, dtype=like.dtype)


def log_normal(z: Tensor) -> Tensor:
    """The log-density of N(0, I), ``(..., latents)`` to ``(...)``."""
    return -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
