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
from bbans.nets import ContextShape, ResidualShape
from bbans.nets.local import LocalShape
from bbans.training.local_recipe import LocalRecipe

Parsed = TypeVar("Parsed")

CHOICES = {
    "network": ("fully-connected", "context", "residual", "local"),
    "likelihood": ("bernoulli", "discretized-logistic", "channel-linear-logistic", "logistic-mixture"),
    "schedule": ("cosine", "constant"),
    "keep": ("best", "last"),
    "annealing": ("kl", "entropy"),
    "posterior": ("gaussian", "flow"),
    "objective": ("wake", "sleep", "reverse-sleep", "reverse-half-asleep", "denoising"),
    "dreams": ("prior", "aggregate-posterior"),
}
"""What the keys that name something can be."""
DEFAULT_PIXELS = 600_000_000
"""Positions, not channels, that the default recipe trains on, counting each as often as it is seen."""
BATCH_PIXELS = 16 * 28 * 28
MASS_RATIO, MASS_SHARE = 4, 0.003
"""A level with a point mass is so much more frequent than those around it, and has such a share of all pixels."""
MASSES_MAXIMUM = 8
TABLES = ("posteriors", "context", "residual", "local")
"""What has a table of its own."""


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
    bank: int = 0
    """How many dreams ``reverse-half-asleep`` draws beforehand, from the frozen model, to use them again and again; 0
    draws new ones for each batch, which takes long where a likelihood has context."""
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
    """``bernoulli`` (pixels are rounded to 0 and 1 first), ``discretized-logistic``, ``channel-linear-logistic`` (of a
    residual network, for three channels) or ``logistic-mixture``."""
    latent_precision: int
    """log2 of the number of equal-mass bins that a latent is coded with."""
    epochs: int

    network: str = "fully-connected"
    """``fully-connected`` (:class:`bbans.nets.FullyConnectedVAE`), ``context`` (:class:`bbans.nets.ContextVAE`) or
    ``residual`` (:class:`bbans.nets.ResidualVAE`)."""
    latents: int = 0
    """Of a fully connected network..."""
    hidden: tuple[int, ...] = ()
    """...and the widths of its hidden layers..."""
    encoder_hidden: tuple[int, ...] = field(default=(), repr=False)
    """...those of its encoder, if they are others..."""
    posterior: str = field(default="gaussian", repr=False)
    """...and its posterior: ``gaussian``, or ``flow`` (:class:`bbans.nets.FlowVAE`): to analyse, not to freeze."""
    context: ContextShape = field(default_factory=ContextShape)
    """The sizes of a context network..."""
    residual: ResidualShape = field(default_factory=ResidualShape)
    """...or of a residual network."""
    components: int = 8
    """Of a ``logistic-mixture``..."""
    masses: tuple[int, ...] = ()
    """...and the levels with a probability of their own. A convolutional network is told where these levels are."""
    centre: int = 0
    """The level that is 0 to a convolutional network."""

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
    free_bits: float = 0.0
    """Nats of each latent's KL term that cost nothing in training, so that latents are used at all."""
    flips: bool = False
    """Whether half of the images, at random, are mirrored left to right."""
    augmented_share: float = 0.0
    """Share of each batch that is deformed (rotated, sheared, scaled, bent) at random."""
    plain_epochs: int = 0
    """How many of the last epochs see no deformed images."""
    seed: int = 0
    posteriors: Mapping[str, PosteriorRecipe] = field(default_factory=dict)
    """Further encoders, by the name of their posterior."""

    def __post_init__(self) -> None:
        if self.network == "residual" and len(self.image_shape) not in (2, 3):
            raise RecipeError(f"{self.name}: a residual network is for height, width and perhaps channels")
        if self.likelihood == "channel-linear-logistic" and (
            self.network != "residual" or self.image_shape[2:] != (3,)
        ):
            raise RecipeError(f"{self.name}: {self.likelihood} is for images of three channels and a residual network")
        if (self.encoder_hidden or self.posterior == "flow") and self.network != "fully-connected":
            raise RecipeError(
                f"{self.name}: encoder_hidden and a posterior that is a flow are for fully connected networks"
            )
        if self.posterior == "flow" and (
            self.free_bits or self.posteriors or (self.annealing_epochs and self.annealing == "kl")
        ):
            raise RecipeError(
                f"{self.name}: a flow has no KL term of each latent and no further encoders: expected no free_bits, no "
                f"posteriors, and 'entropy' for annealing"
            )

    @property
    def identity(self) -> str:
        """What a checkpoint is of. Keys that came after the first checkpoints are named where they say something."""
        later = {"encoder_hidden": (), "posterior": "gaussian"}
        said = {key: getattr(self, key) for key, default in later.items() if getattr(self, key) != default}
        return repr(self) + (repr(said) if said else "")


def default_recipe(name: str, images: NDArray[np.uint8]) -> Recipe:
    """What to train on ``images`` (``(images, height, width)`` or with channels) where nobody says how.

    A network with context, and the likelihood that the values ask for, trained until :data:`DEFAULT_PIXELS` have been
    seen: about an hour on one core. A tenth of the images, at most 2,000, is held out.
    """
    binary = np.unique(images).tolist() in ([0, 1], [0, 255])
    held_out = min(2000, max(1, len(images) // 10))
    pixels = math.prod(images.shape[1:3])
    halvings = 3 if min(images.shape[1:3]) >= 24 else 2 if min(images.shape[1:3]) >= 8 else 1
    color = images.ndim == 4 and images.shape[3] > 1
    return Recipe(
        name=name,
        image_shape=images.shape[1:],
        likelihood="bernoulli" if binary else "logistic-mixture",
        latent_precision=8,
        epochs=max(2, min(500, math.ceil(DEFAULT_PIXELS / (pixels * max(1, len(images) - held_out))))),
        network="context",
        context=ContextShape(
            encoder_channels=(32, 64, 64)[:halvings],
            decoder_channels=(64, 48, 32)[-halvings:],
            rows=3 if color else 4,
            columns=3 if color else 4,
            hidden=32 if binary else 40,
            blocks=2,
        ),
        components=5 if color else 8,
        masses=() if binary else point_masses(images),
        centre=0 if binary else int(np.median(images)),
        batch_size=max(1, min(16, BATCH_PIXELS // pixels)),
        learning_rate=2e-3,
        averaging=0.9995,
        free_bits=0.1,
        validation_images=held_out,
        patience=50,
    )


def point_masses(images: NDArray[np.uint8]) -> tuple[int, ...]:
    """The levels, at most :data:`MASSES_MAXIMUM`, that are far more frequent than those around them.

    >>> levels = np.arange(256, dtype=np.uint8).repeat(9)
    >>> point_masses(np.concatenate([levels, np.zeros(500, np.uint8), np.full(90, 255, np.uint8)]))
    (0, 255)
    """
    counts = np.bincount(images.ravel(), minlength=256)
    around = [np.median(counts[max(0, level - 8) : level + 9]) for level in range(256)]
    spikes = [
        level
        for level in np.argsort(-counts, kind="stable").tolist()
        if counts[level] > MASS_RATIO * around[level] and counts[level] > MASS_SHARE * images.size
    ]
    return tuple(sorted(spikes[:MASSES_MAXIMUM]))


def load_recipe(path: Path) -> Recipe | LocalRecipe:
    """Read a recipe; :class:`bbans.errors.RecipeError` says which key is missing, unknown or of a wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    if table.get("network") == "local":
        sizes = table.pop("local", {})
        if not isinstance(sizes, dict):
            raise RecipeError(f"{path}: local must be a table")
        shape = _parse(LocalShape, sizes, f"{path}, local")
        return replace(_parse(LocalRecipe, table, str(path)), local=shape)
    posteriors = table.pop("posteriors", {})
    context = _parse(ContextShape, table.pop("context", {}), f"{path}, context")
    residual = _parse(ResidualShape, table.pop("residual", {}), f"{path}, residual")
    if not isinstance(posteriors, dict) or not all(isinstance(part, dict) for part in posteriors.values()):
        raise RecipeError(f"{path}: posteriors must be tables, one for each further encoder")
    further = {name: _parse(PosteriorRecipe, part, f"{path}, {name}") for name, part in posteriors.items()}
    return replace(_parse(Recipe, table, str(path)), posteriors=further, context=context, residual=residual)


def _parse(kind: type[Parsed], table: dict[str, Any], where: str) -> Parsed:
    """A dataclass from the keys of a table."""
    known = {part.name: str(part.type) for part in fields(kind) if part.name not in TABLES}  # type: ignore[arg-type]
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
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from error
