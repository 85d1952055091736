"""Rate and time against K for each posterior, in whole files of the first 1,000 test images.

python benchmarks/steps.py DATA
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from data import MODELS, save, test_images

import bbans
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.inference.refined import natural_gradient
from bbans.portable.engines import engine_named
from bbans.training.run import frozen_bits_per_dimension

IMAGES = 1000
STEPS = range(11)


def measure(name: str, folder: Path) -> dict[str, object]:
    """Every posterior and K of one model."""
    images = test_images(folder, name)[:IMAGES]
    x = images.reshape(IMAGES, -1).astype(np.int64)
    model = bbans.load_model(name)
    files = []
    for posterior in model.encoders:
        for steps in STEPS:
            codec = bbans.Codec.of(model, posterior=posterior, steps=steps)
            codec.compress(images[:10])
            start = time.perf_counter()
            data = codec.compress(images)
            middle = time.perf_counter()
            assert (codec.decompress(data) == images).all()
            end = time.perf_counter()
            row: dict[str, object] = {
                "posterior": posterior,
                "steps": steps,
                "bits_per_dimension": 8 * len(data) / images.size,
                "encode_seconds_per_image": (middle - start) / IMAGES,
                "decode_seconds_per_image": (end - middle) / IMAGES,
            }
            for climb, key in ((natural_gradient, "elbo"), (adam, "elbo_with_the_papers_steps")):
                evaluated = EvaluatedModel.of(model, posterior, engine_named(), steps, climb)
                row[key] = frozen_bits_per_dimension(x, evaluated)
            files.append(row)
            print(name, row, flush=True)
    return {"data": MODELS[name], "images": IMAGES, "files": files}


if __name__ == "__main__":
    save("steps", {"models": {name: measure(name, Path(sys.argv[1])) for name in MODELS}})
