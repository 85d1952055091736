"""What training minimizes, in nats an image; each function reads like its equation.

Sources: GG is M. Zhang, P. Hayes, D. Barber, "Generalization Gap in Amortized Inference" (NeurIPS 2022); IS is
C. Cremer, X. Li, D. Duvenaud, "Inference Suboptimality in Variational Autoencoders" (2018).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bbans.nets import VAE

Objective = Callable[[VAE, Tensor, int, Generator], Tensor]
"""Takes the network, a batch of pixels ``(images, pixels)``, the number of the epoch and a source of noise; returns
what is to be minimized, for each image it looked at."""

Dreams = Callable[[VAE, Tensor, Generator], Tensor]
"""Draws images from the model, as many as there are in a batch of data."""


def wake(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """The negative ELBO of data: of decoder and encoder together (GG 1), or the wake phase of an encoder (GG 10)."""
    return -network.elbo(x, noise)


def kl_annealing(epochs: int) -> Objective:
    """The negative ELBO with a KL term whose weight rises from 0 to 1, so that no latent is given up early."""

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        q = network.posterior(x)
        weight = min(1.0, epoch / epochs)
        return weight * q.kl_to_prior().sum(1) - network.log_likelihood(x, q.sample(noise))

    return objective


def entropy_annealing(epochs: int) -> Objective:
    """-E_q[log p(x, z) - lambda log q(z given x)], lambda rising from 0 to 1 (IS-6)."""

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        return -network.elbo(x, noise, entropy_weight=min(1.0, epoch / epochs))

    return objective


def free_bits(nats: float) -> Objective:
    """The negative ELBO, in which a latent's KL term, on average over the batch, counts at least as ``nats``: what is
    below is free to use (D. P. Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow",
    2016, equation 15).
    """

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        q = network.posterior(x)
        return q.kl_to_prior().mean(0).clamp(min=nats).sum() - network.log_likelihood(x, q.sample(noise))

    return objective


def sleep(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """Sleep phase: forward KL on dreams, -log q(z given x) with (z, x) ~ p(z, x) (GG 13)."""
    z = network.prior_sample(len(x), noise)
    return -network.posterior(network.dream(z, noise)).log_prob(z)


def from_prior(network: VAE, x: Tensor, noise: Generator) -> Tensor:
    """Dreams x ~ p(x): p(x given z) with z from the prior."""
    return network.dream(network.prior_sample(len(x), noise), noise)


@torch.no_grad()
def from_aggregate_posterior(network: VAE, x: Tensor, noise: Generator) -> Tensor:
    """Dreams whose latents come from q(z), the posteriors of data: what to take where q(z) is far from p(z)."""
    return network.dream(network.posterior(x).sample(noise), noise)


def from_bank(bank: Tensor) -> Dreams:
    """Dreams taken at random from pixels ``(dreams, pixels)`` drawn beforehand: for models that draw slowly."""

    def dreams(network: VAE, x: Tensor, noise: Generator) -> Tensor:
        return bank[torch.randint(len(bank), (len(x),), generator=noise, device=noise.device).to(bank.device)]

    return dreams


def reverse_sleep(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """Reverse sleep: the negative ELBO of dreams, x ~ p(x) (GG 15)."""
    return -network.elbo(from_prior(network, x, noise), noise)


def reverse_half_asleep(alpha: float = 0.5, dreams: Dreams = from_prior) -> Objective:
    """Reverse half-asleep: the negative ELBO of a mixture, ``alpha`` of it dreams and the rest data (GG 17)."""

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        asleep = round(alpha * len(x))
        return -network.elbo(torch.cat([dreams(network, x[:asleep], noise), x[asleep:]]), noise)

    return objective


def denoising(alpha: float = 0.5, deviation: float = 0.2) -> Objective:
    """Denoising: ``alpha`` KL(q(z given x + noise) to p(z given x)) + (1 - ``alpha``) KL(q(z given x) to p(z given x)),
    up to a constant; the noise is Gaussian, its ``deviation`` in units of the range of a pixel (GG 18).
    """

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        standard = torch.randn(x.shape, generator=noise, device=x.device)
        noisy = x + deviation * (network.likelihood.symbols - 1) * standard
        return -alpha * network.elbo(x, noise, network.posterior(noisy)) - (1 - alpha) * network.elbo(x, noise)

    return objective
