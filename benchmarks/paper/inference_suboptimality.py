"""Table 1 of the poster "Inference Suboptimality in Variational Autoencoders", smaller.

python benchmarks/paper/inference_suboptimality.py DATA --train-only     # networks, kept in --work
python benchmarks/paper/inference_suboptimality.py DATA --trained-only   # analyses those that are there
python benchmarks/paper/inference_suboptimality.py DATA                  # both

Stopped at any time, it goes on where it was; the result is written after each network.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
from setting import Images, kept, save

from bbans.analysis.estimates import Annealing, log_joint_of
from bbans.analysis.gaps import (
    FLOW,
    GAUSSIAN,
    Amortized,
    Average,
    Effort,
    Measured,
    measure_bounds,
    measure_encoders,
)
from bbans.analysis.posteriors import ImageFlow
from bbans.nets import VAE, DiagonalGaussian, FlowVAE
from bbans.training.loop import train
from bbans.training.recipe import Recipe

LATENTS = 50
HIDDEN, LARGE = (200, 200), (500, 500)
HELD_OUT = 1000
BATCH = 25
AMORTIZED = "amortized"
EFFORT = Effort(annealing=Annealing(temperatures=200))
ROWS = ("log p(x)", "L[q*_Flow]", "L[q*_FFG]", "L[q]", "approximation gap", "amortization gap", "inference gap")
POSTER = {
    "MNIST-regular-gaussian": (-89.85, -90.83, -91.19, -92.76, 1.34, 1.57, 2.91),
    "MNIST-regular-flow": (-88.82, -90.40, -102.88, -91.42, 1.58, 1.02, 2.60),
    "MNIST-large-gaussian": (-89.09, -90.05, -90.34, -91.12, 1.25, 0.78, 2.03),
    "MNIST-large-flow": (-88.59, -90.26, -103.53, -91.25, 1.67, 0.99, 2.66),
    "MNIST-no-annealing-gaussian": (-89.84, -90.89, -91.02, -94.31, 1.18, 3.29, 4.47),
    "MNIST-no-annealing-flow": (-89.41, -90.78, -92.34, -94.29, 1.37, 3.51, 4.88),
    "Fashion-MNIST-regular-gaussian": (-97.78, -98.03, -99.03, -103.20, 1.25, 4.17, 5.42),
    "Fashion-MNIST-regular-flow": (-97.35, -97.74, -130.90, -102.19, 0.39, 4.45, 4.84),
    "Fashion-MNIST-large-gaussian": (-94.55, -95.93, -98.09, -101.28, 3.54, 3.19, 6.73),
    "Fashion-MNIST-large-flow": (-96.16, -96.87, -129.24, -100.60, 0.71, 3.73, 4.44),
    "Fashion-MNIST-no-annealing-gaussian": (-100.56, -100.74, -101.26, -103.63, 0.70, 2.37, 3.07),
    "Fashion-MNIST-no-annealing-flow": (-100.33, -100.61, -102.80, -104.05, 0.28, 3.44, 3.72),
}
"""The poster's table 1, in nats."""


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
            learning_rate=2e-3,
            averaging=0.99,
            annealing="entropy",
            annealing_epochs=0 if self.encoder == "no annealing" else epochs // 3,
            validation_images=HELD_OUT,
            keep="last",
        )


CELLS = [
    Cell(data, encoder, family)
    for encoder in ("regular", "large", "no annealing")
    for family in ("gaussian", "flow")
    for data in ("MNIST", "Fashion-MNIST")
]


def network_of(cell: Cell, folder: Path, work: Path, images: int, epochs: int) -> VAE:
    """The trained network, from ``work`` if it is there."""
    how = cell.recipe(epochs)
    training = cell.images(folder, "train")[: images + HELD_OUT]
    return kept(work, file_name(cell, images, epochs), how, lambda journal: train(how, training, journal))[0]


def file_name(cell: Cell, images: int, epochs: int) -> str:
    """Of what is kept, without its ending."""
    return f"{cell.key}-{images}-{epochs}"


def analysed(cell: Cell, network: VAE, folder: Path, work: Path, key: str, images: int) -> Measured:
    """What was measured of the first test images, from ``work`` as far as it is there."""
    path = work / f"{key}-gaps.json"
    parts = json.loads(path.read_text()) if path.exists() else []
    pixels = torch.from_numpy(cell.images(folder, "test")[:images].reshape(images, -1)).float()
    network.requires_grad_(False)
    for first in range(len(parts) * BATCH, images, BATCH):
        batch = pixels[first : first + BATCH]
        noise = torch.Generator().manual_seed(first)
        log_joint = log_joint_of(network, batch)
        encoders = measure_encoders(log_joint, {AMORTIZED: Amortized(network, batch)}, EFFORT.elbo_samples, noise)
        flow = ImageFlow.of_network(network, batch) if isinstance(network, FlowVAE) else None
        with torch.no_grad():  # moments of the amortized posterior, whatever it is
            z = network.draw(batch, 500, noise)[0]
        start = DiagonalGaussian(z.mean(0), torch.log(z.std(0)))
        parts.append(Measured(encoders, measure_bounds(log_joint, start, EFFORT, noise, flow)).to_json())
        path.write_text(json.dumps(parts))
    return Measured.joined([Measured.from_json(part) for part in parts])


def column(cell: Cell, measured: Measured) -> dict[str, dict[str, float]]:
    """A column of the table, in nats with standard errors."""
    values = {
        "log p(x)": measured.log_likelihood,
        "L[q*_Flow]": measured.optima[FLOW].value,
        "L[q*_FFG]": measured.optima[GAUSSIAN].value,
        "L[q]": measured.encoders[AMORTIZED].value,
        **measured.gaps(AMORTIZED, FLOW if cell.family == "flow" else GAUSSIAN),
        "flow over FFG": measured.optima[FLOW].value - measured.optima[GAUSSIAN].value,
    }
    return {name: vars(Average.of(value)) for name, value in values.items()}


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("paper-work"), show_default=True)
@click.option("--images", default=59000, show_default=True, help="To train on.")
@click.option("--epochs", default=6, show_default=True, help="The poster: 3,280.")
@click.option("--analysed", "count", default=50, show_default=True, help="Test images whose gaps are measured.")
@click.option("--train-only", is_flag=True)
@click.option("--trained-only", is_flag=True)
def main(data: Path, work: Path, images: int, epochs: int, count: int, train_only: bool, trained_only: bool) -> None:
    columns: list[dict[str, object]] = []
    for cell in CELLS:
        if trained_only and not (work / f"{file_name(cell, images, epochs)}.safetensors").exists():
            continue
        network = network_of(cell, data, work, images, epochs)
        if train_only:
            continue
        measured = analysed(cell, network, data, work, file_name(cell, images, epochs), count)
        poster = dict(zip(ROWS, POSTER[cell.key], strict=True))
        columns.append({**vars(cell), "nats": column(cell, measured), "poster": poster})
        print(cell.key, {name: round(value["mean"], 2) for name, value in column(cell, measured).items()}, flush=True)
        save(
            "paper-inference-suboptimality",
            {
                "setting": {"images": images, "epochs": epochs, "analysed": count, "effort": asdict(EFFORT)},
                "columns": columns,
            },
        )


if __name__ == "__main__":
    main()
