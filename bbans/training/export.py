"""From a trained VAE to a frozen model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bbans.intervals.gaussian import CENTRE_FRACTION, PriorBins
from bbans.model import Model
from bbans.nets import VAE
from bbans.portable.freeze import freeze
from bbans.training.loop import bits_per_dimension
from bbans.training.recipe import Recipe

POSTERIOR = "amortized"


@torch.no_grad()
def export(network: VAE, recipe: Recipe, pixels: Tensor, further: Mapping[str, VAE] | None = None) -> Model:
    """Freeze ``network``, calibrated on ``pixels``, float ``(images, pixels)`` with values ``0 .. symbols - 1``.

    ``further`` are networks with the same decoder and other encoders, by the name of the posterior.
    """
    encoders = {POSTERIOR: network.encoder} | {name: other.encoder for name, other in (further or {}).items()}
    largest = network.likelihood.symbols - 1
    bins = PriorBins.of(recipe.latent_precision)
    q = network.posterior(pixels)
    z = q.sample(torch.Generator().manual_seed(0))
    kl = q.kl_to_prior().sum(1).mean()
    latent_bits = recipe.latents * recipe.latent_precision - float(kl) / math.log(2)
    return Model(
        name=recipe.name,
        image_shape=recipe.image_shape,
        likelihood=recipe.likelihood,
        latents=recipe.latents,
        latent_precision=recipe.latent_precision,
        image_bits=max(1, round(bits_per_dimension(network, pixels) * network.pixels)),
        latent_bits=max(1, round(latent_bits)),
        decoder=freeze(network.decoder, z, 2.0**-CENTRE_FRACTION, int(abs(bins.centres).max())),
        encoders={name: freeze(encoder, pixels / largest, 1 / largest, largest) for name, encoder in encoders.items()},
    )
