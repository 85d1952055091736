"""Rates of whole files, every byte counted, against the ELBO of the network before and after freezing.

python benchmarks/rates.py DATA [MODEL ...]

With names, only these models are measured; what is known of the others stays.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from data import MODELS, RESULTS, save, shipped, test_images
from PIL import Image
from safetensors.torch import load_file

import bbans
from bbans.evaluated import EvaluatedModel
from bbans.portable.engines import engine_named
from bbans.training.loop import bits_per_dimension, build
from bbans.training.recipe import load_recipe
from bbans.training.run import frozen_bits_per_dimension, network_name

COUNTS = (0, 1, 2, 3, 17, 1000, 10000)
SAMPLED = 10_000
"""Images that an ELBO is averaged over, with a new sample of the latents whenever the images are used up."""
SINGLES = 100
"""How many images are also written alone."""


def png_size(image: np.ndarray) -> int:
    """Bytes of one image as an optimized PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return len(file.getvalue())


def measure(name: str, folder: Path) -> dict[str, object]:
    """All the rates of one model."""
    path = bbans.shipped_models()[name]
    model = bbans.load_model(name)
    images = test_images(folder, name)
    recipe = load_recipe(path / "recipe.toml")
    network = None
    trained = path / network_name(model.default_posterior)
    if trained.exists():
        network = build(recipe)
        network.load_state_dict(load_file(trained))
    files = []
    for count in COUNTS:
        part = images[:count]
        data = bbans.Codec.of(model).compress(part)
        back = bbans.decompress(data)
        assert back.dtype == part.dtype and back.shape == part.shape and (back == part).all()
        row: dict[str, object] = {"images": count, "bytes": len(data), "round_trip": True}
        if count:
            row["bits_per_dimension"] = 8 * len(data) / part.size
        if count >= 1000:
            x = part.reshape(count, -1)
            evaluated = EvaluatedModel.of(model, model.default_posterior, engine_named())
            seeds = range(SAMPLED // count)
            frozen = [frozen_bits_per_dimension(x.astype(np.int64), evaluated, seed) for seed in seeds]
            row["frozen_elbo"] = float(np.mean(frozen))
            if network is not None:
                pixels = torch.from_numpy(x).float()
                row["float_elbo"] = float(np.mean([bits_per_dimension(network, pixels, seed) for seed in seeds]))
        files.append(row)
        print(name, row, flush=True)
    single = [len(bbans.Codec.of(model).compress(image[None])) for image in images[:SINGLES]]
    return {
        "data": MODELS[name],
        "files": files,
        "single_image_bytes": {
            "images": SINGLES,
            "first": single[0],
            "mean": float(np.mean(single)),
            "largest": max(single),
            "at_most_120": sum(size <= 120 for size in single),
        },
        "single_png_bytes": {"mean": float(np.mean([png_size(image) for image in images[:SINGLES]]))},
        "single_smaller_than_png": sum(
            size < png_size(image) for size, image in zip(single, images[:SINGLES], strict=True)
        ),
    }


if __name__ == "__main__":
    names = sys.argv[2:] or list(shipped())
    known = json.loads((RESULTS / "rates.json").read_text())["models"] if sys.argv[2:] else {}
    save("rates", {"models": known | {name: measure(name, Path(sys.argv[1])) for name in names}})
