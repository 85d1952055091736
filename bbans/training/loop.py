"""The training loop: gradient descent on an objective, keeping the epoch that does best on held-out images."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from tqdm import tqdm

from bbans.errors import TrainingPaused
from bbans.intervals.mixture import runs_of
from bbans.nets import (
    VAE,
    Bernoulli,
    ChannelLinearLogistic,
    ContextVAE,
    DiscretizedLogistic,
    FlowVAE,
    FullyConnectedVAE,
    Likelihood,
    LogisticMixture,
    ResidualVAE,
)
from bbans.portable.context import PixelInput
from bbans.training.batches import batches, check_images, split
from bbans.training.checkpoint import State, load_checkpoint, save_checkpoint
from bbans.training.objectives import (
    Objective,
    denoising,
    entropy_annealing,
    free_bits,
    from_aggregate_posterior,
    from_bank,
    from_prior,
    kl_annealing,
    reverse_half_asleep,
    reverse_sleep,
    sleep,
    wake,
)
from bbans.training.recipe import PosteriorRecipe, Recipe
from bbans.training.workers import ALONE, Workers

EVALUATION_BATCH = 200
ACTIVE_NATS = 0.1
"""A latent with a mean KL term above this is in use."""


@dataclass(frozen=True)
class Journal:
    """Where a training is written down."""

    log: Path | None = None
    """A line of JSON an epoch: see :class:`Epoch`."""
    checkpoint: Path | None = None
    """The state after each epoch; a run that finds one goes on from it, to the very same result."""
    progress: bool = False
    """A progress bar on standard error, if that is a terminal."""
    after_epoch: Callable[[int, VAE], object] | None = None
    """Called with the number of epochs done and the averaged network."""
    deadline: float = math.inf
    """On the clock of ``time.monotonic``: a run pauses before an epoch that would likely end later."""


SILENT = Journal()


@dataclass(frozen=True)
class Epoch:
    """What the log says of an epoch."""

    epoch: int
    train: float
    """The objective on the training images, in bits per dimension."""
    held_out: float
    """The negative ELBO on the held-out images, in bits per dimension."""
    active_latents: int


def build(recipe: Recipe) -> VAE:
    """The untrained network of a recipe, its weights drawn from the recipe's seed."""
    likelihood = likelihood_of(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.network == "context":
            return ContextVAE(recipe.image_shape, recipe.context, pixel_input_of(recipe), likelihood)
        if recipe.network == "residual":
            return ResidualVAE(recipe.image_shape, recipe.residual, pixel_input_of(recipe), likelihood)
        kind = FlowVAE if recipe.posterior == "flow" else FullyConnectedVAE
        return kind(math.prod(recipe.image_shape), recipe.latents, recipe.hidden, likelihood, recipe.encoder_hidden)


def likelihood_of(recipe: Recipe) -> Likelihood:
    """The likelihood that a recipe names."""
    if recipe.likelihood == "bernoulli":
        return Bernoulli()
    if recipe.likelihood == "discretized-logistic":
        return DiscretizedLogistic()
    if recipe.likelihood == "channel-linear-logistic":
        return ChannelLinearLogistic()
    return LogisticMixture(recipe.components, recipe.masses)


def pixel_input_of(recipe: Recipe) -> PixelInput:
    """How a convolutional network is given pixels: runs of levels with point masses are ranges that it is told of."""
    if recipe.likelihood == "bernoulli":
        return PixelInput(symbols=2, centre=0, gain=128, unit=128, ranges=())
    ranges = runs_of(tuple(sorted(recipe.masses)))
    return PixelInput(256, recipe.centre, gain=1, unit=128, ranges=tuple(ranges))


@torch.no_grad()
def bits_per_dimension(network: VAE, pixels: Tensor, seed: int = 0) -> float:
    """Negative one-sample ELBO over ``pixels`` ``(images, pixels)``, in bits per dimension."""
    generator = Generator(pixels.device).manual_seed(seed)
    total = 0.0
    for batch in torch.split(pixels, EVALUATION_BATCH):
        total += float(network.elbo(batch, generator).sum())
    return -total / math.log(2) / max(1, pixels.numel())


@torch.no_grad()
def active_latents(network: VAE, pixels: Tensor) -> int:
    """How many latents have a mean KL term that says something."""
    return int((network.posterior(pixels).kl_to_prior().mean(0) > ACTIVE_NATS).sum())


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The schedule, ``progress`` running from 0 to 1."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warm_up = 0.01
    if progress < warm_up:
        return recipe.learning_rate * progress / warm_up
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def model_objective(recipe: Recipe) -> Objective:
    """What decoder and encoder are trained on together."""
    if recipe.free_bits:
        return free_bits(recipe.free_bits)
    if not recipe.annealing_epochs:
        return wake
    return {"kl": kl_annealing, "entropy": entropy_annealing}[recipe.annealing](recipe.annealing_epochs)


def posterior_objective(posterior: PosteriorRecipe, bank: Tensor | None = None) -> Objective:
    """The objective that a recipe for an encoder names, with dreams from ``bank`` if there is one."""
    drawn = {"prior": from_prior, "aggregate-posterior": from_aggregate_posterior}[posterior.dreams]
    dreams = drawn if bank is None else from_bank(bank)
    return {
        "wake": wake,
        "sleep": sleep,
        "reverse-sleep": reverse_sleep,
        "reverse-half-asleep": reverse_half_asleep(posterior.alpha, dreams),
        "denoising": denoising(posterior.alpha, posterior.noise_deviation),
    }[posterior.objective]


def average_into(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move ``average`` towards ``current``: the exponential moving average of the weights."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), current.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def train(recipe: Recipe, images: NDArray[np.uint8], journal: Journal = SILENT, workers: Workers = ALONE) -> VAE:
    """Train decoder and encoder together on grey images ``(images, *image_shape)``: see :func:`fit`."""
    network = build(recipe)
    return fit(network, list(network.parameters()), model_objective(recipe), recipe, images, journal, workers)


def fit_posterior(
    network: VAE,
    posterior: PosteriorRecipe,
    recipe: Recipe,
    images: NDArray[np.uint8],
    journal: Journal = SILENT,
    workers: Workers = ALONE,
    bank: Tensor | None = None,
) -> VAE:
    """Fit the encoder anew, the generative model frozen, and return a network with that encoder: see :func:`fit`.

    ``bank`` holds dreams, float ``(dreams, pixels)``, where the recipe asks for them to be drawn beforehand.
    """
    recipe = replace(
        recipe,
        epochs=posterior.epochs,
        learning_rate=posterior.learning_rate,
        augmented_share=posterior.augmented_share,
        plain_epochs=0,
    )
    network = copy.deepcopy(network)
    network.decoder.requires_grad_(False)
    objective = posterior_objective(posterior, bank)
    return fit(network, list(network.encoder.parameters()), objective, recipe, images, journal, workers)


class _Loss(nn.Module):
    """An objective as a module, whose gradients several processes can share."""

    def __init__(self, network: VAE, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, pixels: Tensor, epoch: int, noise: Generator) -> Tensor:
        return self.objective(self.network, pixels, epoch, noise).mean()


def fit(
    network: VAE,
    parameters: list[nn.Parameter],
    objective: Objective,
    recipe: Recipe,
    images: NDArray[np.uint8],
    journal: Journal = SILENT,
    workers: Workers = ALONE,
) -> VAE:
    """Move ``parameters`` of ``network`` to minimize ``objective``; returns the averaged network of the kept epoch.

    The best epoch is the one with the lowest negative ELBO on held-out images. Raises
    :class:`bbans.errors.RecipeError` if the images are not of the recipe's shape, or the journal's checkpoint not of
    this recipe, and :class:`bbans.errors.TrainingPaused` when the journal's deadline is near.
    """
    check_images(recipe, images)
    data, held_out = split(recipe, images, workers.device)
    network.to(workers.device)
    state = State(
        network,
        average=copy.deepcopy(network),
        best=copy.deepcopy(network),
        optimizer=torch.optim.AdamW(parameters, lr=0.0, weight_decay=recipe.weight_decay),
        best_rate=math.inf,
    )
    if journal.checkpoint is not None and journal.checkpoint.exists():
        load_checkpoint(journal.checkpoint, state, recipe.identity)
    loss = workers.together(_Loss(network, objective))
    progress = tqdm(
        range(state.epoch, recipe.epochs),
        initial=state.epoch,
        total=recipe.epochs,
        desc=recipe.name,
        unit="epoch",
        disable=None if journal.progress and workers.first else True,  # None: on a terminal only
    )
    for epoch in progress:
        if recipe.patience and epoch - state.best_epoch > recipe.patience:
            break
        started = time.monotonic()
        train_rate = _one_epoch(state, loss, parameters, recipe, data, epoch, workers)
        rate = bits_per_dimension(state.average, held_out)
        state.epoch = epoch + 1
        if rate < state.best_rate or recipe.keep == "last":
            state.best.load_state_dict(state.average.state_dict())
            state.best_rate, state.best_epoch = rate, epoch
        progress.set_postfix(train=f"{train_rate:.4f}", held_out=f"{rate:.4f}", best=f"{state.best_rate:.4f}")
        if workers.first:
            _write_down(journal, Epoch(epoch, train_rate, rate, active_latents(state.average, held_out)), state, recipe)
        now = time.monotonic()
        if state.epoch < recipe.epochs and workers.any(now + (now - started) > journal.deadline):
            raise TrainingPaused(f"paused after {state.epoch} of {recipe.epochs} epochs; the same command goes on")
    workers.wait()
    return state.best.eval()


def _one_epoch(
    state: State[VAE],
    loss: nn.Module,
    parameters: list[nn.Parameter],
    recipe: Recipe,
    data: Tensor,
    epoch: int,
    workers: Workers,
) -> float:
    """Take the steps of an epoch; returns the mean of the objective, in bits per dimension."""
    steps = recipe.epochs * math.ceil(len(data) / recipe.batch_size)
    noise = workers.noise(recipe.seed + 1, epoch)
    total = torch.zeros((), device=workers.device)
    taken = 0
    for pixels in batches(recipe, data, epoch, workers):
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, state.step / steps)
        mean = loss(pixels, epoch, noise)
        state.optimizer.zero_grad(set_to_none=True)
        mean.backward()
        nn.utils.clip_grad_norm_(parameters, 200.0)
        state.optimizer.step()
        state.step += 1
        average_into(state.average, state.network, min(recipe.averaging, (1 + state.step) / (10 + state.step)))
        total += mean.detach()
        taken += 1
    return float(total) / taken / state.network.pixels / math.log(2)


def _write_down(journal: Journal, epoch: Epoch, state: State[VAE], recipe: Recipe) -> None:
    if journal.checkpoint is not None:
        save_checkpoint(journal.checkpoint, state, recipe.identity)
    if journal.log is not None:
        with journal.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(epoch)) + "\n")
    if journal.after_epoch is not None:
        journal.after_epoch(epoch.epoch + 1, state.average)
