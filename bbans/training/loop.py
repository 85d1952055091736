"""The training loop: gradient descent on an objective, keeping the epoch that does best on held-out images."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from bbans.errors import RecipeError
from bbans.nets import VAE, likelihood_named
from bbans.training.augment import deform
from bbans.training.checkpoint import State, load_checkpoint, save_checkpoint
from bbans.training.objectives import Objective, joint, reverse_half_asleep, reverse_sleep, sleep, wake
from bbans.training.recipe import PosteriorRecipe, Recipe

EVALUATION_BATCH = 1000
ACTIVE_NATS = 0.1
"""A latent with a mean KL term above this is in use."""


def build(recipe: Recipe) -> VAE:
    """The untrained network of a recipe, its weights drawn from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return VAE(
            math.prod(recipe.image_shape),
            recipe.latents,
            recipe.hidden,
            likelihood_named(recipe.likelihood),
        )


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


def split(recipe: Recipe, images: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Training images as they come, uint8, and held-out images as float pixels in the model's alphabet."""
    data = torch.tensor(images)
    training = len(data) - recipe.validation_images
    return data[:training], to_symbols(recipe, data[training:].float())


@torch.no_grad()
def bits_per_dimension(network: VAE, pixels: Tensor, seed: int = 0) -> float:
    """Negative one-sample ELBO over ``pixels`` ``(images, pixels)``, in bits per dimension."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for batch in torch.split(pixels, EVALUATION_BATCH):
        total += float(network.elbo(batch, generator).sum())
    return -total / math.log(2) / pixels.numel()


def batches(recipe: Recipe, images: Tensor, epoch: int) -> Iterator[Tensor]:
    """One epoch of shuffled, partly deformed batches; a function of the recipe and the epoch's number alone."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    plain = epoch >= recipe.epochs - recipe.plain_epochs
    deformed = 0 if plain else round(recipe.augmented_share * recipe.batch_size)
    order = torch.randperm(len(images), generator=generator)
    for chosen in torch.split(order, recipe.batch_size):
        batch = images[chosen].float()
        if deformed:
            batch[:deformed] = deform(batch[:deformed], generator)
        yield to_symbols(recipe, batch)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The schedule, ``progress`` running from 0 to 1."""
    warm_up = 0.01
    if progress < warm_up:
        return recipe.learning_rate * progress / warm_up
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def posterior_objective(posterior: PosteriorRecipe) -> Objective:
    """The objective that a recipe for an encoder names."""
    named: dict[str, Objective] = {
        "wake": wake,
        "sleep": sleep,
        "reverse-sleep": reverse_sleep,
        "reverse-half-asleep": reverse_half_asleep(posterior.alpha),
    }
    try:
        return named[posterior.objective]
    except KeyError:
        known = ", ".join(named)
        raise RecipeError(f"unknown objective {posterior.objective!r}; expected one of: {known}") from None


def average_into(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move ``average`` towards ``current``: the exponential moving average of the weights."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), current.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def train(
    recipe: Recipe,
    images: NDArray[np.uint8],
    log: Path | None = None,
    quiet: bool = False,
    checkpoint: Path | None = None,
) -> VAE:
    """Train decoder and encoder together on grey images ``(images, *image_shape)``: see :func:`fit`."""
    network = build(recipe)
    objective = joint(recipe.annealing_epochs)
    return fit(network, list(network.parameters()), objective, recipe, images, log, quiet, checkpoint)


def fit_posterior(
    network: VAE,
    posterior: PosteriorRecipe,
    recipe: Recipe,
    images: NDArray[np.uint8],
    log: Path | None = None,
    quiet: bool = False,
    checkpoint: Path | None = None,
) -> VAE:
    """Fit the encoder anew, the generative model frozen, and return a network with that encoder: see :func:`fit`."""
    recipe = replace(
        recipe,
        epochs=posterior.epochs,
        learning_rate=posterior.learning_rate,
        augmented_share=posterior.augmented_share,
        plain_epochs=0,
    )
    network = copy.deepcopy(network)
    network.decoder.requires_grad_(False)
    objective = posterior_objective(posterior)
    return fit(network, list(network.encoder.parameters()), objective, recipe, images, log, quiet, checkpoint)


def fit(
    network: VAE,
    parameters: list[nn.Parameter],
    objective: Objective,
    recipe: Recipe,
    images: NDArray[np.uint8],
    log: Path | None = None,
    quiet: bool = False,
    checkpoint: Path | None = None,
) -> VAE:
    """Move ``parameters`` of ``network`` to minimize ``objective``; returns the averaged network of the best epoch.

    The best epoch is the one with the lowest negative ELBO on held-out images. A line of JSON an epoch goes to
    ``log``: the objective on the training images and the rate on the held-out ones, both in bits per dimension, and
    how many latents are in use. With a ``checkpoint`` the state is saved there after every epoch, and a run that
    finds one goes on from it, to the very same result. Raises :class:`bbans.errors.RecipeError` if the images are
    not of the recipe's shape, or the checkpoint not of this recipe.
    """
    check_images(recipe, images)
    data, held_out = split(recipe, images)
    state = State(
        network,
        average=copy.deepcopy(network),
        best=copy.deepcopy(network),
        optimizer=torch.optim.AdamW(parameters, lr=0.0, weight_decay=recipe.weight_decay),
        noise=torch.Generator().manual_seed(recipe.seed),
        best_rate=math.inf,
    )
    if checkpoint is not None and checkpoint.exists():
        load_checkpoint(checkpoint, state, repr(recipe))
    steps = recipe.epochs * math.ceil(len(data) / recipe.batch_size)
    progress = tqdm(
        range(state.epoch, recipe.epochs),
        initial=state.epoch,
        total=recipe.epochs,
        desc=recipe.name,
        unit="epoch",
        disable=True if quiet else None,  # None: on a terminal only
    )
    for epoch in progress:
        total = 0.0
        for pixels in batches(recipe, data, epoch):
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(recipe, state.step / steps)
            loss = objective(network, pixels, epoch, state.noise)
            state.optimizer.zero_grad(set_to_none=True)
            loss.mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 200.0)
            state.optimizer.step()
            state.step += 1
            average_into(state.average, network, min(recipe.averaging, (1 + state.step) / (10 + state.step)))
            total += float(loss.detach().sum())
        rate = bits_per_dimension(state.average, held_out)
        train_rate = total / len(data) / network.pixels / math.log(2)
        if rate < state.best_rate:
            state.best.load_state_dict(state.average.state_dict())
            state.best_rate = rate
        state.epoch = epoch + 1
        progress.set_postfix(train=f"{train_rate:.4f}", held_out=f"{rate:.4f}", best=f"{state.best_rate:.4f}")
        if checkpoint is not None:
            save_checkpoint(checkpoint, state, repr(recipe))
        if log is not None:
            line = {
                "epoch": epoch,
                "train": train_rate,
                "held_out": rate,
                "active_latents": active_latents(state.average, held_out),
            }
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    return state.best.eval()


@torch.no_grad()
def active_latents(network: VAE, pixels: Tensor) -> int:
    """How many latents have a mean KL term that says something."""
    return int((network.terms(pixels, torch.Generator().manual_seed(0))[1].mean(0) > ACTIVE_NATS).sum())
