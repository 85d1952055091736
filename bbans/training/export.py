"""From a trained VAE to a frozen model."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bbans.errors import RecipeError
from bbans.intervals.gaussian import CENTRE_FRACTION, PriorBins
from bbans.model import Model
from bbans.nets import VAE, ContextVAE, FlowVAE, FullyConnectedVAE, LogisticMixture, ResidualVAE
from bbans.portable.context import ContextDecoder, ConvolutionalDecoder
from bbans.portable.convolution import ConvolutionalNetwork
from bbans.portable.freeze import freeze
from bbans.portable.network import Network
from bbans.training import freeze_context, freeze_residual
from bbans.training.loop import bits_per_dimension
from bbans.training.recipe import Recipe

POSTERIOR = "amortized"
CALIBRATION_IMAGES = 500


@torch.no_grad()
def export(network: VAE, recipe: Recipe, pixels: Tensor, further: Mapping[str, VAE] | None = None) -> Model:
    """Freeze ``network``, calibrated on ``pixels``, float ``(images, pixels)`` with values ``0 .. symbols - 1``.

    ``further`` are networks with the same decoder and other encoders, by the name of the posterior. Raises
    :class:`bbans.errors.RecipeError` for a posterior that is a flow.
    """
    if isinstance(network, FlowVAE):
        raise RecipeError(f"recipe {recipe.name}: files are coded with Gaussian posteriors; a flow can't be frozen")
    largest = network.likelihood.symbols - 1
    bins = PriorBins.of(recipe.latent_precision)
    q = network.posterior(pixels)
    z = q.sample(torch.Generator().manual_seed(0))
    kl = q.kl_to_prior().sum(1).mean()
    latent_bits = network.latents * recipe.latent_precision - float(kl) / math.log(2)
    image_bits = max(1, round(bits_per_dimension(network, pixels) * network.pixels))
    largest_centre, unit = int(abs(bins.centres).max()), 2.0**-CENTRE_FRACTION
    decoder: Network | ContextDecoder | ConvolutionalDecoder
    encoders: dict[str, Network | ConvolutionalNetwork] = {}
    networks = {POSTERIOR: network} | dict(further or {})
    few = slice(0, CALIBRATION_IMAGES)
    if isinstance(network, ContextVAE):
        decoder = freeze_context.freeze_decoder(network, z[few], pixels[few], unit, largest_centre)
        for name, other in networks.items():
            assert isinstance(other, ContextVAE)
            encoders[name] = freeze_context.freeze_encoder(other, pixels[few])
    elif isinstance(network, ResidualVAE):
        decoder = freeze_residual.freeze_decoder(network, z[few], unit, largest_centre)
        for name, other in networks.items():
            assert isinstance(other, ResidualVAE)
            encoders[name] = freeze_residual.freeze_encoder(other, pixels[few])
    else:
        assert isinstance(network, FullyConnectedVAE)
        decoder = freeze(network.decoder, z, unit, largest_centre)
        for name, other in networks.items():
            assert isinstance(other, FullyConnectedVAE)
            encoders[name] = freeze(other.encoder, pixels / largest, 1 / largest, largest)
    mixture = network.likelihood if isinstance(network.likelihood, LogisticMixture) else None
    return Model(
        name=recipe.name,
        image_shape=recipe.image_shape,
        likelihood=recipe.likelihood,
        latents=network.latents,
        latent_precision=recipe.latent_precision,
        image_bits=image_bits,
        latent_bits=max(1, round(latent_bits)),
        decoder=decoder,
        encoders=encoders,
        components=mixture.components if mixture else 0,
        masses=mixture.masses if mixture else (),
    )
