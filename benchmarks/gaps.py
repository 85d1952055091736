"""What inference costs in files of the shipped models, and whether the analysis sees what files cost.

python benchmarks/gaps.py DATA [MODEL ...]

Writes whole files of the first 1,000 and all 10,000 test images at K = 0, every byte counted, beside L[q] of the thawed
network to results/gaps-files.json. The gaps themselves are what `bbans gaps` writes:

bbans gaps gg-mnist-binary IMAGES --training-data IMAGES -o benchmarks/results/gaps-gg-mnist-binary.json
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from data import RESULTS, save, shipped, test_images

import bbans
from bbans.analysis.coded import coded_posteriors
from bbans.analysis.estimates import log_joint_of
from bbans.analysis.gaps import measure_encoders
from bbans.portable.engines import engine_named
from bbans.training.thaw import thaw

BATCH = 100
SAMPLES = 2
COUNTS = (1000, 10_000)


def compare(name: str, folder: Path) -> list[dict[str, object]]:
    """Files and L[q], in bits per dimension."""
    model = bbans.load_model(name)
    posterior = model.default_posterior
    network = thaw(model)[posterior]
    images = test_images(folder, name)
    x = images.reshape(len(images), -1)
    nats = []
    noise = torch.Generator().manual_seed(0)
    for part in np.split(x, len(x) // BATCH):
        coded = coded_posteriors(model, posterior, part, (), engine_named(), torch.device("cpu"))
        log_joint = log_joint_of(network, torch.from_numpy(part).float())
        found = measure_encoders(log_joint, {posterior: coded[posterior]}, SAMPLES, noise)
        nats.append(-found[posterior].value.numpy())
    elbo = np.concatenate(nats) / math.log(2) / model.pixels
    rows: list[dict[str, object]] = []
    for count in COUNTS:
        file = 8 * len(bbans.Codec.of(model).compress(images[:count])) / (count * model.pixels)
        own = float(elbo[:count].mean())
        rows.append({"images": count, "file": file, "elbo": own, "file_over_elbo": file / own - 1})
        print(name, rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    path = RESULTS / "gaps-files.json"
    known = json.loads(path.read_text())["models"] if path.exists() else {}
    for name in sys.argv[2:] or list(shipped()):
        known[name] = compare(name, Path(sys.argv[1]))
        save("gaps-files", {"models": known})
