"""What a set saves beside the same images in order, against the closed form, and what it costs in time.

python benchmarks/sets.py DATA [MODEL ...]

Whole files, every byte counted. 1,000 images are each thousand of the test set; the saving of one thousand has a spread
of a percent or two, since what the latents cost is a matter of chance too. Times are the least of several, taken in
turns.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
from data import MODELS, images_of, save
from numpy.typing import NDArray

import bbans
from bbans.canonical import canonical_order, row_bytes
from bbans.codec import Codec

DEFAULT = ("mnist-binary", "gg-mnist-binary")
REPEATS = 4
THREADS = 2


def both(codec: Codec, images: NDArray[np.uint8], repeats: int = 1) -> dict[str, object]:
    """Sizes of the images in order and as a set, and the least of the times of so many runs if there are several.

    Times are those on the clock, and of all threads together, which other programs on the machine change less.
    """
    sizes: dict[bool, int] = {}
    seconds: dict[str, list[tuple[float, float]]] = {}
    won = 0.0
    for _ in range(repeats):
        for ordered in (True, False):
            file, name = io.BytesIO(), "ordered" if ordered else "unordered"
            start = now()
            written = codec.write(file, images, ordered=ordered)
            middle = now()
            back = codec.decompress(file.getvalue())
            end = now()
            seconds.setdefault(f"{name}_encode", []).append((middle[0] - start[0], middle[1] - start[1]))
            seconds.setdefault(f"{name}_decode", []).append((end[0] - middle[0], end[1] - middle[1]))
            expected = images if ordered else images[canonical_order(row_bytes(images))]
            assert (back == expected).all()
            sizes[ordered], won = written.size, written.order_bits
    saved = 8 * (sizes[True] - sizes[False])
    result: dict[str, object] = {
        "images": len(images),
        "ordered_bytes": sizes[True],
        "unordered_bytes": sizes[False],
        "ordered_bits_per_dimension": 8 * sizes[True] / images.size,
        "unordered_bits_per_dimension": 8 * sizes[False] / images.size,
        "order_bits": won,
        "saved_bits": saved,
        "share": saved / won,
    }
    for kind, which in (("seconds", 0), ("seconds_of_all_threads", 1)) if repeats > 1 else ():
        least = {name: min(times[which] for times in all_times) for name, all_times in seconds.items()}
        ratios = {
            f"{side}_ratio": least[f"unordered_{side}"] / least[f"ordered_{side}"] for side in ("encode", "decode")
        }
        result[kind] = least | ratios
    return result


def now() -> tuple[float, float]:
    """On the clock, and of all threads."""
    return time.perf_counter(), time.process_time()


def measure(name: str, folder: Path) -> dict[str, object]:
    """All of one model."""
    test, training = images_of(folder, MODELS[name]), images_of(folder, MODELS[name], "train")
    codec = Codec.of(bbans.load_model(name), threads=THREADS, pixels=test.size)
    thousands = [both(codec, test[start : start + 1000]) for start in range(0, len(test), 1000)]
    shares = [float(str(row["share"])) for row in thousands]
    result: dict[str, object] = {
        "data": MODELS[name],
        "1,000 test": {
            "share": float(np.mean(shares)),
            "share_deviation_of_mean": float(np.std(shares, ddof=1) / np.sqrt(len(shares))),
            "each": thousands,
        },
    }
    print(name, result["1,000 test"], flush=True)
    for part, images, repeats in (("10,000 test", test, REPEATS), ("60,000 training", training, 1)):
        result[part] = both(codec, images, repeats)
        print(name, part, result[part], flush=True)
    return result


if __name__ == "__main__":
    data = Path(sys.argv[1])
    save("sets", {"threads": THREADS, "models": {name: measure(name, data) for name in sys.argv[2:] or DEFAULT}})
