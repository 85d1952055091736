"""Recipes: everything that decides what a training run makes, read from TOML."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from bbans.errors import RecipeError

Parsed = TypeVar("Parsed")

CHOICES = {
    "likelihood": ("bernoulli", "discretized-logistic"),
    "schedule": ("cosine", "constant"),
    "keep": ("best", "last"),
    "annealing": ("kl", "entropy"),
    "objective": ("wake", "sleep", "reverse-sleep", "reverse-half-asleep", "denoising"),
    "dreams": ("prior", "aggregate-posterior"),
}
"""What the keys that name something can be."""


@dataclass(frozen=True)
class PosteriorRecipe:
    """A further encoder, fitted while the generative model is frozen; it starts from the one trained with it."""

    objective: str
    """``wake``, ``sleep``, ``reverse-sleep``, ``reverse-half-asleep`` or ``denoising``: see
    :mod:`bbans.training.objectives`."""
    epochs: int
    alpha: float = 0.5
    """Share of dreams in ``reverse-half-asleep``, weight of the noisy term in ``denoising``."""
    dreams: str = "prior"
    """Where the latents of dreams come from in ``reverse-half-asleep``: ``prior`` or ``aggregate-posterior``."""
    noise_deviation: float = 0.2
    """Of the noise of ``denoising``, in units of the range of a pixel."""
    learning_rate: float = 3e-4
    augmented_share: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how."""

    name: str
    image_shape: tuple[int, ...]
    likelihood: str
    """``bernoulli`` (pixels are rounded to 0 and 1 first) or ``discretized-logistic``."""
    latents: int
    hidden: tuple[int, ...]
    latent_precision: int
    """log2 of the number of equal-mass bins that a latent is coded with."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    schedule: str = "cosine"
    """``cosine`` (a short linear warm-up, then half a cosine down to zero) or ``constant``."""
    weight_decay: float = 0.0
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    validation_images: int = 5000
    """Taken from the end of the training set; none of them is trained on."""
    keep: str = "best"
    """Which epoch's weights are kept: ``best`` (the one that does best on the held-out images) or ``last``."""
    patience: int = 0
    """Training stops after so many epochs without a better one; 0 never stops it early."""
    annealing: str = "kl"
    """What is annealed, if anything: the weight of the KL term (``kl``) or of the posterior's entropy (``entropy``)."""
    annealing_epochs: int = 0
    """Over how many epochs that weight rises from 0 to 1, so that no latent is given up early."""
    augmented_share: float = 0.0
    """Share of each batch that is deformed (rotated, sheared, scaled, bent) at random."""
    plain_epochs: int = 0
    """How many of the last epochs see no deformed images."""
    seed: int = 0
    posteriors: Mapping[str, PosteriorRecipe] = field(default_factory=dict)
    """Further encoders, by the name of their posterior."""


def default_recipe(name: str, images: NDArray[np.uint8]) -> Recipe:
    """What to train on ``images`` (``(images, height, width)`` and so on) where nobody says how.

    The GG paper's network, with the likelihood that the values ask for, for about a million images seen: some ten
    minutes on a laptop for 28 x 28. A tenth of the images, at most 5,000, is held out.
    """
    binary = np.unique(images).tolist() in ([0, 1], [0, 255])
    held_out = min(5000, max(1, len(images) // 10))
    epochs = max(10, min(500, math.ceil(1_000_000 / max(1, len(images) - held_out))))
    return Recipe(
        name=name,
        image_shape=images.shape[1:],
        likelihood="bernoulli" if binary else "discretized-logistic",
        latents=16 if binary else 32,
        hidden=(500, 500),
        latent_precision=12,
        epochs=epochs,
        validation_images=held_out,
        annealing_epochs=max(1, epochs // 8),
        patience=max(5, epochs // 4),
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; :class:`bbans.errors.RecipeError` says which key is missing, unknown or of a wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    posteriors = table.pop("posteriors", {})
    if not isinstance(posteriors, dict) or not all(isinstance(part, dict) for part in posteriors.values()):
        raise RecipeError(f"{path}: posteriors must be tables, one for each further encoder")
    further = {name: _parse(PosteriorRecipe, part, f"{path}, {name}") for name, part in posteriors.items()}
    return replace(_parse(Recipe, table, str(path)), posteriors=further)


def _parse(kind: type[Parsed], table: dict[str, Any], where: str) -> Parsed:
    """A dataclass from the keys of a table."""
    known = {part.name: str(part.type) for part in fields(kind) if part.name != "posteriors"}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"{where}: unknown key {key!r}; expected one of: {', '.join(known)}")
        expected = known[key]
        if expected.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        elif expected == "float" and isinstance(value, int):
            value = float(value)
        elif expected != type(value).__name__:
            raise RecipeError(f"{where}: {key} is {value!r}; expected a value of type {expected}")
        if value not in CHOICES.get(key, (value,)):
            raise RecipeError(f"{where}: {key} is {value!r}; expected one of: {', '.join(CHOICES[key])}")
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise RecipeError(f"{where}: {error}") from error
