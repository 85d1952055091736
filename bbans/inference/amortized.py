"""Amortized inference: the encoder network gives the mean and the standard deviation of every latent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bbans.intervals import Distribution, Maker, PriorBins


def posterior_of_outputs(outputs: NDArray[np.int64], bins: PriorBins, maker: Maker) -> Distribution:
    """q(z given x) over the prior's bins, flattened, from encoder outputs int64 ``(images, 2 * latents)``."""
    return maker.gaussian(bins, outputs.reshape(len(outputs), 2, -1))
