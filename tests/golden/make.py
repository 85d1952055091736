"""Writes a golden file for each case that has none yet. Those that are there are never written again.

    python tests/golden/make.py

`digests.json` holds the hashes of the files and of the arrays they decode to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bbans

HERE = Path(__file__).parent
DIGESTS = HERE / "digests.json"


def drawn(model: str, count: int) -> NDArray[np.uint8]:
    """Images drawn from a shipped model, the same everywhere."""
    return bbans.sample_images(bbans.load_model(model), count, seed=11)


def stored() -> NDArray[np.float32]:
    """An array that no model fits."""
    return (np.arange(600, dtype=">f4") / 7).reshape(20, 30)


CASES: dict[str, tuple[str | None, int | None, Callable[[], NDArray[np.generic]]]] = {
    "gg-mnist-binary": ("gg-mnist-binary", 40, lambda: drawn("gg-mnist-binary", 100)),
    "gg-mnist-binary-one": ("gg-mnist-binary", None, lambda: drawn("gg-mnist-binary", 1).astype(bool)),
    "gg-mnist-binary-255": ("gg-mnist-binary", None, lambda: drawn("gg-mnist-binary", 20).astype(np.int16) * 255),
    "gg-mnist": ("gg-mnist", 20, lambda: drawn("gg-mnist", 45)),
    "stored": (None, 7, stored),
}
"""By name: model, rows of a chunk, and the array."""


def encode(name: str) -> bytes:
    model, chunk_size, array = CASES[name]
    codec = bbans.Codec.of(bbans.load_model(model) if model else None)
    return codec.compress(array(), chunk_size)


def digest_of(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()).hexdigest()


def main() -> None:
    digests = json.loads(DIGESTS.read_text()) if DIGESTS.exists() else {}
    for name in CASES:
        path = HERE / f"{name}.bba"
        if not path.exists():
            data = encode(name)
            path.write_bytes(data)
            digests[name] = {"file": hashlib.sha256(data).hexdigest(), "array": digest_of(CASES[name][2]())}
    DIGESTS.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
