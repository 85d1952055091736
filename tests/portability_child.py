"""One side of the portability test: code and decode under whatever this process was started with.

    python portability_child.py ENGINE THREADS BLOCK ANS FOLDER

Compresses the arrays of FOLDER with the shipped models, decodes the files that lie there, and prints one line
of JSON: the hash of each file written, and whether each file read gave the array.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

import bbans
from bbans.portable.engine import Engine


def engine_of(name: str, threads: int, block: int) -> Engine:
    if name == "torch":
        import torch

        from bbans.portable.torch_engine import TorchEngine

        torch.set_num_threads(threads)
        return TorchEngine("cpu", block)
    if name == "numba":
        from bbans.portable.numba_engine import NumbaEngine

        return NumbaEngine()
    from bbans.portable.numpy_engine import NumpyEngine

    return NumpyEngine(block)


def main(name: str, threads: str, block: str, ans: str, folder: str) -> None:
    engine = engine_of(name, int(threads), int(block))
    result: dict[str, object] = {"numpy": np.__version__}
    for path in sorted(Path(folder).glob("*.npy")):
        array = np.load(path)
        model, steps = path.stem.split("+")
        codec = bbans.Codec.of(bbans.load_model(model), steps=int(steps), engine=engine, ans=ans, threads=int(threads))
        data = codec.compress(array, chunk_size=len(array) // 2)
        written_elsewhere = path.with_suffix(".bba").read_bytes()
        result[path.stem] = [
            hashlib.sha256(data).hexdigest(),
            bool((codec.decompress(written_elsewhere) == array).all()),
        ]
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
