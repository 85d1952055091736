"""Rate and time against K for each posterior, in whole files of the first 1,000 test images, beside the ELBO.

`bbans bench rate-vs-steps` measures all of it but the ELBO, on any data.

python benchmarks/steps.py DATA
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from data import MODELS, save, test_images

import bbans
from bbans.bench import rate_vs_steps
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
    for point in rate_vs_steps.measure(model, images, list(model.encoders), STEPS):
        row: dict[str, object] = asdict(point)
        for climb, key in ((natural_gradient, "elbo"), (adam, "elbo_with_the_papers_steps")):
            evaluated = EvaluatedModel.of(model, point.posterior, engine_named(), point.steps, climb)
            row[key] = frozen_bits_per_dimension(x, evaluated)
        files.append(row)
        print(name, row, flush=True)
    return {"data": MODELS[name], "images": IMAGES, "files": files}


if __name__ == "__main__":
    save("steps", {"models": {name: measure(name, Path(sys.argv[1])) for name in MODELS}})
