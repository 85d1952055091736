"""Whether the models are worth using: whole files of all test images against the best that other codecs make of them.

python benchmarks/worth.py DATA [MODEL ...]

With names, only these models are measured; what is known of the others stays.

The other codecs are those of `results/baselines-*.json` (`bbans bench baselines`). A file that holds its model is
smaller from about as many images on as the model has bytes for each byte that an image saves.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from data import RESULTS, images_of, save

import bbans
from bbans.embedded import embed

SETS = {
    "binary MNIST": ("mnist-binary", "baselines-mnist-binary"),
    "grey MNIST": ("mnist", "baselines-mnist"),
    "Fashion-MNIST": ("fashion", "baselines-fashion"),
    "CIFAR-10": ("cifar10", "baselines-cifar10"),
}
"""Model and baselines of each data set."""
REPEATS = 3
"""The fastest counts."""


def best_other(name: str) -> dict[str, Any]:
    """The smallest that another codec made of the set."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["codecs"]
    others = [row for row in rows if not row["codec"].startswith("bbans")]
    return dict(min(others, key=lambda row: row["bytes"]))


def measure(folder: Path, data: str) -> dict[str, object]:
    """One data set."""
    name, baselines = SETS[data]
    images = images_of(folder, data)
    codec = bbans.Codec.of(bbans.load_model(name))
    assert codec.model is not None
    encode, decode = math.inf, math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        file = codec.compress(images)
        encode, start = min(encode, time.perf_counter() - start), time.perf_counter()
        decoded = codec.decompress(file)
        decode = min(decode, time.perf_counter() - start)
        assert (decoded == images).all()
    model = len(embed(codec.model, codec.posterior))
    other = best_other(baselines)
    saved = (other["bytes"] - len(file)) / len(images)
    return {
        "model": name,
        "images": len(images),
        "bytes": len(file),
        "bits_per_dimension": 8 * len(file) / images.size,
        "model_bytes": model,
        "bits_per_dimension_with_model": 8 * (len(file) + model) / images.size,
        "encode_images_per_second": len(images) / encode,
        "decode_images_per_second": len(images) / decode,
        "best_other": {key: other[key] for key in ("codec", "arrangement", "bytes", "bits_per_dimension")},
        "images_from_which_the_file_with_model_is_smaller": math.ceil(model / saved) if saved > 0 else None,
    }


def main() -> None:
    folder = Path(sys.argv[1])
    names = sys.argv[2:] or list(bbans.shipped_models())
    sets: dict[str, object] = json.loads((RESULTS / "worth.json").read_text())["sets"] if sys.argv[2:] else {}
    for data, (name, baselines) in SETS.items():
        if name in names and (RESULTS / f"{baselines}.json").exists():
            sets[data] = measure(folder, data)
            print(data, sets[data], flush=True)
    save("worth", {"sets": sets})


if __name__ == "__main__":
    main()
