"""Amortized inference: the encoder network gives the mean and the standard deviation of every latent."""

from __future__ import annotations

from bbans.intervals import GaussianBins, PriorBins
from bbans.intervals.distribution import Symbols
from bbans.portable.engine import Evaluate


def amortized_posterior(encoder: Evaluate, bins: PriorBins, x: Symbols) -> GaussianBins:
    """q(z given x) for images ``x``, int64 ``(images, pixels)``, over the prior's bins, flattened."""
    outputs = encoder(x)
    latents = outputs.shape[1] // 2
    return GaussianBins.from_outputs(bins, outputs[:, :latents].ravel(), outputs[:, latents:].ravel())
