"""How many attacks on files were tried and what became of them, and round trips of random arrays with random options.

python benchmarks/reliability.py DATA [MINUTES]

The attacks are those of `tests/attacks`, here on files of the shipped models; the round trips go on for so many minutes
(10 by default), each end with engines, cores, threads and chunks of its own.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from data import save, shipped, test_images

import bbans
from bbans.codec import Codec
from bbans.container import read_directory, read_payload
from bbans.model import shipped_models

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from attacks.forge import Attack, flips, forgeries, model_forgeries, truncations

HANG = 1.0
"""Seconds after which an answer is late."""
ATTACKED = ("gg-mnist-binary", "mnist-binary", "mnist", "gg-cifar10")
MODEL_BYTES = 97
"""Of a model's file, one byte of so many is flipped."""
ENGINES = ("numpy", "numba", "torch")


def tried(attacks: Iterable[Attack], use: Callable[[bytes], bool]) -> Counter[str]:
    """What became of attacks; ``use`` says whether what came out is what went in."""
    outcomes: Counter[str] = Counter()
    for name, data in attacks:
        start = time.monotonic()
        try:
            harmless = use(data)
        except bbans.BbansError:
            outcomes["refused"] += 1
        except Exception as error:
            outcomes["crashes"] += 1
            print(name, type(error).__name__, error, flush=True)
        else:
            outcomes["harmless" if harmless else "silent errors"] += 1
            if not harmless:
                print(name, "went unnoticed", flush=True)
        if time.monotonic() - start > HANG:
            outcomes["late"] += 1
            print(name, "took", time.monotonic() - start, flush=True)
        outcomes["tried"] += 1
    return outcomes


def attacks(folder: Path) -> dict[str, Counter[str]]:
    """By their kind."""
    counts: dict[str, Counter[str]] = {}

    def count(kind: str, made: Iterable[Attack], use: Callable[[bytes], bool]) -> None:
        counts[kind] = counts.get(kind, Counter()) + tried(made, use)
        print(kind, dict(counts[kind]), flush=True)

    def decodes_to(array: np.ndarray, decompress: Callable[[bytes], np.ndarray]) -> Callable[[bytes], bool]:
        return lambda data: np.array_equal(decompress(data), array)

    numbers = np.arange(500.0)
    stored = bbans.compress(numbers, model=None)
    count("one bit of each byte flipped", flips(stored), decodes_to(numbers, bbans.decompress))
    count("cut to each length, or longer", truncations(stored), decodes_to(numbers, bbans.decompress))
    for name in ATTACKED:
        model = bbans.load_model(name)
        codec = Codec.of(model, threads=1, engine="numpy")
        images = test_images(folder, name)[:3]
        data = codec.compress(images)
        count("one bit of each byte flipped", flips(data), decodes_to(images, codec.decompress))
        count("cut to each length, or longer", truncations(data), decodes_to(images, codec.decompress))
        file = io.BytesIO(codec.compress(images[:1]))
        directory = read_directory(file)
        assert directory.header.model is not None
        forged = forgeries(
            name.encode(), directory.header.model.identity, directory.header.row_shape, read_payload(file, directory, 0)
        )

        def use(data: bytes, image: np.ndarray = images[:1]) -> bool:
            found = bbans.decompress(data, max_memory=1 << 28, engine="numpy")
            return not found.size or np.array_equal(found, image)

        count("headers and indices forged, checksums right", forged, use)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "model.safetensors")
        whole = (shipped_models()["gg-mnist-binary"] / path.name).read_bytes()
        images = test_images(folder, "gg-mnist-binary")[:2]
        data = Codec.of(bbans.load_model("gg-mnist-binary")).compress(images)

        def load(content: bytes) -> bool:
            path.write_bytes(content)
            return np.array_equal(bbans.decompress(data, model=path, engine="numpy"), images)

        used = int.from_bytes(whole[:8], "little") + 8
        positions = range(used, len(whole), len(whole) // MODEL_BYTES)
        count(
            "models damaged",
            ((f"byte {at}", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]) for at in positions),
            load,
        )
        count("models forged", model_forgeries(whole), load)
    return counts


def soak(folder: Path, minutes: float) -> dict[str, object]:
    """Random arrays, there and back."""
    rng = np.random.default_rng()
    trips, images, sizes = 0, 0, 0
    end = time.monotonic() + 60 * minutes
    arrays = sampled(folder, rng)
    while time.monotonic() < end:
        name, steps, array = next(arrays)
        codecs = [
            Codec.of(
                None if name is None else bbans.load_model(name),
                steps=steps,
                engine=str(rng.choice(ENGINES)),
                threads=int(rng.integers(1, 4)),
            )
            for _ in range(2)
        ]
        data = codecs[0].compress(array, chunk_size=int(rng.integers(1, 300)))
        back = codecs[1].decompress(data)
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes()), (name, steps)
        trips, images, sizes = trips + 1, images + len(array), sizes + array.nbytes
    return {"minutes": minutes, "round_trips": trips, "images": images, "bytes": sizes}


def sampled(folder: Path, rng: np.random.Generator) -> Iterator[tuple[str | None, int, np.ndarray]]:
    """A model, a number of steps, and images that are the model's, noise, or both."""
    sets = {name: test_images(folder, name) for name in shipped()}
    while True:
        name = str(rng.choice(list(sets)))
        count = int(rng.choice([0, 1, 2, 7, 60, 300]))
        array = sets[name][rng.integers(0, len(sets[name]), count)]
        noise = rng.random(count) < rng.choice([0, 0, 0.3, 1])
        array[noise] = rng.integers(0, int(array.max(initial=1)) + 1, array[noise].shape)
        steps = int(rng.choice([0, 0, 0, 1, 3])) if count < 10 or name.startswith("gg-mnist") else 0
        yield (None if rng.random() < 0.05 else name), steps, array


if __name__ == "__main__":
    data = Path(sys.argv[1])
    result = {"attacks": {kind: dict(outcomes) for kind, outcomes in attacks(data).items()}}
    save("reliability", {**result, "soak": soak(data, float(sys.argv[2]) if len(sys.argv) > 2 else 10)})
