"""Rate and time against K for each posterior, in whole files of the first 1,000 test images, beside the ELBO.

`bbans bench rate-vs-steps` measures all of it but the ELBO, on any data.

python benchmarks/steps.py DATA
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from data import MODELS, points_of_steps, save, test_images

import bbans
from bbans.bench.rate_vs_steps import Point, time_ratios
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.inference.refined import natural_gradient
from bbans.portable.engines import engine_named
from bbans.training.run import frozen_bits_per_dimension

IMAGES = 1000
STEPS = range(11)
REPEATS = 2


def measure(name: str, folder: Path) -> list[Point]:
    """Files for every posterior and K of one model."""
    return points_of_steps(bbans.load_model(name), test_images(folder, name)[:IMAGES], STEPS, REPEATS)


def with_elbos(name: str, folder: Path, points: list[Point]) -> dict[str, object]:
    """The same, beside the ELBO after these steps and after the paper's."""
    x = test_images(folder, name)[:IMAGES].reshape(IMAGES, -1).astype(np.int64)
    model = bbans.load_model(name)
    files = []
    for point, ratios in zip(points, time_ratios(points), strict=True):
        row: dict[str, object] = asdict(point)
        if ratios:
            row["encode_time_over_no_steps"], row["decode_time_over_no_steps"] = ratios
        for climb, key in ((natural_gradient, "elbo"), (adam, "elbo_with_the_papers_steps")):
            evaluated = EvaluatedModel.of(model, point.posterior, engine_named(), point.steps, climb)
            row[key] = frozen_bits_per_dimension(x, evaluated)
        files.append(row)
        print(name, row, flush=True)
    return {"data": MODELS[name], "images": IMAGES, "files": files}


if __name__ == "__main__":
    data = Path(sys.argv[1])
    measured = {name: measure(name, data) for name in MODELS}
    print("timed; what follows need not be alone on the machine", flush=True)
    save("steps", {"models": {name: with_elbos(name, data, points) for name, points in measured.items()}})
