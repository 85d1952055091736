"""Recipes for local networks, of images of any size: see :mod:`bbans.training.recipe`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bbans.errors import RecipeError
from bbans.model import COMPONENTS_MAXIMUM
from bbans.nets.local import LocalShape
from bbans.portable.context import WINDOW_MAXIMUM


@dataclass(frozen=True)
class LocalRecipe:
    """What is trained, and how. Training goes by steps, each on a few crops from anywhere in the images."""

    name: str
    channels: int
    """1 for grey images, or 3."""
    steps: int
    network: str = "local"
    likelihood: str = "logistic-mixture"
    components: int = 5
    """Of the mixture."""
    local: LocalShape = field(default_factory=LocalShape)
    """The sizes of the network."""
    start: str = ""
    """The model whose network training starts from: the name of a local or context model or a folder, if any. Colours
    become grey as it is."""

    crop: int = 96
    """Height and width of a crop. Images that are smaller are taken whole, in batches of their own."""
    crops: int = 4
    """In a batch."""
    halved: float = 0.15
    """Share of crops that are made half as high and wide first."""
    flips: bool = True
    """Whether half of the crops, at random, are mirrored left to right."""
    learning_rate: float = 1.2e-3
    warmup: int = 200
    """Steps in which the learning rate rises to that..."""
    decay: int = 1000
    """...and in which it falls to almost nothing, the last ones."""
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    held_out: int = 8
    """Images, spread over all, that are not trained on."""
    report: int = 250
    """Steps from a line of the log, and a checkpoint, to the next."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.likelihood != "logistic-mixture":
            raise RecipeError(f"{self.name}: a local network's likelihood is a logistic-mixture, not {self.likelihood}")
        if self.channels not in (1, 3):
            raise RecipeError(f"{self.name}: a local network is for 1 or 3 channels, not {self.channels}")
        if min(self.steps, self.crop, self.crops, self.held_out, self.report) < 1:
            raise RecipeError(f"{self.name}: steps, crop, crops, held_out and report are positive")
        sizes = self.local
        if not (min(sizes.rows, sizes.columns) >= 2 and max(sizes.rows, sizes.columns) <= WINDOW_MAXIMUM):
            raise RecipeError(f"{self.name}: a window's rows and columns are 2 to {WINDOW_MAXIMUM}")
        if min(sizes.hidden, sizes.head) < 1 or sizes.blocks < 0:
            raise RecipeError(f"{self.name}: hidden and head are positive, and blocks not negative")
        if not 1 <= self.components <= COMPONENTS_MAXIMUM:
            raise RecipeError(f"{self.name}: components are 1 to {COMPONENTS_MAXIMUM}, not {self.components}")


DEFAULT_STEPS = 1500
"""Of the default recipe, which starts from a shipped model: about a quarter of an hour on one core."""
STARTS = {1: "photo-grey", 3: "photo"}
SMALL_SIDE = 64
"""Images up to this high and wide, all of one size, are given a model with latents by default."""


def default_local_recipe(name: str, images: Sequence[NDArray[np.uint8]]) -> LocalRecipe:
    """What to train where nobody says how: from the shipped model on."""
    channels = 3 if images[0].ndim == 3 else 1
    side = min(min(image.shape[:2]) for image in images)
    held_out = max(1, min(8, len(images) // 10))
    return LocalRecipe(
        name, channels, DEFAULT_STEPS, start=STARTS[channels], crop=min(96, max(8, side)), held_out=held_out
    )


def suits_local(images: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether images are of different sizes, or larger than a model with latents has much to say of."""
    shapes = {image.shape[:2] for image in images}
    return len(shapes) > 1 or max(max(shape) for shape in shapes) > SMALL_SIDE
