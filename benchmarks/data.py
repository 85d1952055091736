"""The data sets and the machine of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bbans
from bbans.bench.rate_vs_steps import Point, measure
from bbans.bench.report import write_json
from bbans.model import Model

RESULTS = Path(__file__).parent / "results"
MODELS = {
    "mnist-binary": "binary MNIST",
    "mnist": "grey MNIST",
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "gg-mnist-binary": "binary MNIST",
    "gg-mnist": "grey MNIST",
    "gg-cifar10": "CIFAR-10",
}
"""What the shipped models are for."""
FILES = {"binary MNIST": "mnist", "grey MNIST": "mnist", "Fashion-MNIST": "fashion", "CIFAR-10": "cifar10"}


def shipped() -> dict[str, str]:
    """:data:`MODELS`, as far as they are there."""
    return {name: data for name, data in MODELS.items() if name in bbans.shipped_models()}


def images_of(folder: Path, data: str, part: str = "test") -> NDArray[np.uint8]:
    """The 10,000 test images, or the training images, of a data set; binary MNIST is ``round(x / 255)``."""
    images = np.load(folder / f"{FILES[data]}_{part}.npy")
    return np.round(images / 255).astype(np.uint8) if data.startswith("binary") else images


def test_images(folder: Path, model: str) -> NDArray[np.uint8]:
    """The 10,000 test images as a model takes them."""
    return images_of(folder, MODELS[model])


def points_of_steps(model: Model, images: NDArray[np.uint8], steps: Sequence[int], repeats: int) -> list[Point]:
    """Whole files for every posterior and K, with the fastest of so many times, all measured one after the other."""
    rounds = [list(measure(model, images, list(model.encoders), steps)) for _ in range(repeats)]
    return [
        replace(
            same[0],
            encode_seconds_per_image=min(point.encode_seconds_per_image for point in same),
            decode_seconds_per_image=min(point.decode_seconds_per_image for point in same),
        )
        for same in zip(*rounds, strict=True)
    ]


def save(name: str, result: dict[str, object]) -> None:
    """Write a result beside what it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
