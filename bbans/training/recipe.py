"""Recipes: everything that decides what a training run makes, read from TOML."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from bbans.errors import RecipeError


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
    """Peak of the schedule: a short linear warm-up, then half a cosine down to zero."""
    weight_decay: float = 0.0
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    validation_images: int = 5000
    """Taken from the end of the training set; the epoch that does best on them is kept."""
    annealing_epochs: int = 0
    """Over how many epochs the weight of the KL term rises from 0 to 1, so that no latent is given up early."""
    augmented_share: float = 0.0
    """Share of each batch that is deformed (rotated, sheared, scaled, bent) at random."""
    plain_epochs: int = 0
    """How many of the last epochs see no deformed images."""
    seed: int = 0


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; :class:`bbans.errors.RecipeError` says which key is missing, unknown or of a wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    known = {field.name: field for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise RecipeError(f"{path}: unknown key {key!r}; expected one of: {', '.join(known)}")
        kind = str(known[key].type)
        if kind.startswith("tuple") and isinstance(value, list):
            value = tuple(value)
        elif kind == "float" and isinstance(value, int):
            value = float(value)
        elif kind != type(value).__name__:
            raise RecipeError(f"{path}: {key} is {value!r}; expected a value of type {kind}")
        values[key] = value
    try:
        return Recipe(**values)
    except TypeError as error:
        raise RecipeError(f"{path}: {error}") from error
