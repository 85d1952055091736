"""What all variational autoencoders share, whatever their networks look like."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Likelihood

LOG_DEVIATION_MINIMUM = -8.0
LOG_DEVIATION_MAXIMUM = 2.0


class VAE(nn.Module):
    """p(z) = N(0, I), p(x given z) by ``decoder`` and ``likelihood``, q(z given x) by ``encoder``."""

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, pixels: int, latents: int, likelihood: Likelihood) -> None:
        super().__init__()
        self.pixels = pixels
        self.latents = latents
        self.likelihood = likelihood

    @abstractmethod
    def posterior(self, pixels: Tensor) -> DiagonalGaussian:
        """q(z given x) of each image; ``pixels`` is float ``(images, pixels)`` with values ``0 .. symbols - 1``."""

    @abstractmethod
    def encoder_input(self, pixels: Tensor) -> Tensor:
        """What ``encoder`` is given of ``pixels``."""

    @abstractmethod
    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        """Log p(x given z) of each image, in nats, ``(images,)``."""

    @abstractmethod
    def dream(self, z: Tensor, noise: torch.Generator) -> Tensor:
        """Float pixels ``(images, pixels)`` drawn from p(x given z)."""

    def draw(self, pixels: Tensor, samples: int, noise: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Latents from q(z given x), ``(samples, images, latents)``, and log q of each, ``(samples, images)``."""
        return self.posterior(pixels).draw(samples, noise)

    def elbo(
        self,
        pixels: Tensor,
        noise: torch.Generator | None = None,
        q: DiagonalGaussian | None = None,
        entropy_weight: float = 1.0,
    ) -> Tensor:
        """One-sample ELBO of each image, in nats (GG equation 1), the KL term in closed form.

        ``pixels`` is float ``(images, pixels)`` with values ``0 .. symbols - 1``; ``q`` is their posterior unless
        another one is given. With an ``entropy_weight`` lambda it is E_q[log p(x, z) - lambda log q(z given x)] (IS-6).
        """
        q = q or self.posterior(pixels)
        bound = self.log_likelihood(pixels, q.sample(noise)) - q.kl_to_prior().sum(1)
        return bound if entropy_weight == 1.0 else bound - (1 - entropy_weight) * q.entropy()

    def prior_sample(self, images: int, noise: torch.Generator) -> Tensor:
        """Latents drawn from p(z), ``(images, latents)``."""
        return torch.randn(images, self.latents, generator=noise, device=noise.device)


def gaussian_of_outputs(outputs: Tensor) -> DiagonalGaussian:
    """From encoder outputs ``(images, 2 * latents)``: means, then logs of standard deviations, within limits."""
    mean, log_deviation = outputs.chunk(2, dim=1)
    return DiagonalGaussian(mean, log_deviation.clamp(LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM))
