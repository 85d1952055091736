"""What the latents of `cifar10` win beside its context network: held-out images with the latents set to 0.

python benchmarks/without_latents.py DATA
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from data import images_of, save

import bbans
from bbans.training.local import build_local, rate
from bbans.training.local_recipe import LocalRecipe
from bbans.training.thaw import thaw

BATCH = 500


def main() -> None:
    images = torch.from_numpy(images_of(Path(sys.argv[1]), "CIFAR-10")).permute(0, 3, 1, 2)
    network = build_local(LocalRecipe("without latents", channels=3, steps=1, start="cifar10"))
    alone = sum(rate(network, list(part.float())) * len(part) for part in images.split(BATCH)) / len(images)
    vae = next(iter(thaw(bbans.load_model("cifar10")).values()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        pixels = images.permute(0, 2, 3, 1).flatten(1)
        elbo = sum(float(vae.elbo(part.float(), generator).sum()) for part in pixels.split(BATCH))
    negative_elbo = -elbo / pixels.numel() / torch.log(torch.tensor(2.0)).item()
    found = {"images": len(images), "bits_per_dimension_without_latents": alone, "negative_elbo": negative_elbo}
    save("without-latents", found)
    print(found)


if __name__ == "__main__":
    main()
