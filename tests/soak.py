"""Round trips of random arrays with random options, for as long as one likes.

Both ends choose engine, ANS core, threads and chunks on their own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

import bbans
from bbans.codec import Codec
from bbans.model import Model

Images = NDArray[np.uint8]
ENGINES = ("numpy", "numba", "torch") if find_spec("numba") else ("numpy", "torch")
CORES = ("numpy", "numba") if find_spec("numba") else ("numpy",)
FAST = "gg-mnist"
"""What the models begin with that take any number of images."""
TYPES = ("u1", "u1", "u1", "<i2", ">f4", "<f8")


@dataclass
class Soaked:
    """What was done."""

    round_trips: int = 0
    images: int = 0
    bytes: int = 0
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each engine, ANS core and number of threads was read by each other."""


def soak(sets: Mapping[str, Images], seconds: float, largest: int, rng: np.random.Generator) -> Soaked:
    """Round trips of images of ``sets``, by the names of their models, of up to the ``largest`` number of images.

    Raises :class:`AssertionError` for a byte that is lost.
    """
    models = {name: bbans.load_model(name) for name in sets}
    done, end = Soaked(), time.monotonic() + seconds
    arrays = sampled(sets, largest, rng)
    while time.monotonic() < end:
        name, steps, array = next(arrays)
        posterior = str(rng.choice(list(models[name].encoders)))
        model = None if rng.random() < 0.05 else models[name]
        (writer, written_on), (reader, read_on) = (_end(model, posterior, steps, rng) for _ in range(2))
        chunk_size = None if rng.random() < 0.3 else int(rng.integers(1, 1 + max(300, len(array) // 20)))
        back = reader.decompress(writer.compress(array, chunk_size))
        same = (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert same, f"{name}, {posterior}, {steps} steps, {array.shape}: {written_on} to {read_on}"
        done.round_trips += 1
        done.images += len(array)
        done.bytes += array.nbytes
        done.pairs[written_on, read_on] += 1
    return done


def _end(model: Model | None, posterior: str, steps: int, rng: np.random.Generator) -> tuple[Codec, str]:
    """A codec of random settings, and what they are."""
    engine, core, threads = str(rng.choice(ENGINES)), str(rng.choice(CORES)), int(rng.integers(1, 4))
    codec = Codec.of(model, posterior=posterior, steps=steps, engine=engine, device="cpu", ans=core, threads=threads)
    return codec, f"{engine}, {core}, {threads}"


def sampled(
    sets: Mapping[str, Images], largest: int, rng: np.random.Generator
) -> Iterator[tuple[str, int, NDArray[np.generic]]]:
    """A model's name, a number of steps, and images that are the model's, noise, or both."""
    while True:
        name = str(rng.choice(list(sets)))
        fast = name.startswith(FAST)
        count = int(rng.choice([0, 1, 2, 7, 60, 300]))
        if rng.random() < 0.05:
            count = int(rng.integers(0, largest + 1)) // (1 if fast else 50)
        array = sets[name][rng.integers(0, len(sets[name]), count)]
        noise = rng.random(count) < rng.choice([0, 0, 0.3, 1])
        array[noise] = rng.integers(0, int(array.max(initial=1)) + 1, array[noise].shape)
        steps = int(rng.choice([0, 0, 0, 1, 3])) if count < 10 or (fast and count < 1000) else 0
        yield name, steps, array.astype(str(rng.choice(TYPES)))
