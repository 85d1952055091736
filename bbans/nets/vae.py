"""A variational autoencoder of fully connected layers, as in the GG paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Likelihood

LOG_DEVIATION_MINIMUM = -8.0
LOG_DEVIATION_MAXIMUM = 2.0


def multilayer_perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class VAE(nn.Module):
    """p(z) = N(0, I), p(x given z) by ``decoder`` and ``likelihood``, q(z given x) by ``encoder``.

    The encoder sees pixels scaled to 0..1 and gives the mean and the log of the standard deviation of each
    latent.
    """

    def __init__(self, pixels: int, latents: int, hidden: Sequence[int], likelihood: Likelihood) -> None:
        super().__init__()
        self.pixels = pixels
        self.latents = latents
        self.likelihood = likelihood
        self.encoder = multilayer_perceptron(pixels, hidden, 2 * latents)
        self.decoder = multilayer_perceptron(latents, hidden, likelihood.outputs_per_pixel * pixels)
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.tensor(likelihood.initial_bias()).repeat_interleave(pixels))

    def posterior(self, pixels: Tensor) -> DiagonalGaussian:
        """q(z given x) of each image."""
        mean, log_deviation = self.encoder(pixels / (self.likelihood.symbols - 1)).chunk(2, dim=1)
        return DiagonalGaussian(mean, log_deviation.clamp(LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM))

    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        """Log p(x given z) of each image, in nats, ``(images,)``."""
        return self.likelihood.log_prob(self.decoder(z), pixels).sum(1)

    def elbo(self, pixels: Tensor, noise: torch.Generator | None = None, q: DiagonalGaussian | None = None) -> Tensor:
        """One-sample ELBO of each image, in nats (GG equation 1), the KL term in closed form.

        ``pixels`` is float ``(images, pixels)`` with values ``0 .. symbols - 1``; ``q`` is their posterior unless
        another one is given.
        """
        q = q or self.posterior(pixels)
        return self.log_likelihood(pixels, q.sample(noise)) - q.kl_to_prior().sum(1)

    @torch.no_grad()
    def dream(self, z: Tensor, noise: torch.Generator) -> Tensor:
        """Float pixels ``(images, pixels)`` drawn from p(x given z)."""
        return self.likelihood.sample(self.decoder(z), noise)

    def prior_sample(self, images: int, noise: torch.Generator) -> Tensor:
        """Latents drawn from p(z), ``(images, latents)``."""
        return torch.randn(images, self.latents, generator=noise, device=noise.device)
