"""Posteriors that bend: a real-valued flow over latents and auxiliary variables (IS-3).

Latents z and as many auxiliary variables v start as independent Gaussians and are coupled in turns: v is scaled and
shifted by what a network makes of z, then z by what one makes of v (L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density
estimation using Real NVP", 2017). What v has become is guessed from z by a reverse model r, which keeps the bound a
bound (L. Maaloe et al., "Auxiliary Deep Generative Models", 2016; R. Ranganath et al., "Hierarchical Variational
Models", 2016): log p(x) is at least E[log p(x, z) - (log q(z, v given x) - log r(v given z, x))].

Files can't be coded with such a posterior, which has no intervals of its own: it is for training and for analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from bbans.nets.fully_connected import FullyConnectedVAE, multilayer_perceptron
from bbans.nets.gaussian import DiagonalGaussian, log_normal, standard_normal
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

    ``network`` makes modules that take ``(samples, images, latents)``, and what else is ``seen``, to
    ``(samples, images, 2 * latents)``. Where they all give 0, nothing is moved.
    """

    def __init__(self, network: Callable[[], nn.Module], rounds: int = ROUNDS) -> None:
        super().__init__()
        self.of_latents = nn.ModuleList(network() for _ in range(rounds))
        self.of_auxiliary = nn.ModuleList(network() for _ in range(rounds))
        self.reverse = network()

    def move(self, z: Tensor, v: Tensor, *seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What becomes of both, ``(samples, images, latents)``, and the log of how much volume grows, ``(samples,
        images)``.
        """
        growth = torch.zeros_like(z[..., 0])
        for of_latents, of_auxiliary in zip(self.of_latents, self.of_auxiliary, strict=True):
            v, of_v = _coupled(v, of_latents(z, *seen))
            z, of_z = _coupled(z, of_auxiliary(v, *seen))
            growth = growth + of_v + of_z
        return z, v, growth

    def back(self, z: Tensor, v: Tensor, *seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What both have come from, and by how much volume grew on the way; as if the networks had no gradients."""
        growth = torch.zeros_like(z[..., 0])
        for of_latents, of_auxiliary in zip(reversed(self.of_latents), reversed(self.of_auxiliary), strict=True):
            z, of_z = _uncoupled(z, _still(of_auxiliary, v, *seen))
            v, of_v = _uncoupled(v, _still(of_latents, z, *seen))
            growth = growth + of_v + of_z
        return z, v, growth

    def log_reverse(self, z: Tensor, v: Tensor, *seen: Tensor) -> Tensor:
        """Log r(v given z), ``(samples, images)``."""
        mean, log_deviation = self.reverse(z, *seen).chunk(2, dim=-1)
        return DiagonalGaussian(mean, log_deviation).log_prob(v)


def _coupled(moved: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Variables scaled and shifted as a network says, and the log of how much volume grows."""
    shift, log_scale = _shift_and_scale(outputs)
    return moved * torch.exp(log_scale) + shift, log_scale.sum(-1)


def _uncoupled(moved: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Back from what :func:`_coupled` gives, and the log of how much volume had grown."""
    shift, log_scale = _shift_and_scale(outputs)
    return (moved - shift) * torch.exp(-log_scale), log_scale.sum(-1)


def _shift_and_scale(outputs: Tensor) -> tuple[Tensor, Tensor]:
    shift, raw = outputs.chunk(2, dim=-1)
    return shift, LOG_SCALE_LIMIT * torch.tanh(raw / LOG_SCALE_LIMIT)


def _still(network: nn.Module, *inputs: Tensor) -> Tensor:
    """What a network gives, as if it had no gradients."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    outputs: Tensor = functional_call(network, parameters, inputs)
    return outputs


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
        z, log_q = q.draw(samples, noise)
        v = standard_normal(z, noise)
        log_q = log_q + log_normal(v)
        z, v, growth = self.flow.move(z, v, features)
        return z, log_q - growth - self.flow.log_reverse(z, v, features)

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
        return self.log_likelihood(pixels, z) + log_normal(z) - entropy_weight * log_q

    def seen(self, pixels: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """Where the flow starts, and what its networks see of an image."""
        outputs = self.encoder(self.encoder_input(pixels))
        return gaussian_of_outputs(outputs[:, : 2 * self.latents]), torch.relu(outputs[:, 2 * self.latents :])
