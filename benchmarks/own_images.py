"""Models that `bbans train` made of one's own images, on images that they have not seen, beside the usual compressors.

    python benchmarks/own_images.py DATA MODELS SET...

Measures these sets, and keeps what `benchmarks/results/own-images.json` says of the others. `DATA` holds the images and
`MODELS` a folder for each model:

- `fashion`: `fashion_test.npy`; trained on `fashion_train.npy`.
- `cells`: `cells_test.npy`, the 334 microscopy images of 256 x 256 in tiles of 28 x 28, 81 from each image; trained
  on the tiles of the first 250 images. Both with fully connected networks, which a recipe has to ask for.
- `dsb`: `dsb_test.npy`, the last 84 of these images, whole; trained on the first 250 (`dsb_train.npy`).
- `isbi`: `isbi_test.npy`, the last 10 of the 30 electron microscopy images; trained on the first 20 (`isbi_train.npy`).
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data import RESULTS, save

import bbans
from bbans.bench.baselines import Skipped, chosen, measure
from bbans.embedded import embed

CODECS = ("zstd-19", "xz-9e", "bzip3", "zpaq-5", "jxl-10")


@dataclass(frozen=True)
class Set:
    """Images that a model is tried on."""

    data: str
    steps: tuple[int, ...]
    trained: str
    """How long."""


SETS = {
    "fashion": Set("Fashion-MNIST test", (0, 1, 5, 10), "fully connected"),
    "cells": Set("microscopy tiles, held out", (0, 1, 5, 10), "fully connected"),
    "dsb": Set("microscopy images, 256 x 256", (0,), "of any size, as is the default: from `photo-grey` on"),
    "isbi": Set("electron microscopy images, 512 x 512", (0,), "of any size, as is the default: from `photo-grey` on"),
}


def measured(name: str, data: Path, models: Path) -> dict[str, object]:
    """Whole files of one set with its model, and with other codecs; when embedding the model pays."""
    images, own = np.load(data / f"{name}_test.npy"), SETS[name]
    model = bbans.load_model(models / name)
    files = {f"K = {steps}": len(bbans.Codec.of(model, steps=steps).compress(images)) for steps in own.steps}
    best = min(files.values())
    embedded = len(embed(model, model.default_posterior))
    pays: dict[str, int | None] = {}
    for baseline in chosen(CODECS):
        row = measure(baseline, images)
        if isinstance(row, Skipped):
            print(row, flush=True)
        elif row.bytes < files.get(row.codec, math.inf):
            files[row.codec] = row.bytes
            saved = (row.bytes - best) / len(images)
            pays[row.codec] = math.ceil(embedded / saved) if saved > 0 else None
    rates = {key: 8 * size / images.size for key, size in files.items()}
    print(name, rates, flush=True)
    return {
        "data": own.data,
        "model": own.trained,
        "images": len(images),
        "pixels": images.size,
        "embedded_model_bytes": embedded,
        "extrapolated_images_to_break_even": pays,
        "bits_per_dimension": rates,
    }


if __name__ == "__main__":
    folders = Path(sys.argv[1]), Path(sys.argv[2])
    before = json.loads((RESULTS / "own-images.json").read_text())["sets"]
    save("own-images", {"sets": before | {name: measured(name, *folders) for name in sys.argv[3:]}})
