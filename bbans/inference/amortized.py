"""Amortized inference: the encoder network gives the mean and the standard deviation of every latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bbans.intervals import GaussianBins, PriorBins


def posterior_of_outputs(outputs: NDArray[np.int64], bins: PriorBins) -> GaussianBins:
    """q(z given x) over the prior's bins, flattened, from encoder outputs int64 ``(images, 2 * latents)``."""
    mean, log_deviation = np.split(outputs, 2, axis=1)
    return GaussianBins.from_outputs(bins, mean.ravel(), log_deviation.ravel())
