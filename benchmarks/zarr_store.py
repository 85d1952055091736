"""A zarr array of 60,000 images through bbans: written and read by xarray, read by a process that has little else.

python benchmarks/zarr_store.py DATA FOLDER [PYTHON]

`FOLDER` is where the stores go. `PYTHON` is an interpreter whose environment has bbans and zarr, and not xarray, Dask
or numba; it reads slices of the store, knowing nothing but where that lies. Sizes are those of all files of a store.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray
import zarr
from data import images_of, save
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

import bbans
from bbans.integrations.zarr import BitsBack

CHUNK = 1000
SLICES = 50
FRESH_SLICES = 5
CODECS: dict[str, dict[str, Any]] = {
    "zarr's default (zstd)": {},
    "zstd -19": {"compressors": [ZstdCodec(level=19)]},
    "blosc (zstd -5, shuffle)": {"compressors": [BloscCodec(cname="zstd", clevel=5, shuffle="shuffle")]},
    "blosc (zstd -9, bitshuffle)": {"compressors": [BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")]},
    "bbans, gg-mnist": {"serializer": BitsBack("gg-mnist"), "compressors": None},
    "bbans, mnist": {"serializer": BitsBack("mnist"), "compressors": None},
}
FRESH = """
import hashlib, importlib.util, json, sys, time
import numpy, zarr
found = [name for name in ("xarray", "dask", "numba") if importlib.util.find_spec(name)]
start = time.perf_counter()
array = zarr.open_group(sys.argv[1], mode="r")["images"]
digest = hashlib.sha256()
for first, last in json.loads(sys.argv[2]):
    digest.update(array[first:last].tobytes())
import bbans
print(json.dumps({"digest": digest.hexdigest(), "others": found, "seconds": time.perf_counter() - start,
                  "bbans": bbans.__file__, "zarr": zarr.__version__, "shape": array.shape}))
"""


def random_slices(count: int, rows: int) -> list[tuple[int, int]]:
    """Starts and ends, of up to 300 rows."""
    random = np.random.default_rng(5)
    return [
        (start := int(random.integers(rows)), min(rows, start + int(random.integers(1, 300)))) for _ in range(count)
    ]


def size_of(store: Path) -> int:
    """Bytes of all files, metadata too."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def measure(images: NDArray[np.uint8], store: Path, encoding: dict[str, Any]) -> dict[str, Any]:
    """Write all, read all, and check random slices, through xarray."""
    shutil.rmtree(store, ignore_errors=True)
    dataset = xarray.Dataset({"images": (("image", "row", "column"), images)})
    start = time.perf_counter()
    chunks = {"chunks": (CHUNK, *images.shape[1:])}
    dataset.to_zarr(store, encoding={"images": chunks | encoding}, consolidated=False)
    wrote = time.perf_counter() - start
    opened = xarray.open_zarr(store, consolidated=False, chunks=None)["images"]
    start = time.perf_counter()
    back = opened.values
    read = time.perf_counter() - start
    assert back.dtype == images.dtype and (back == images).all()
    for first, last in random_slices(SLICES, len(images)):
        assert (opened[first:last].values == images[first:last]).all()
    size = size_of(store)
    return {
        "bytes": size,
        "bits_per_dimension": 8 * size / images.size,
        "metadata_bytes": sum(path.stat().st_size for path in store.rglob("zarr.json")),
        "write_seconds": wrote,
        "read_seconds": read,
    }


def read_elsewhere(python: str, store: Path, images: NDArray[np.uint8]) -> dict[str, Any]:
    """What the other interpreter finds in a store."""
    slices = random_slices(FRESH_SLICES, len(images))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = [python, "-c", FRESH, str(store), json.dumps(slices)]
    found = json.loads(subprocess.run(run, env=environment, cwd="/", capture_output=True, check=True).stdout)
    expected = hashlib.sha256(b"".join(images[first:last].tobytes() for first, last in slices)).hexdigest()
    assert found.pop("digest") == expected
    assert not found["others"] and Path(found.pop("bbans")) != Path(bbans.__file__)
    return found | {"slices": slices}


def main() -> None:
    images = images_of(Path(sys.argv[1]), "grey MNIST", "train")
    folder = Path(sys.argv[2])
    result: dict[str, Any] = {"images": len(images), "chunk": CHUNK, "zarr": zarr.__version__, "stores": {}}
    for name, encoding in CODECS.items():
        result["stores"][name] = measure(images, folder / "store", encoding)
        print(name, result["stores"][name], flush=True)
    if len(sys.argv) > 3:
        result["fresh_process"] = read_elsewhere(sys.argv[3], folder / "store", images)
        print(result["fresh_process"], flush=True)
    save("zarr", result)


if __name__ == "__main__":
    main()
