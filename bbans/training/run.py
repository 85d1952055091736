"""A whole training run: from a recipe and images to a folder with a frozen model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from bbans.ans import core_named
from bbans.evaluated import EvaluatedModel
from bbans.intervals import Distribution, pop
from bbans.intervals.distribution import Symbols
from bbans.model import FILE_NAME, Model, save_model
from bbans.nets import VAE
from bbans.portable.engines import engine_named
from bbans.training.export import export
from bbans.training.loop import bits_per_dimension, check_images, split, train
from bbans.training.recipe import Recipe

NETWORK_NAME = "network.safetensors"
LOG_NAME = "log.jsonl"
BATCH = 500


@dataclass(frozen=True)
class Measured:
    """Negative ELBOs on held-out images, in bits per dimension."""

    trained: float
    """Of the network in floating point..."""
    frozen: float
    """...and of the model in integers, with its bins and frequencies."""


def run(recipe: Recipe, images: NDArray[np.uint8], folder: Path, quiet: bool = False) -> Measured:
    """Train on ``images``, freeze, and leave the model, the network it was frozen from and a log in ``folder``.

    Raises :class:`bbans.errors.RecipeError` if the images are not what the recipe trains on.
    """
    check_images(recipe, images)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG_NAME).unlink(missing_ok=True)
    network = train(recipe, images, folder / LOG_NAME, quiet)
    (folder / NETWORK_NAME).write_bytes(save(network.state_dict()))
    return freeze_run(recipe, network, split(recipe, images)[1], folder)


def freeze_run(recipe: Recipe, network: VAE, held_out: Tensor, folder: Path) -> Measured:
    """Freeze a trained network, calibrated and measured on held-out pixels, float ``(images, pixels)``."""
    model = export(network, recipe, held_out)
    save_model(model, folder / FILE_NAME)
    frozen = frozen_bits_per_dimension(model, held_out.numpy().astype(np.int64))
    return Measured(bits_per_dimension(network, held_out), frozen)


def frozen_bits_per_dimension(model: Model, x: Symbols, seed: int = 0) -> float:
    """Negative one-sample ELBO of the frozen model over ``x``, int64 ``(images, pixels)``: what coding will cost."""
    evaluated = EvaluatedModel.of(model, model.default_posterior, engine_named())
    generator = np.random.default_rng(seed)
    bits = 0.0
    for first in range(0, len(x), BATCH):
        batch = x[first : first + BATCH]
        posterior = evaluated.posterior(batch)
        words = generator.integers(0, 1 << 32, 4 * len(posterior), dtype=np.uint32)
        words[: len(posterior)] = 1 << 30
        z = pop(core_named().from_words(words, len(posterior)), posterior)
        bits += _information(evaluated.likelihood(z.reshape(len(batch), -1)), batch.ravel())
        bits += _information(evaluated.prior(len(batch)), z) - _information(posterior, z)
    return bits / x.size


def _information(distribution: Distribution, symbols: Symbols) -> float:
    """How many bits the symbols cost."""
    frequency = distribution.interval(symbols)[1].astype(np.float64)
    return float(np.sum(distribution.precision - np.log2(frequency)))
