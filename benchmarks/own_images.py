"""Models that `bbans train` made without a recipe, on images that they have not seen, beside the usual compressors.

    bbans train fashion_train.npy -o MODELS/fashion
    bbans train cells_train.npy -o MODELS/cells
    python benchmarks/own_images.py DATA MODELS

`DATA` holds `fashion_test.npy` and `cells_test.npy`: the microscopy set (334 images of 256 x 256) in tiles of 28 x 28,
81 from each image; the tiles of the first 250 images are trained on.
"""

from __future__ import annotations

import bz2
import lzma
import math
import sys
from pathlib import Path

import numpy as np
import zstandard
from data import save

import bbans
from bbans.embedded import embed

SETS = {"fashion": "Fashion-MNIST test", "cells": "microscopy tiles, held out"}
STEPS = (0, 1, 5, 10)


def measure(name: str, data: Path, models: Path) -> dict[str, object]:
    """Whole files of one set with its model, and with other compressors; when embedding the model pays."""
    images = np.load(data / f"{name}_test.npy")
    model = bbans.load_model(models / name)
    files = {f"K = {steps}": len(bbans.Codec.of(model, steps=steps).compress(images)) for steps in STEPS}
    raw = images.tobytes()
    files["zstd -19"] = len(zstandard.ZstdCompressor(19).compress(raw))
    files["xz -9e"] = len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
    files["bzip2 -9"] = len(bz2.compress(raw))
    try:
        import bz3
    except ImportError:
        print("bzip3 is not installed, and skipped")
    else:
        files["bzip3"] = len(bz3.compress(raw, block_size=min(511 << 20, max(65 << 10, len(raw)))))
    best = files[f"K = {STEPS[-1]}"]
    embedded = len(embed(model, model.default_posterior))
    saved = {other: (size - best) / len(images) for other, size in files.items() if not other.startswith("K")}
    rates = {key: 8 * size / images.size for key, size in files.items()}
    print(name, rates, flush=True)
    return {
        "data": SETS[name],
        "images": len(images),
        "pixels": images.size,
        "embedded_model_bytes": embedded,
        "extrapolated_images_to_break_even": {
            other: math.ceil(embedded / bytes_an_image) if bytes_an_image > 0 else None
            for other, bytes_an_image in saved.items()
        },
        "bits_per_dimension": rates,
    }


if __name__ == "__main__":
    folders = Path(sys.argv[1]), Path(sys.argv[2])
    save("own-images", {"sets": {name: measure(name, *folders) for name in SETS}})
