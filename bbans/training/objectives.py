"""What training minimizes, in nats an image; each function reads like its equation.

Sources: GG is M. Zhang, P. Hayes, D. Barber, "Generalization Gap in Amortized Inference" (NeurIPS 2022); IS is
C. Cremer, X. Li, D. Duvenaud, "Inference Suboptimality in Variational Autoencoders" (2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bbans.nets import VAE

Objective = Callable[[VAE, Tensor, int, Generator], Tensor]
"""Takes the network, a batch of pixels ``(images, pixels)``, the number of the epoch and a source of noise; returns
what is to be minimized, for each image it looked at."""


def joint(annealing_epochs: int = 0) -> Objective:
    """The negative ELBO of data (GG 1), for decoder and encoder together.

    Over the first ``annealing_epochs`` the weight of the KL term rises from 0 to 1, so that no latent is given up
    early.
    """

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        log_likelihood, kl = network.terms(x, noise)
        weight = min(1.0, epoch / annealing_epochs) if annealing_epochs else 1.0
        return weight * kl.sum(1) - log_likelihood

    return objective


def wake(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """Wake phase: the negative ELBO of data (GG 10)."""
    return -network.elbo(x, noise)


def sleep(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """Sleep phase: forward KL on dreams, -log q(z given x) with (z, x) ~ p(z, x) (GG 13)."""
    z, dreamt = network.sample(len(x), noise)
    mean, log_deviation = network.posterior(dreamt)
    standardized = (z - mean) * torch.exp(-log_deviation)
    return (0.5 * standardized**2 + log_deviation + 0.5 * math.log(2 * math.pi)).sum(1)


def reverse_sleep(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
    """Reverse sleep: the negative ELBO of dreams, x ~ p(x) (GG 15)."""
    return -network.elbo(network.sample(len(x), noise)[1], noise)


def reverse_half_asleep(alpha: float = 0.5) -> Objective:
    """Reverse half-asleep: the negative ELBO of a mixture, ``alpha`` of it dreams and the rest data (GG 17)."""

    def objective(network: VAE, x: Tensor, epoch: int, noise: Generator) -> Tensor:
        dreams = round(alpha * len(x))
        mixed = torch.cat([network.sample(dreams, noise)[1], x[dreams:]])
        return -network.elbo(mixed, noise)

    return objective
