"""From how many images on a file that holds its model is smaller than what other compressors make of them.

python benchmarks/embedding.py DATA

Sizes are measured on the training images, which the shipped models have seen, and on the test images, which they
haven't. Where no measured file is smaller, the number of images is extrapolated from the bytes an image that both
took of the largest file: the model's bytes over their difference.
"""

from __future__ import annotations

import io
import lzma
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from data import MODELS, images_of, save

import bbans
from bbans.embedded import embed
from bbans.model import FILE_NAME, shipped_models
from bbans.portable.description import layers_of

SHOWN = ("gg-mnist-binary", "gg-mnist")
COUNTS = {"mnist_train": (1_000, 10_000, 60_000), "mnist_test": (10_000,)}


def other_compressors() -> dict[str, Callable[[bytes], bytes]]:
    """bzip3 only where it is installed."""
    others: dict[str, Callable[[bytes], bytes]] = {
        "zstd -19": zstandard.ZstdCompressor(level=19).compress,
        "xz -9e": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
    }
    try:
        import bz3
    except ImportError:
        return others
    return others | {"bzip3": lambda data: bz3.compress(data, 64 << 20)}


def model_bytes(name: str) -> dict[str, int]:
    """What the weights of the decoder and one encoder take, in several forms."""
    model = bbans.load_model(name)
    encoder = model.encoder(model.default_posterior)
    layers = [*layers_of(model.decoder), *layers_of(encoder)]
    weights = [layer.weight.astype("<i2").tobytes() for layer in layers]
    raw = b"".join(weights)
    planes = b"".join(part[half::2] for part in weights for half in (0, 1))
    zstd = zstandard.ZstdCompressor(level=19).compress
    return {
        "file_with_all_encoders": (shipped_models()[name] / FILE_NAME).stat().st_size,
        "weights": len(raw) // 2,
        "int16": len(raw),
        "int16_zstd_19": len(zstd(raw)),
        "int16_byte_planes_zstd_19": len(zstd(planes)),
        "embedded": len(embed(model, model.default_posterior)),
    }


def measure(name: str, images: np.ndarray, count: int, embedded: int) -> dict[str, object]:
    """Sizes of ``count`` images, and from how many on each comparison turns."""
    part = images[:count]
    codec = bbans.Codec.of(bbans.load_model(name))
    ours = len(codec.compress(part))
    asked = bbans.Codec.of(codec.model, embed_model=True).write(io.BytesIO(), part)
    sizes = {other: len(compress(part.tobytes())) for other, compress in other_compressors().items()}
    return {
        "images": count,
        "bbans_chunks": ours,
        "bbans_with_model": ours + embedded,
        "bbans_embed_model_writes": asked.size,
        "bbans_embeds": asked.embedded_size > 0,
        "others": sizes,
        "extrapolated_images_to_break_even": {
            other: math.ceil(embedded * count / (size - ours)) if size > ours else None for other, size in sizes.items()
        },
    }


def main() -> None:
    folder = Path(sys.argv[1])
    models: dict[str, object] = {}
    for name in SHOWN:
        data = MODELS[name]
        sizes = model_bytes(name)
        print(name, sizes, flush=True)
        rows: dict[str, list[dict[str, object]]] = {}
        for source, counts in COUNTS.items():
            images = images_of(folder, data, source.removeprefix("mnist_"))
            rows[source] = []
            for count in counts:
                rows[source].append(measure(name, images, count, sizes["embedded"]))
                print(source, rows[source][-1], flush=True)
        models[name] = {"data": data, "model_bytes": sizes, "files": rows}
    save("embedding", {"models": models})


if __name__ == "__main__":
    main()
