"""What the experiments of the GG paper share: data, recipes, networks kept between runs, results and plots.

Every script takes the folder with the data sets, and ``--work``, a folder in which trainings are kept: a script that
was stopped goes on, and one that needs the networks of another finds them. The defaults are what two cores do in an
evening; ``--images 60000 --test-images 10000 --epochs 1000 --further-epochs 100 --learning-rate 3e-4`` is what the
paper does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from bbans.nets import VAE
from bbans.training.loop import Journal, build, fit_posterior, train
from bbans.training.recipe import PosteriorRecipe, Recipe

sys.path.insert(0, str(Path(__file__).parent.parent))
from data import RESULTS, save

Images = NDArray[np.uint8]
Curve = list[float]
"""Test bits per dimension after each epoch."""
Script = TypeVar("Script", bound=Callable[..., None])


@dataclass(frozen=True)
class DataSet:
    """A set of images, with the likelihood and the number of latents that the paper gives it."""

    name: str
    file: str
    likelihood: str
    latents: int

    @property
    def file_name(self) -> str:
        """The name in what files are called."""
        return self.name.replace(" ", "-")


BINARY = DataSet("binary MNIST", "mnist", "bernoulli", 16)
GREY = DataSet("grey MNIST", "mnist", "discretized-logistic", 32)
FASHION = DataSet("Fashion-MNIST", "fashion", "discretized-logistic", 32)


@dataclass(frozen=True)
class Setting:
    """How much of what the paper does is done."""

    data: Path
    work: Path
    images: int
    test_images: int
    epochs: int
    further_epochs: int
    """Of the encoder alone."""
    learning_rate: float
    """Of the VAE."""
    seeds: int

    def read(self, data: DataSet) -> tuple[Images, Images]:
        """Training and test images."""
        train_images, test_images = (np.load(self.data / f"{data.file}_{part}.npy") for part in ("train", "test"))
        return train_images[: self.images], test_images[: self.test_images]

    def caption(self) -> str:
        """What is less than in the paper."""
        return (
            f"{self.images:,} training images, {self.test_images:,} test images, {self.epochs} epochs at "
            f"{self.learning_rate:g}, encoder alone {self.further_epochs}, "
            f"{self.seeds} seeds (the paper: 60,000, 10,000, 1,000 at 0.0003, 100, 3)"
        )

    def described(self) -> dict[str, object]:
        """For the result's file."""
        return {key: value for key, value in asdict(self).items() if key not in ("data", "work")}


def settings(script: Script) -> Script:
    """The options that all scripts share."""
    options = [
        click.argument("data", type=click.Path(path_type=Path)),
        click.option("--work", type=click.Path(path_type=Path), default=Path("paper-work"), show_default=True),
        click.option("--images", default=6000, show_default=True),
        click.option("--test-images", default=2000, show_default=True),
        click.option("--epochs", default=120, show_default=True),
        click.option("--further-epochs", default=20, show_default=True),
        click.option("--learning-rate", default=1e-3, show_default=True),
        click.option("--seeds", default=3, show_default=True),
    ]
    for option in reversed(options):
        script = option(script)
    return script


def recipe(setting: Setting, data: DataSet, seed: int) -> Recipe:
    """Training as the paper does it: plain epochs at a constant rate, the last one kept."""
    return Recipe(
        name=f"{data.name}, seed {seed}",
        image_shape=(28, 28),
        likelihood=data.likelihood,
        latents=data.latents,
        hidden=(500, 500),
        latent_precision=12,
        epochs=setting.epochs,
        batch_size=100,
        learning_rate=setting.learning_rate,
        schedule="constant",
        averaging=0.0,
        validation_images=setting.test_images,  # the test images: they are looked at, and nothing is chosen by them
        keep="last",
        seed=seed,
    )


def kept(work: Path, key: str, how: Recipe, make: Callable[[Journal], VAE]) -> tuple[VAE, Curve]:
    """The network that ``make`` trains and its test curve, from the folder if they are there."""
    work.mkdir(parents=True, exist_ok=True)
    path, log = work / f"{key}.safetensors", work / f"{key}.jsonl"
    if not path.exists():
        network = make(Journal(log, work / f"{key}.checkpoint", progress=True))
        save_file(network.state_dict(), path)
        (work / f"{key}.checkpoint").unlink()
        print(key, json.loads(log.read_text().splitlines()[-1]), flush=True)
    network = build(how)
    network.load_state_dict(load_file(path))
    return network, [json.loads(line)["held_out"] for line in log.read_text().splitlines()]


def vae(setting: Setting, data: DataSet, seed: int) -> tuple[VAE, Curve]:
    """A VAE and its test curve; the networks after every fourth of the training are kept for :func:`at_epoch`."""
    how = recipe(setting, data, seed)
    images = np.concatenate(setting.read(data))
    key = _key(setting, data, seed)

    def keep_part(epoch: int, network: VAE) -> None:
        if 4 * epoch % setting.epochs == 0:
            save_file(network.state_dict(), setting.work / f"{key}-at-{epoch}.safetensors")

    return kept(setting.work, key, how, lambda journal: train(how, images, replace(journal, after_epoch=keep_part)))


def at_epoch(setting: Setting, data: DataSet, seed: int, epoch: int) -> VAE:
    """The network of :func:`vae` after a fourth, half, three fourths or all of its epochs."""
    vae(setting, data, seed)
    network = build(recipe(setting, data, seed))
    network.load_state_dict(load_file(setting.work / f"{_key(setting, data, seed)}-at-{epoch}.safetensors"))
    return network


def _key(setting: Setting, data: DataSet, seed: int) -> str:
    return f"{data.file_name}-{setting.images}-{setting.epochs}-{setting.learning_rate:g}-{seed}"


def refit(
    setting: Setting, data: DataSet, seed: int, network: VAE, start: str, posterior: PosteriorRecipe
) -> tuple[VAE, Curve]:
    """A network with its encoder fitted further to training images, and the test curve; ``start`` names ``network``."""
    return _refit(setting, data, seed, network, f"{start}-{_name(posterior)}", posterior, setting.read(data)[0])


def optimal(
    setting: Setting, data: DataSet, seed: int, network: VAE, start: str, learning_rate: float = 5e-4
) -> tuple[VAE, Curve]:
    """A network with its encoder fitted to the test images themselves (GG 9), in as many steps as :func:`refit`."""
    train_images, test_images = setting.read(data)
    posterior = PosteriorRecipe(
        "wake", round(setting.further_epochs * len(train_images) / len(test_images)), learning_rate=learning_rate
    )
    return _refit(setting, data, seed, network, f"{start}-optimal", posterior, test_images)


def _refit(
    setting: Setting, data: DataSet, seed: int, network: VAE, key: str, posterior: PosteriorRecipe, images: Images
) -> tuple[VAE, Curve]:
    how = recipe(setting, data, seed)
    both = np.concatenate([images, setting.read(data)[1]])
    key = f"{_key(setting, data, seed)}-{key}"
    return kept(setting.work, key, how, lambda journal: fit_posterior(network, posterior, how, both, journal))


def _name(posterior: PosteriorRecipe) -> str:
    values = {key: value for key, value in asdict(posterior).items() if value != getattr(PosteriorRecipe, key, None)}
    return "-".join(str(value) for value in values.values())


def spread(curves: list[Curve]) -> dict[str, Curve]:
    """Mean and standard deviation over the seeds, at every epoch."""
    return {"mean": np.mean(curves, axis=0).tolist(), "deviation": np.std(curves, axis=0).tolist()}


def write(name: str, setting: Setting, result: dict[str, Any], figure: Figure) -> None:
    """Write a result and its plot."""
    save(f"paper-{name}", {"setting": setting.described(), **result})
    figure.supxlabel(setting.caption(), fontsize=7)
    figure.savefig(RESULTS / f"paper-{name}.png", dpi=120)
