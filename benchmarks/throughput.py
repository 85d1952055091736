"""Images a second, each way, of whole calls on arrays in memory, beside other compressors in the same run.

python benchmarks/throughput.py DATA [MODEL ...]
"""

from __future__ import annotations

import bz2
import lzma
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from data import MODELS, save, shipped, test_images

import bbans
from bbans.ans import HEAD_MINIMUM, core_named

REPEATS = 3
IMAGES = {"mnist-binary": 6000, "mnist": 6000, "fashion": 6000, "cifar10": 2700, "gg-cifar10": 2700}
"""The first so many test images are enough for models with larger networks; else it is all of them."""


def fastest(function: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def measure(name: str, folder: Path) -> dict[str, object]:
    """Speeds of one model and of the others on the same array."""
    images = test_images(folder, name)[: IMAGES.get(name)]
    model = bbans.load_model(name)
    rows: list[dict[str, object]] = []
    for engine, threads in [("numpy", os.cpu_count() or 1), ("numba", 1), ("numba", os.cpu_count() or 1)]:
        codec = bbans.Codec.of(model, engine=engine, threads=threads)
        data = codec.compress(images)
        rows.append(
            row(
                f"bbans `{name}`, {engine}, {threads} thread{'s' if threads > 1 else ''}",
                images,
                len(data),
                lambda c=codec: c.compress(images),
                lambda c=codec, d=data: c.decompress(d),
            )
        )
    if name in IMAGES:
        return {"data": f"{MODELS[name]}, first {len(images):,}", "images": len(images), "codecs": rows}
    raw = images.tobytes()
    others: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        "zstd -19": (zstandard.ZstdCompressor(level=19).compress, zstandard.ZstdDecompressor().decompress),
        "xz -9e": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
        "bzip2 -9": (bz2.compress, bz2.decompress),
    }
    for other, (compress, decompress) in others.items():
        data = compress(raw)
        rows.append(row(other, images, len(data), lambda c=compress: c(raw), lambda d=decompress, p=data: d(p)))
    return {"data": MODELS[name], "images": len(images), "codecs": rows}


def row(
    name: str, images: np.ndarray, size: int, compress: Callable[[], object], decompress: Callable[[], object]
) -> dict[str, object]:
    """One line of the table."""
    result: dict[str, object] = {
        "codec": name,
        "bits_per_dimension": 8 * size / images.size,
        "encode_images_per_second": len(images) / fastest(compress),
        "decode_images_per_second": len(images) / fastest(decompress),
    }
    print(result, flush=True)
    return result


def measure_core(name: str, lanes: int) -> dict[str, object]:
    """Million symbols a second of an ANS core."""
    rng = np.random.default_rng(0)
    frequency = rng.integers(1, 1 << 16, (200, lanes)).astype(np.uint64)
    start = (rng.random((200, lanes)) * ((1 << 16) - frequency)).astype(np.uint64)
    words = np.concatenate([np.full(lanes, HEAD_MINIMUM >> 1, np.uint32), np.zeros(lanes, np.uint32)])
    stack = core_named(name).from_words(words, lanes)

    def push() -> None:
        for s, f in zip(start, frequency, strict=True):
            stack.push(s, f, 16)

    def pop() -> None:
        for s, f in zip(start[::-1], frequency[::-1], strict=True):
            stack.peek(lanes, 16)
            stack.pop(s, f, 16)

    seconds = [fastest(push), fastest(pop)]
    assert (stack.to_words() == words).all()
    push_rate, pop_rate = (frequency.size / value / 1e6 for value in seconds)
    return {"core": name, "lanes": lanes, "push_million_per_second": push_rate, "pop_million_per_second": pop_rate}


if __name__ == "__main__":
    models = {name: measure(name, Path(sys.argv[1])) for name in sys.argv[2:] or shipped()}
    cores = [measure_core(core, lanes) for core in ("numpy", "numba") for lanes in (64, 256, 784, 1024, 4096)]
    save("throughput", {"models": models, "cores": cores})
