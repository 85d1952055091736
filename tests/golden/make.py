"""Writes a golden file for each case that has none yet. Those that are there are never written again.

    python tests/golden/make.py

`digests.json` holds the hashes of the files and of the arrays they decode to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import bbans
from bbans.canonical import canonical_order, row_bytes
from bbans.codec import CHUNK_PIXELS
from bbans.model import Model, shipped_models
from bbans.portable.network import Linear, Network

HERE = Path(__file__).parent
DIGESTS = HERE / "digests.json"


load = cache(bbans.load_model)


@cache
def drawn(model: str, count: int) -> NDArray[np.uint8]:
    """Images drawn from a shipped model, the same everywhere."""
    return bbans.sample_images(load(model), count, seed=11)


def noise(size: int, seed: int) -> NDArray[np.int64]:
    """Integers from 0 to 2**31 - 1, the same everywhere: a linear congruential generator."""
    state, out = seed, []
    for _ in range(size):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        out.append(state >> 33)
    return np.array(out, np.int64)


def small_model() -> Model:
    """A model of 3 x 2 binary pixels and 2 latents, with weights of all sizes, that makes almost nothing of them."""

    def layer(inputs: int, outputs: int, shift: int, seed: int) -> Linear:
        drawn = noise(outputs * inputs + outputs, seed)
        weight = ((drawn[outputs:] % 65536 - 32768) >> drawn[outputs:] % 13).astype(np.int16)
        return Linear(weight.reshape(outputs, inputs), drawn[:outputs] - (1 << 30), shift, -(1 << 18), 1 << 18)

    decoder = Network(1 << 15, (layer(2, 5, 16, 1), layer(5, 6, 22, 2)))
    encoder = Network(1, (layer(6, 4, 18, 3),))
    return Model("small", (3, 2), "bernoulli", 2, 8, 6, 16, decoder, {"amortized": encoder})


def coins() -> NDArray[np.float64]:
    """Images that the small model codes in about a bit a pixel, in a type in which zstandard needs more."""
    return (noise(6 * 3000, 4) % 2).reshape(3000, 3, 2).astype("<f8")


def of_size(model: str, count: int, *shape: int) -> NDArray[np.uint8]:
    """Images of a shape drawn from a model for any size."""
    return bbans.sample_images(load(model).fitted_to(shape), count, seed=11)


def with_opacity() -> NDArray[np.uint8]:
    """An image in colours that is opaque on one side."""
    image = of_size("photo", 1, 23, 31, 4)
    image[:, :, :12, 3] = (17 * np.arange(12)).astype(np.uint8)
    return image


def as_set(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Some of them several times, sorted."""
    images = np.concatenate([images, images[:5], images[:2], images[:1]])
    return images[canonical_order(row_bytes(images))]


def stored() -> NDArray[np.float32]:
    """An array that no model fits."""
    return (np.arange(600, dtype=">f4") / 7).reshape(20, 30)


@dataclass(frozen=True)
class Case:
    """How a golden file is made."""

    array: Callable[[], NDArray[np.generic]]
    model: str | Model | None = None
    chunk_size: int | None = None
    posterior: str | None = None
    steps: int = 0
    embed_model: bool = False
    ordered: bool = True
    chunk_pixels: int = CHUNK_PIXELS


BINARY, GREY = "gg-mnist-binary", "gg-mnist"
CASES = {
    "gg-mnist-binary": Case(lambda: drawn(BINARY, 100), BINARY, 40),
    "gg-mnist-binary-one": Case(lambda: drawn(BINARY, 1).astype(bool), BINARY),
    "gg-mnist-binary-255": Case(lambda: drawn(BINARY, 20).astype(np.int16) * 255, BINARY),
    "gg-mnist-binary-half-asleep": Case(lambda: drawn(BINARY, 30), BINARY, posterior="half-asleep"),
    "gg-mnist-binary-5-steps": Case(lambda: drawn(BINARY, 30), BINARY, steps=5),
    "gg-mnist": Case(lambda: drawn(GREY, 45), GREY, 20),
    "gg-mnist-half-asleep-5-steps": Case(lambda: drawn(GREY, 20), GREY, posterior="half-asleep", steps=5),
    "mnist-binary": Case(lambda: drawn("mnist-binary", 40), "mnist-binary", 25),
    "mnist-binary-half-asleep-5-steps": Case(
        lambda: drawn("mnist-binary", 12), "mnist-binary", 7, posterior="half-asleep", steps=5
    ),
    "mnist-3-steps": Case(lambda: drawn("mnist", 6), "mnist", steps=3),
    "fashion": Case(lambda: drawn("fashion", 8), "fashion"),
    "cifar10": Case(lambda: drawn("cifar10", 4), "cifar10"),
    "cifar10-amortized-2-steps": Case(lambda: drawn("cifar10", 2), "cifar10", posterior="amortized", steps=2),
    "cifar10-half-asleep": Case(lambda: drawn("cifar10", 2), "cifar10", posterior="half-asleep"),
    "gg-cifar10": Case(lambda: drawn("gg-cifar10", 6), "gg-cifar10", 4),
    "gg-cifar10-half-asleep-3-steps": Case(
        lambda: drawn("gg-cifar10", 3), "gg-cifar10", posterior="half-asleep", steps=3
    ),
    "photo": Case(lambda: of_size("photo", 3, 40, 56, 3), "photo", 2),
    "photo-opacity": Case(with_opacity, "photo"),
    "photo-grey": Case(lambda: of_size("photo-grey", 2, 33, 50), "photo-grey"),
    "photo-grey-strips": Case(lambda: of_size("photo-grey", 1, 530, 12)[0], "photo-grey"),
    "embedded": Case(coins, small_model(), 1500, embed_model=True),
    "stored": Case(stored, chunk_size=7),
    "set": Case(lambda: as_set(drawn(BINARY, 100)), BINARY, ordered=False, chunk_pixels=784 * 40),
    "set-2-steps": Case(lambda: as_set(drawn("mnist", 8)), "mnist", 5, steps=2, ordered=False),
}


CASES |= {  # each posterior of each model, as it comes and refined
    f"{model}-{posterior}-{steps}": Case(partial(drawn, model, 2), model, posterior=posterior, steps=steps)
    for model in shipped_models()
    for posterior in load(model).encoders
    for steps in (0, 2)
}


def encode(name: str, array: NDArray[np.generic]) -> bytes:
    case = CASES[name]
    model = load(case.model) if isinstance(case.model, str) else case.model
    codec = bbans.Codec.of(
        model, posterior=case.posterior, steps=case.steps, embed_model=case.embed_model, engine="numpy"
    )
    with patch("bbans.codec.CHUNK_PIXELS", case.chunk_pixels):
        return codec.compress(array, case.chunk_size, case.ordered)


def digest_of(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def main() -> None:
    digests = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    for name in CASES:
        path = HERE / f"{name}.bba"
        if not path.exists():
            array = CASES[name].array()
            data = encode(name, array)
            path.write_bytes(data)
            digests[name] = {"file": hashlib.sha256(data).hexdigest(), "array": digest_of(array)}
    DIGESTS.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
