"""Posteriors that bend: a real-valued flow over latents and auxiliary variables (IS-3).

Latents z and as many auxiliary variables v start as independent Gaussians and are coupled in turns: v is scaled and
shifted by what a network makes of z, then z by what one makes of v (L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density
estimation using Real NVP", 2017). What v has become is guessed from z by a reverse model r, which keeps the bound a
bound (L. Maaloe et al., "Auxiliary Deep Generative Models", 2016; R. Ranganath et al., "Hierarchical Variational
Models", 2016): log p(x) is at least E[log p(x, z) - (log q(z, v given x) - log r(v given z, x))].

Files can't be coded with such a posterior, which has no intervals of its own: it is for training and for analysis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from bbans.nets.fully_connected import FullyConnectedVAE, multilayer_perceptron
from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Likelihood
from bbans.nets.vae import gaussian_of_outputs

ROUNDS = 2
"""How often z and v are coupled, each to the other."""
HIDDEN = 100
"""Units of each of the networks of a :class:`FlowVAE`..."""
FEATURES = 100
"""...which see, besides z or v, so many things about the image."""
LOG_SCALE_LIMIT = 2.0
"""A coupling scales by at most exp of this."""


class AuxiliaryFlow(nn.Module):
    """Couplings of latents and auxiliary variables, and the reverse model.

    ``network`` makes modules that take ``(samples, images, latents)``, and whatever else :meth:`forward` is given, to
    ``(samples, images, 2 * latents)``. Where they all give 0, the flow changes nothing.
    """

    def __init__(self, network: Callable[[], nn.Module], rounds: int = ROUNDS) -> None:
        super().__init__()
        self.of_latents = nn.ModuleList(network() for _ in range(rounds))
        self.of_auxiliary = nn.ModuleList(network() for _ in range(rounds))
        self.reverse = network()

    def forward(self, z: Tensor, noise: Generator | None, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of ``z``, ``(samples, images, latents)``, and by how much this changes log q, ``(samples,
        images)``.
        """
        v = torch.randn(z.shape, generator=noise, device=z.device, dtype=z.dtype)
        log_q = _log_normal(v)
        for of_latents, of_auxiliary in zip(self.of_latents, self.of_auxiliary, strict=True):
            v, growth = _coupled(v, of_latents(z, *seen))
            z, further = _coupled(z, of_auxiliary(v, *seen))
            log_q = log_q - growth - further
        back, log_scale = self.reverse(z, *seen).chunk(2, dim=-1)
        return z, log_q - _log_normal((v - back) * torch.exp(-log_scale)) + log_scale.sum(-1)


def _coupled(moved: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Variables scaled and shifted as a network says, and the log of how much volume grows."""
    shift, raw = outputs.chunk(2, dim=-1)
    log_scale = LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)
    return moved * torch.exp(log_scale) + shift, log_scale.sum(-1)


def _log_normal(standard: Tensor) -> Tensor:
    return -0.5 * (standard**2 + math.log(2 * math.pi)).sum(-1)


class SeeingNetwork(nn.Module):
    """One hidden layer, that sees latents and features of their image; its outputs start at 0."""

    def __init__(self, latents: int, features: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 2 * latents)
        self.layers = nn.Sequential(nn.Linear(latents + features, hidden), nn.Tanh(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: Tensor, features: Tensor) -> Tensor:
        outputs: Tensor = self.layers(torch.cat([z, features.expand(*z.shape[:-1], -1)], dim=-1))
        return outputs


class FlowVAE(FullyConnectedVAE):
    """A fully connected network whose posterior is an amortized :class:`AuxiliaryFlow`.

    :meth:`posterior` is the Gaussian that the flow starts from.
    """

    def __init__(
        self,
        pixels: int,
        latents: int,
        hidden: Sequence[int],
        likelihood: Likelihood,
        encoder_hidden: Sequence[int] = (),
    ) -> None:
        super().__init__(pixels, latents, hidden, likelihood, encoder_hidden)
        self.encoder = multilayer_perceptron(pixels, encoder_hidden or hidden, 2 * latents + FEATURES)
        self.flow = AuxiliaryFlow(lambda: SeeingNetwork(latents, FEATURES, HIDDEN))

    def posterior(self, pixels: Tensor) -> DiagonalGaussian:
        return self.seen(pixels)[0]

    def draw(self, pixels: Tensor, samples: int, noise: Generator | None = None) -> tuple[Tensor, Tensor]:
        q, features = self.seen(pixels)
        start, log_q = q.draw(samples, noise)
        z, change = self.flow(start, noise, features)
        return z, log_q + change

    def elbo(
        self,
        pixels: Tensor,
        noise: Generator | None = None,
        q: DiagonalGaussian | None = None,
        entropy_weight: float = 1.0,
    ) -> Tensor:
        """As :meth:`bbans.nets.VAE.elbo`, of the flow, nothing in closed form; or of the Gaussian ``q`` if given."""
        if q is not None:
            return super().elbo(pixels, noise, q, entropy_weight)
        z, log_q = (drawn[0] for drawn in self.draw(pixels, 1, noise))
        return self.log_likelihood(pixels, z) + _log_normal(z) - entropy_weight * log_q

    def seen(self, pixels: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """Where the flow starts, and what its networks see of an image."""
        outputs = self.encoder(self.encoder_input(pixels))
        return gaussian_of_outputs(outputs[:, : 2 * self.latents]), torch.relu(outputs[:, 2 * self.latents :])
