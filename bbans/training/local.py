"""Training a local network on images of any size, and freezing it."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from bbans.errors import RecipeError, TrainingPaused
from bbans.local.evaluated import strip_likelihood
from bbans.local.strips import BITS_UNIT, Strip
from bbans.model import FILE_NAME, Model, load_model, save_model
from bbans.nets.likelihoods import LogisticMixture
from bbans.nets.local import LocalNetwork
from bbans.portable.engines import engine_named
from bbans.training.checkpoint import State, load_checkpoint, save_checkpoint
from bbans.training.freeze_local import freeze_local
from bbans.training.local_recipe import LocalRecipe
from bbans.training.loop import average_into
from bbans.training.start_local import start_from

Image = NDArray[np.uint8]
NETWORK_NAME = "network.safetensors"
LOG_NAME = "log.jsonl"
CHECKPOINT_NAME = "checkpoint.safetensors"
HELD_OUT_SIDE = 256
"""Of held-out images, so much of their middle is looked at."""
FINAL_RATE = 0.005
"""What is left of the learning rate in the end."""
GRADIENT_MAXIMUM = 0.5
"""Norm, of the gradient of bits per dimension."""


@dataclass(frozen=True)
class LocalMeasured:
    """Bits per dimension on held-out images: of the network in floating point, and of the model in integers."""

    trained: float
    frozen: float


@dataclass(frozen=True)
class Report:
    """What the log says of some steps."""

    step: int
    train: float
    """Bits per dimension of the crops since the last report..."""
    held_out: float
    """...and of the held-out images, by the averaged network."""


def run_local(
    recipe: LocalRecipe,
    images: Sequence[Image],
    folder: Path,
    progress: bool = False,
    deadline: float = math.inf,
) -> LocalMeasured:
    """Train on images, uint8 ``(height, width)`` or ``(height, width, 3)``, of any sizes; leave the model, the network
    that it was frozen from and the log in ``folder``.

    A run that was stopped goes on from its checkpoint. Raises :class:`bbans.errors.RecipeError` if the images are not
    what the recipe trains on, and :class:`bbans.errors.TrainingPaused` when it pauses for the ``deadline``, on the
    clock of ``time.monotonic``.
    """
    training, held_out = _split(recipe, images)
    folder.mkdir(parents=True, exist_ok=True)
    network = build_local(recipe)
    checkpoint = folder / CHECKPOINT_NAME
    state = State(
        network,
        copy.deepcopy(network),
        copy.deepcopy(network),
        torch.optim.Adam(network.parameters(), lr=0.0, betas=(0.9, 0.99)),
        math.inf,
    )
    if checkpoint.exists():
        load_checkpoint(checkpoint, state, repr(recipe))
    else:
        (folder / LOG_NAME).unlink(missing_ok=True)
    _train(recipe, state, Crops.of(recipe, training), held_out, folder, progress, deadline)
    network = state.average.eval()
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    (folder / NETWORK_NAME).write_bytes(save(weights))
    measured = freeze_local_run(recipe, network, held_out, folder)
    checkpoint.unlink(missing_ok=True)
    return measured


def build_local(recipe: LocalRecipe) -> LocalNetwork:
    """The network before the first step, its weights drawn from the recipe's seed or those it starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = LocalNetwork(recipe.channels, recipe.local, LogisticMixture(recipe.components, ()))
    if recipe.start:
        start_from(network, load_model(recipe.start))
    return network


def freeze_local_run(
    recipe: LocalRecipe, network: LocalNetwork, held_out: Sequence[Tensor], folder: Path
) -> LocalMeasured:
    """Freeze a trained network, calibrated and measured on held-out images ``(channels, height, width)``."""
    before = rate(network, held_out)
    side = min(min(image.shape[1:]) for image in held_out)
    calibration = torch.stack([image[:, :side, :side] for image in held_out])
    frozen = freeze_local(network, calibration)
    colours = (recipe.channels,) if recipe.channels > 1 else ()
    model = Model(
        name=recipe.name,
        image_shape=(0, 0, *colours),
        likelihood=recipe.likelihood,
        latents=0,
        latent_precision=0,
        image_bits=max(1, round(before * BITS_UNIT)),
        latent_bits=0,
        decoder=frozen,
        encoders={},
        components=recipe.components,
    )
    save_model(model, folder / FILE_NAME)
    bits = values = 0.0
    likelihood = strip_likelihood(model, engine_named())
    for image in held_out:
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy().astype(np.uint8))
        _, frequency = likelihood.intervals(pixels, Strip(0, 0, len(pixels), 0))
        bits += float((likelihood.precision - np.log2(frequency)).sum())
        values += pixels.size
    return LocalMeasured(before, bits / values)


@dataclass(frozen=True, eq=False)
class Crops:
    """Batches of crops: a function of the recipe and the number of the step alone."""

    recipe: LocalRecipe
    large: Sequence[Image]
    small: Sequence[Image]
    """Those of the first one's shape, if they are smaller than a crop."""

    @staticmethod
    def of(recipe: LocalRecipe, images: Sequence[Image]) -> Crops:
        """Raises :class:`bbans.errors.RecipeError` if there is nothing to crop from."""
        large = [image for image in images if min(image.shape[:2]) >= recipe.crop]
        small = [image for image in images if min(image.shape[:2]) < recipe.crop]
        small = [image for image in small if image.shape == small[0].shape]
        if not large and not small:
            raise RecipeError(f"recipe {recipe.name} has no images to train on")
        return Crops(recipe, large, small)

    def __call__(self, step: int) -> list[Tensor]:
        """Float ``(images, channels, height, width)``: crops, and in every other step, or if there are no crops, as
        many small images as fill a third of them.
        """
        generator = np.random.default_rng((self.recipe.seed, step))
        found = []
        if self.large:
            found.append([self._crop(generator) for _ in range(self.recipe.crops)])
        if self.small and (step % 2 or not self.large):
            positions = self.recipe.crops * self.recipe.crop**2 // 3
            count = max(1, positions // math.prod(self.small[0].shape[:2]))
            found.append(
                [self._flipped(self.small[int(generator.integers(len(self.small)))], generator) for _ in range(count)]
            )
        return [_tensor(np.stack(part)) for part in found]

    def _crop(self, generator: np.random.Generator) -> Image:
        side = self.recipe.crop
        image = self.large[int(generator.integers(len(self.large)))]
        halved = generator.random() < self.recipe.halved and min(image.shape[:2]) >= 2 * side
        wanted = 2 * side if halved else side
        row, column = (generator.integers(size - wanted + 1) for size in image.shape[:2])
        crop = image[row : row + wanted, column : column + wanted]
        if halved:
            squares = crop.reshape(side, 2, side, 2, -1).astype(np.float32)
            crop = np.rint(squares.mean((1, 3))).reshape(side, side, *image.shape[2:]).astype(np.uint8)
        return self._flipped(crop, generator)

    def _flipped(self, image: Image, generator: np.random.Generator) -> Image:
        return image[:, ::-1] if self.recipe.flips and generator.random() < 0.5 else image


def learning_rate(recipe: LocalRecipe, step: int) -> float:
    """Rises, stays, and falls."""
    rising = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    falling = min(1.0, (recipe.steps - step) / max(1, recipe.decay))
    return recipe.learning_rate * rising * max(FINAL_RATE, falling)


@torch.no_grad()
def rate(network: LocalNetwork, images: Sequence[Tensor]) -> float:
    """Bits per dimension of images ``(channels, height, width)``."""
    bits = sum(float(-network(image[None]).sum()) for image in images) / math.log(2)
    return bits / sum(image.numel() for image in images)


def _train(
    recipe: LocalRecipe,
    state: State[LocalNetwork],
    crops: Crops,
    held_out: Sequence[Tensor],
    folder: Path,
    progress: bool,
    deadline: float,
) -> None:
    """Take the steps that are left."""
    bar = tqdm(total=recipe.steps, initial=state.step, desc=recipe.name, disable=None if progress else True)
    total, since, started = 0.0, 0, time.monotonic()
    while state.step < recipe.steps:
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, state.step)
        total += _step(state, crops(state.step))
        state.step += 1
        since += 1
        average_into(state.average, state.network, min(recipe.averaging, state.step / (state.step + 20)))
        bar.update()
        if state.step % recipe.report and state.step < recipe.steps:
            continue
        report = Report(state.step, total / since, rate(state.average, held_out))
        bar.set_postfix(train=f"{report.train:.4f}", held_out=f"{report.held_out:.4f}")
        with (folder / LOG_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(report)) + "\n")
        save_checkpoint(folder / CHECKPOINT_NAME, state, repr(recipe))
        now = time.monotonic()
        if state.step < recipe.steps and now + (now - started) > deadline:
            raise TrainingPaused(f"paused after {state.step} of {recipe.steps} steps; the same command goes on")
        total, since, started = 0.0, 0, now


def _step(state: State[LocalNetwork], batches: Sequence[Tensor]) -> float:
    """Returns bits per dimension."""
    values = sum(batch.numel() for batch in batches)
    bits = 0.0
    for batch in batches:
        loss = -state.network(batch).sum() / (values * math.log(2))
        loss.backward()
        bits += float(loss.detach())
    nn.utils.clip_grad_norm_(state.network.parameters(), GRADIENT_MAXIMUM)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return bits


def _split(recipe: LocalRecipe, images: Sequence[Image]) -> tuple[list[Image], list[Tensor]]:
    """Images to train on, and the middle of the held-out ones, which are large if enough are."""
    shape = (recipe.channels,) if recipe.channels > 1 else ()
    for image in images:
        if image.dtype != np.uint8 or image.shape[2:] != shape or image.ndim != 2 + len(shape):
            wanted = ", ".join(["height", "width", *map(str, shape)])
            raise RecipeError(
                f"recipe {recipe.name} trains on uint8 images of shape ({wanted}), got {image.dtype} of {image.shape}"
            )
    if len(images) <= recipe.held_out:
        raise RecipeError(f"recipe {recipe.name} holds out {recipe.held_out} images, got {len(images)} in all")
    large = [place for place, image in enumerate(images) if min(image.shape[:2]) >= recipe.crop]
    among = large if len(large) > recipe.held_out else range(len(images))
    places = {among[index] for index in np.linspace(0, len(among) - 1, recipe.held_out).astype(int).tolist()}
    held_out = [_tensor(_middle(images[place])[None])[0] for place in sorted(places)]
    return [image for place, image in enumerate(images) if place not in places], held_out


def _middle(image: Image) -> Image:
    rows, columns = (max(0, size - HELD_OUT_SIDE) // 2 for size in image.shape[:2])
    return image[rows : rows + HELD_OUT_SIDE, columns : columns + HELD_OUT_SIDE]


def _tensor(images: Image) -> Tensor:
    """From ``(images, height, width, ...)`` to float ``(images, channels, height, width)``, channels innermost."""
    whole = images.reshape(*images.shape[:3], -1).astype(np.float32)
    return torch.from_numpy(whole).permute(0, 3, 1, 2)
