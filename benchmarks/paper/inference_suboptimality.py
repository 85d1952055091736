"""The table of the poster "Inference Suboptimality in Variational Autoencoders", smaller.

python benchmarks/paper/inference_suboptimality.py DATA --train-only   # networks, kept in --work
python benchmarks/paper/inference_suboptimality.py DATA                # trains what is missing, and analyses

Stopped at any time, it goes on where it was; the result is written after each network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from setting import Images, kept

from bbans.nets import VAE
from bbans.training.loop import train
from bbans.training.recipe import Recipe

LATENTS = 50
HIDDEN, LARGE = (200, 200), (500, 500)
HELD_OUT = 1000


@dataclass(frozen=True)
class Cell:
    """A column of the poster's table."""

    data: str
    encoder: str
    family: str

    @property
    def key(self) -> str:
        """The name of its files."""
        return "-".join((self.data, self.encoder, self.family)).replace(" ", "-")

    def images(self, folder: Path, part: str) -> Images:
        """Of the data set, rounded to 0 and 1."""
        grey = np.load(folder / f"{'mnist' if self.data == 'MNIST' else 'fashion'}_{part}.npy")
        return np.round(grey / 255).astype(np.uint8)

    def recipe(self, epochs: int) -> Recipe:
        """The poster's networks as far as it names them; the rate falls, as there is little time."""
        return Recipe(
            name=self.key,
            image_shape=(28, 28),
            likelihood="bernoulli",
            latent_precision=12,
            epochs=epochs,
            latents=LATENTS,
            hidden=HIDDEN,
            encoder_hidden=LARGE if self.encoder == "large" else (),
            posterior=self.family,
            batch_size=100,
            averaging=0.99,
            annealing="entropy",
            annealing_epochs=0 if self.encoder == "no annealing" else epochs // 2,
            validation_images=HELD_OUT,
            keep="last",
        )


CELLS = [
    Cell(data, encoder, family)
    for data in ("MNIST", "Fashion-MNIST")
    for encoder in ("regular", "large", "no annealing")
    for family in ("gaussian", "flow")
]


def network_of(cell: Cell, folder: Path, work: Path, images: int, epochs: int) -> VAE:
    """The trained network, from ``work`` if it is there."""
    how = cell.recipe(epochs)
    training = cell.images(folder, "train")[: images + HELD_OUT]
    return kept(work, f"{cell.key}-{images}-{epochs}", how, lambda journal: train(how, training, journal))[0]


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("paper-work"), show_default=True)
@click.option("--images", default=10000, show_default=True, help="To train on.")
@click.option("--epochs", default=16, show_default=True, help="The poster: 3,280.")
@click.option("--train-only", is_flag=True)
def main(data: Path, work: Path, images: int, epochs: int, train_only: bool) -> None:
    for cell in CELLS:
        network_of(cell, data, work, images, epochs)


if __name__ == "__main__":
    main()
