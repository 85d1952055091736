"""From an array of images to shuffled batches of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bbans.errors import RecipeError
from bbans.training.augment import deform
from bbans.training.recipe import Recipe
from bbans.training.workers import Workers


def to_symbols(recipe: Recipe, images: Tensor) -> Tensor:
    """Grey levels 0..255, ``(images, height, width)``, as float pixels ``(images, pixels)`` in the model's alphabet.

    A binary model rounds them: 128 and above become 1.
    """
    flat = images.reshape(len(images), -1)
    if recipe.likelihood == "bernoulli":
        return (flat > 127.5).float()
    return flat.round()


def check_images(recipe: Recipe, images: NDArray[np.uint8]) -> None:
    """Raise :class:`bbans.errors.RecipeError` unless ``images`` are what the recipe trains on, and enough."""
    if images.shape[1:] != recipe.image_shape or images.dtype != np.uint8:
        raise RecipeError(
            f"recipe {recipe.name} trains on uint8 images of shape {recipe.image_shape}, got an array of "
            f"{images.dtype} with shape {images.shape}"
        )
    if len(images) <= recipe.validation_images:
        raise RecipeError(
            f"recipe {recipe.name} holds out {recipe.validation_images} images, got {len(images)} in all; lower "
            f"validation_images"
        )


def split(recipe: Recipe, images: NDArray[np.uint8], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Training images as they come, uint8, and held-out images as float pixels in the model's alphabet.

    For a binary model, images of zeros and ones count as black and white.
    """
    if recipe.likelihood == "bernoulli" and images.max() == 1:
        images = 255 * images
    data = torch.tensor(images, device=device)
    training = len(data) - recipe.validation_images
    return data[:training], to_symbols(recipe, data[training:].float())


def batches(recipe: Recipe, images: Tensor, epoch: int, workers: Workers) -> Iterator[Tensor]:
    """One epoch of shuffled, partly deformed batches: this worker's share of each.

    A function of the recipe, the epoch's number and the worker's alone.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch))
    generator = workers.noise(recipe.seed, epoch)
    plain = epoch >= recipe.epochs - recipe.plain_epochs
    for chosen in torch.split(order, recipe.batch_size):
        if len(chosen) < workers.size:
            return
        batch = images[chosen[workers.rank :: workers.size].to(images.device)].float()
        if recipe.flips:
            mirrored = torch.rand(len(batch), generator=generator, device=generator.device) < 0.5
            batch[mirrored] = batch[mirrored].flip(2)
        deformed = 0 if plain else round(recipe.augmented_share * len(batch))
        if deformed:
            batch[:deformed] = deform(batch[:deformed], generator)
        yield to_symbols(recipe, batch)
