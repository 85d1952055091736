"""A variational autoencoder of fully connected layers, as in the GG paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

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

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of q(z given x), each ``(images, latents)``."""
        mean, log_deviation = self.encoder(pixels / (self.likelihood.symbols - 1)).chunk(2, dim=1)
        return mean, log_deviation.clamp(LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM)

    def terms(self, pixels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The two terms of the ELBO, in nats (GG equation 1).

        ``pixels`` is float ``(images, pixels)`` with values ``0 .. symbols - 1``. Returns log p(x given z) of each
        image ``(images,)``, for one sample z, and KL(q(z given x) to p(z)) in closed form, of each latent
        ``(images, latents)``.
        """
        mean, log_deviation = self.posterior(pixels)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        latent = mean + torch.exp(log_deviation) * noise
        log_likelihood = self.likelihood.log_prob(self.decoder(latent), pixels).sum(1)
        return log_likelihood, 0.5 * (mean**2 + torch.exp(2 * log_deviation) - 1) - log_deviation

    def elbo(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One-sample ELBO of each image, in nats."""
        log_likelihood, kl = self.terms(pixels, generator)
        return log_likelihood - kl.sum(1)

    @torch.no_grad()
    def sample(self, images: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws from p(z, x): latents ``(images, latents)`` and float pixels ``(images, pixels)``."""
        z = torch.randn(images, self.latents, generator=noise)
        return z, self.likelihood.sample(self.decoder(z), noise)
