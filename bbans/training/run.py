"""A whole training run: from a recipe and images to a folder with a frozen model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from bbans.ans import core_named
from bbans.errors import RecipeError
from bbans.evaluated import EvaluatedModel
from bbans.intervals import pop
from bbans.intervals.distribution import Symbols
from bbans.likelihoods import information
from bbans.model import FILE_NAME, save_model
from bbans.nets import VAE
from bbans.portable.engines import engine_named
from bbans.sampling import sample_images
from bbans.training.batches import check_images, split
from bbans.training.curves import plot_curves
from bbans.training.export import POSTERIOR, export
from bbans.training.loop import Journal, bits_per_dimension, fit_posterior, train
from bbans.training.recipe import Recipe
from bbans.training.workers import ALONE, Workers

BATCH = 500


@dataclass(frozen=True)
class Measured:
    """Negative ELBOs on held-out images, in bits per dimension, by the name of the posterior."""

    trained: Mapping[str, float]
    """Of the network in floating point..."""
    frozen: Mapping[str, float]
    """...and of the model in integers, with its bins and frequencies."""


def run(
    recipe: Recipe,
    images: NDArray[np.uint8],
    folder: Path,
    progress: bool = False,
    workers: Workers = ALONE,
    deadline: float = math.inf,
) -> Measured | None:
    """Train on ``images``, freeze, and leave the model, the networks it was frozen from and logs in ``folder``.

    A run that was stopped goes on from the checkpoints that it left there, to the very same result. Of several
    processes that train together, only the first writes and measures; the others return None. Raises
    :class:`bbans.errors.RecipeError` if the images are not what the recipe trains on, and
    :class:`bbans.errors.TrainingPaused` when it pauses for the ``deadline``, on the clock of ``time.monotonic``.
    """
    check_images(recipe, images)
    if recipe.posterior == "flow":
        raise RecipeError(
            f"recipe {recipe.name}: files are coded with Gaussian posteriors, a flow can't be frozen; train it with "
            f"bbans.training.loop.train, for analysis"
        )
    names = (POSTERIOR, *recipe.posteriors)
    journals = {
        name: Journal(folder / log_name(name), folder / f"checkpoint-{name}.safetensors", progress, deadline=deadline)
        for name in names
    }
    if workers.first:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(journals)
    workers.wait()
    networks = {POSTERIOR: train(recipe, images, journals[POSTERIOR], workers)}
    for name, posterior in recipe.posteriors.items():
        bank = None
        if posterior.bank:
            frozen = export(networks[POSTERIOR], recipe, split(recipe, images)[1])
            dreams = sample_images(frozen, posterior.bank, recipe.seed).reshape(posterior.bank, -1)
            bank = torch.from_numpy(dreams).float().to(workers.device)
        networks[name] = fit_posterior(networks[POSTERIOR], posterior, recipe, images, journals[name], workers, bank)
    if not workers.first:
        return None
    for name, trained in networks.items():
        weights = {key: value.contiguous() for key, value in trained.cpu().state_dict().items()}
        (folder / network_name(name)).write_bytes(save(weights))
    plot_curves({name: folder / log_name(name) for name in names}, folder / "curves.png")
    measured = freeze_run(recipe, networks, split(recipe, images)[1], folder)
    for journal in journals.values():
        assert journal.checkpoint is not None
        journal.checkpoint.unlink(missing_ok=True)
    return measured


def _clear(journals: Mapping[str, Journal]) -> None:
    """Remove what an earlier run left that this one can't go on from."""
    first = journals[POSTERIOR].checkpoint
    anew = first is None or not first.exists()
    for journal in journals.values():
        assert journal.checkpoint is not None and journal.log is not None
        if anew:  # what was fitted to another decoder is of no use
            journal.checkpoint.unlink(missing_ok=True)
        if not journal.checkpoint.exists():
            journal.log.unlink(missing_ok=True)


def network_name(posterior: str) -> str:
    """The file of the network before freezing, with one of its encoders."""
    return f"network-{posterior}.safetensors"


def log_name(posterior: str) -> str:
    """The file of the log of a training."""
    return f"log-{posterior}.jsonl"


def freeze_run(recipe: Recipe, networks: Mapping[str, VAE], held_out: Tensor, folder: Path) -> Measured:
    """Freeze trained networks, calibrated and measured on held-out pixels, float ``(images, pixels)``.

    ``networks`` are by the name of their posterior, the one trained with the decoder first.
    """
    further = {name: network for name, network in networks.items() if name != POSTERIOR}
    model = export(networks[POSTERIOR], recipe, held_out, further)
    save_model(model, folder / FILE_NAME)
    x = held_out.numpy().astype(np.int64)
    return Measured(
        {name: bits_per_dimension(network, held_out) for name, network in networks.items()},
        {
            name: frozen_bits_per_dimension(
                x, EvaluatedModel.of(model, name, engine_named(multiply_adds=model.multiply_adds(x.size)))
            )
            for name in networks
        },
    )


def frozen_bits_per_dimension(x: Symbols, evaluated: EvaluatedModel, seed: int = 0) -> float:
    """Negative one-sample ELBO of a frozen model over ``x``, int64 ``(images, pixels)``: what coding will cost."""
    generator = np.random.default_rng(seed)
    bits = 0.0
    for first in range(0, len(x), BATCH):
        batch = x[first : first + BATCH]
        q = evaluated.posterior(batch)
        words = generator.integers(0, 1 << 32, 4 * len(q), dtype=np.uint32)
        words[: len(q)] = 1 << 30
        z = pop(core_named().from_words(words, len(q)), q)
        bits += evaluated.likelihood(z.reshape(len(batch), -1)).bits(batch)
        bits += information(evaluated.prior(len(batch)), z) - information(q, z)
    return bits / x.size
