"""Images a second and peak memory, each way, of whole files, beside other compressors in the same run.

python benchmarks/throughput.py DATA [MODEL ...]
python benchmarks/throughput.py    # only draws what was measured

Also how the time for an image changes with their number, and the speed of the ANS cores alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from data import MODELS, RESULTS, save, shipped, test_images
from matplotlib.figure import Figure

from bbans.ans import HEAD_MINIMUM, core_named
from bbans.bench.baselines import Skipped
from bbans.bench.throughput import Setting, Speed, draw, measure

REPEATS = 2
THREADS = os.cpu_count() or 1
IMAGES = {"cifar10": 2700, "gg-cifar10": 2700}
"""The first so many test images are enough for large ones; else it is all of them."""
OTHERS = ["zstd-19", "xz-9e", "bzip3", "zpaq-5", "jxl-7", "jxl-9"]
OTHERS_BESIDE = ("mnist-binary", "mnist", "cifar10")
"""The models beside which other codecs are measured: those of the other models are the same."""
PLAIN = ("mnist", "gg-mnist")
"""The models that are measured without compiled code too."""
STEPS = {"gg-mnist-binary": (10,), "gg-mnist": (10,)}
GROWTH = {"mnist": (1, 10, 100, 1000, 10_000, 100_000), "gg-mnist-binary": (1, 100, 10_000, 100_000, 1_000_000)}
"""Numbers of images, which begin again where the test set ends."""


def fastest(function: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def speeds(name: str, folder: Path) -> list[dict[str, object]]:
    """Of one model, and of the other codecs on the same images."""
    images = test_images(folder, name)[: IMAGES.get(name)]
    settings = [Setting(name, 0, "numpy", "numpy", THREADS, len(images))] if name in PLAIN else []
    settings += [Setting(name, 0, "numba", "numba", threads, len(images)) for threads in dict.fromkeys((1, THREADS))]
    settings += [Setting(name, steps, "numba", "numba", THREADS, len(images)) for steps in STEPS.get(name, ())]
    others = [*OTHERS] if name in OTHERS_BESIDE else []
    return measured(images, settings, others, REPEATS)


def measured(images: np.ndarray, settings: list[Setting], others: list[str], repeats: int) -> list[dict[str, object]]:
    """Rows for the JSON; of other codecs, those in the arrangement that suits them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        np.save(path, images)
        for speed in measure(path, settings, others, len(images), repeats):
            if isinstance(speed, Skipped):
                print(speed, flush=True)
            elif not speed.codec.endswith(", each"):
                print(speed, flush=True)
                rows.append(asdict(speed))
    return rows


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


def draw_results() -> None:
    """A picture for each data set that other codecs were measured on, with all models of it."""
    models = json.loads((RESULTS / "throughput.json").read_text())["models"]
    for name in OTHERS_BESIDE:
        data = models[name]["data"]
        rows = [row for model in models.values() if model["data"] == data for row in model["speeds"]]
        speeds = [Speed(**{**row, "setting": row["setting"] and Setting(**row["setting"])}) for row in rows]
        picture = draw(Figure(figsize=(13, 4.5), layout="constrained"), speeds, f"{data}, {THREADS} cores", "png")
        (RESULTS / f"throughput-{name}.png").write_bytes(picture)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        draw_results()
        sys.exit()
    names, folder = sys.argv[2:] or list(shipped()), Path(sys.argv[1])
    rows = {name: {"data": MODELS[name], "speeds": speeds(name, folder)} for name in names}
    growth = {
        name: measured(
            test_images(folder, name), [Setting(name, 0, "auto", "auto", THREADS, count) for count in counts], [], 1
        )
        for name, counts in GROWTH.items()
        if name in names
    }
    cores = [measure_core(core, lanes) for core in ("numpy", "numba") for lanes in (64, 256, 1024, 4096)]
    save("throughput", {"models": rows, "growth": growth, "cores": cores, "threads": THREADS})
    draw_results()
