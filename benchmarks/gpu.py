"""A GPU against a CPU: the same files, how fast, and how far from what the matrix units could do.

python benchmarks/gpu.py DATA
python benchmarks/gpu.py DATA --device cpu --images 40    # only tries whether all of this works; writes nothing
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from data import save, shipped, test_images
from numpy.typing import NDArray

import bbans
from bbans.bench.timing import round_trip
from bbans.model import Model

TIMED = {"mnist": 200_000, "cifar10": 40_000, "gg-mnist": 100_000}
"""Models whose speed is measured, and on how many images: the test images again and again."""
THREADS = (1, 4, 16)
CHUNKS = 16
"""Chunks of a timed file: as many as threads, so large that most of their batches are."""
COMPARED = 1200
REPEATS = 3
SIZE = 4096
ROWS, INPUTS, OUTPUTS = 1 << 17, 200, 40
"""A product as a context network has it."""


def fastest(function: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of a few calls, after one that isn't counted."""
    best = float("inf")
    for attempt in range(1 + REPEATS):
        start = time.perf_counter()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        if attempt:
            best = min(best, time.perf_counter() - start)
    return best


def matrix_rates(device: str, scale: int) -> dict[str, float]:
    """Billion multiply-adds a second, of large square products and of those of a context network."""
    rates = {}
    shapes = {"square": (SIZE // scale,) * 3, "context": (ROWS // scale, INPUTS, OUTPUTS)}
    for name, (rows, inputs, outputs) in shapes.items():
        x = torch.zeros((rows, inputs), dtype=torch.float64, device=device)
        weight = torch.zeros((outputs, inputs), dtype=torch.float64, device=device).t()
        bytes_, small = x.to(torch.int8), weight.to(torch.int8)
        seconds = fastest(lambda x=x, weight=weight: torch.mm(x, weight), device)
        rates[f"float64 {name}"] = rows * inputs * outputs / seconds / 1e9
        seconds = fastest(lambda x=bytes_, weight=small: torch._int_mm(x, weight), device)
        rates[f"int8 {name}"] = rows * inputs * outputs / seconds / 1e9
    return rates


def compare(model: Model, images: NDArray[np.uint8], device: str) -> int:
    """Bytes of the file, which both write and read."""
    codecs = [bbans.Codec.of(model, engine=engine, device=of) for engine, of in (("auto", "cpu"), ("torch", device))]
    here, there = (codec.compress(images, chunk_size=-(-len(images) // 2)) for codec in codecs)
    assert here == there, f"{model.name}: the device writes another file"
    for codec in codecs:
        assert (codec.decompress(here) == images).all(), f"{model.name}: not what was compressed"
    return len(here)


def measure(model: Model, images: NDArray[np.uint8], threads: int, device: str) -> dict[str, float]:
    """MB/s each way on so many threads, once all is captured."""
    codec = bbans.Codec.of(model, engine="torch", device=device, threads=threads)
    chunk_size = -(-len(images) // CHUNKS)
    codec.decompress(codec.compress(images, chunk_size))
    found = round_trip(images, lambda x: [codec.compress(x, chunk_size)], lambda files: codec.decompress(files[0]))
    return {
        "threads": threads,
        "images": len(images),
        "chunk_size": chunk_size,
        "bits_per_dimension": 8 * found.size / images.size,
        "encode_mb_per_second": images.nbytes / found.encode_seconds / 1e6,
        "decode_mb_per_second": images.nbytes / found.decode_seconds / 1e6,
    }


def run(folder: Path, device: str, count: int | None) -> dict[str, object]:
    """All results; of ``count`` images each, if given."""
    rates = matrix_rates(device, 1 if count is None else 16)
    models: dict[str, object] = {}
    for name in shipped():
        model, images = bbans.load_model(name), test_images(folder, name)
        row: dict[str, object] = {"same_file_bytes": compare(model, images[: count or COMPARED], device)}
        if name in TIMED:
            timed = np.resize(images, (count or TIMED[name], *images.shape[1:]))
            per_second = {kind: rate * 1e9 / model.multiply_adds(1_000_000) for kind, rate in rates.items()}
            row["floor_mb_per_second"] = per_second
            row["speeds"] = [
                measure(model, timed, threads, device) for threads in THREADS[: None if count is None else 1]
            ]
        models[name] = row
        print(name, row, flush=True)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"device": where, "torch": torch.__version__, "billion_multiply_adds_per_second": rates, "models": models}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--images", type=int)
    arguments = parser.parse_args()
    result = run(arguments.data, arguments.device, arguments.images)
    if arguments.device == "cuda" and arguments.images is None:
        save("gpu", result)
