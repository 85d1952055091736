"""What images cost that a model was not made for, what K steps win back, and that zstandard bounds it.

python benchmarks/out_of_distribution.py DATA [IMAGES]

With a number of images other than the default it only prints what it finds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from data import images_of, save

import bbans

IMAGES = 200
STEPS = (0, 10, 50)
"""K."""


def cases(folder: Path, count: int) -> dict[str, tuple[str, np.ndarray]]:
    """For each case a model and images."""
    grey, fashion, binary = (
        images_of(folder, data)[:count] for data in ("grey MNIST", "Fashion-MNIST", "binary MNIST")
    )
    noise = np.random.default_rng(0).integers(0, 256, grey.shape, dtype=np.uint8)
    return {
        "grey MNIST (its own)": ("mnist", grey),
        "Fashion-MNIST": ("mnist", fashion),
        "inverted MNIST": ("mnist", 255 - grey),
        "noise": ("mnist", noise),
        "Fashion-MNIST (its own)": ("fashion", fashion),
        "grey MNIST": ("fashion", grey),
        "binary MNIST (its own)": ("mnist-binary", binary),
        "inverted binary MNIST": ("mnist-binary", 1 - binary),
        "binary noise": ("mnist-binary", noise % 2),
    }


def main() -> None:
    rows = []
    count = int(sys.argv[2]) if len(sys.argv) > 2 else IMAGES
    for data, (name, images) in cases(Path(sys.argv[1]), count).items():
        if name not in bbans.shipped_models():
            continue
        model = bbans.load_model(name)
        row: dict[str, object] = {"model": name, "data": data, "images": len(images)}
        for steps in STEPS:
            start = time.perf_counter()
            # The chunk itself: a file would hold zstandard's bytes where these are fewer.
            x = images.reshape(len(images), -1).astype(np.int64)
            payload = bbans.Codec.of(model, steps=steps).chunk_coder().encode(x)
            row[f"K = {steps}"] = 8 * len(payload) / images.size
            row[f"seconds, K = {steps}"] = time.perf_counter() - start
        row["file with --model auto"] = 8 * len(bbans.compress(images)) / images.size
        row["zstandard alone"] = 8 * len(bbans.compress(images, model=None)) / images.size
        rows.append(row)
        print(row, flush=True)
    if count == IMAGES:
        save("out-of-distribution", {"cases": rows})


if __name__ == "__main__":
    main()
