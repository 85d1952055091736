"""A variational autoencoder of fully connected layers, as in the GG paper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Likelihood
from bbans.nets.vae import VAE, gaussian_of_outputs


def multilayer_perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with a ReLU after each but the last."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class FullyConnectedVAE(VAE):
    """Given its latents, all pixels are independent.

    The encoder sees pixels scaled to 0..1 and gives the mean and the log of the standard deviation of each latent.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(
        self,
        pixels: int,
        latents: int,
        hidden: Sequence[int],
        likelihood: Likelihood,
        encoder_hidden: Sequence[int] = (),
    ) -> None:
        """``hidden`` are the widths of the decoder's hidden layers, and of the encoder's unless they are given."""
        super().__init__(pixels, latents, likelihood)
        self.encoder = multilayer_perceptron(pixels, encoder_hidden or hidden, 2 * latents)
        self.decoder = multilayer_perceptron(latents, hidden, likelihood.outputs_per_pixel * pixels)
        last = self.decoder[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.copy_(torch.tensor(likelihood.initial_bias()).repeat_interleave(pixels))

    def posterior(self, pixels: Tensor) -> DiagonalGaussian:
        return gaussian_of_outputs(self.encoder(self.encoder_input(pixels)))

    def encoder_input(self, pixels: Tensor) -> Tensor:
        return pixels / (self.likelihood.symbols - 1)

    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        return self.likelihood.log_prob(self.decoder(z), pixels).sum(1)

    @torch.no_grad()
    def dream(self, z: Tensor, noise: torch.Generator) -> Tensor:
        return self.likelihood.sample(self.decoder(z), noise)
