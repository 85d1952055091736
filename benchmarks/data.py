"""The data sets and the machine of the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbans.bench.rate_vs_steps import Point, measure
from bbans.bench.report import write_json
from bbans.model import Model

RESULTS = Path(__file__).parent / "results"
MODELS = {"gg-mnist-binary": "binary MNIST", "gg-mnist": "grey MNIST"}


def test_images(folder: Path, model: str) -> NDArray[np.uint8]:
    """The 10,000 test images as a model takes them; binary MNIST is ``round(x / 255)``."""
    images = np.load(folder / "mnist_test.npy")
    return np.round(images / 255).astype(np.uint8) if model.endswith("binary") else images


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
