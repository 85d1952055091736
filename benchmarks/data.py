"""The data sets and the machine of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bbans.bench.report import write_json

RESULTS = Path(__file__).parent / "results"
MODELS = {"gg-mnist-binary": "binary MNIST", "gg-mnist": "grey MNIST"}


def test_images(folder: Path, model: str) -> NDArray[np.uint8]:
    """The 10,000 test images as a model takes them; binary MNIST is ``round(x / 255)``."""
    images = np.load(folder / "mnist_test.npy")
    return np.round(images / 255).astype(np.uint8) if model.endswith("binary") else images


def save(name: str, result: dict[str, object]) -> None:
    """Write a result beside what it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
