"""How many attacks on files were tried and what became of them, and round trips of random arrays with random options.

python benchmarks/reliability.py DATA [MINUTES]

The attacks are those of `tests/attacks`, here on files of the shipped models; the round trips go on for so many minutes
(10 by default), each end with engines, cores, threads and chunks of its own.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from data import save, shipped, test_images

import bbans
from bbans.codec import Codec
from bbans.container import read_directory, read_payload
from bbans.model import shipped_models

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from attacks.forge import Attack, flips, forgeries, model_forgeries, truncations
from soak import soak

HANG = 1.0
"""Seconds after which an answer is late."""
ATTACKED = ("gg-mnist-binary", "mnist-binary", "mnist", "gg-cifar10")
MODEL_BYTES = 97
"""Of a model's file, one byte of so many is flipped."""
KILLED = "gg-mnist-binary"


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


def kills(folder: Path) -> dict[str, dict[str, int]]:
    """At how many calls compressing and decompressing were killed, and the new file was there at how many."""
    counts = {}
    with tempfile.TemporaryDirectory() as temporary:
        work, model = Path(temporary), shipped_models()[KILLED]
        (work / "model").symlink_to(model)
        np.save(work / "images.npy", test_images(folder, KILLED)[:8])
        codec = Codec.of(bbans.load_model(KILLED))
        (work / "images.bba").write_bytes(codec.compress(np.load(work / "images.npy"), 4))
        for command in ("compress", "decompress"):
            program = [
                sys.executable,
                Path(__file__).parent.parent / "tests" / "attacks" / "kills.py",
                work,
                command,
                "target",
            ]
            points, replaced = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
            counts[command] = {"killed at": int(points), "new file": int(replaced)}
    return counts


def main(data: Path, minutes: float) -> None:
    counts = {kind: dict(outcomes) for kind, outcomes in attacks(data).items()}
    sets = {name: test_images(data, name) for name in shipped()}
    done = soak(sets, 60 * minutes, 100_000, np.random.default_rng())
    soaked = {
        "minutes": minutes,
        "round_trips": done.round_trips,
        "images": done.images,
        "bytes": done.bytes,
        "pairs_of_settings": len(done.pairs),
    }
    save("reliability", {"attacks": counts, "kills": kills(data), "soak": soaked})


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 10)
