"""Photographs: whole files in bits per 8-bit value, each image alone and all as a set, beside other image codecs.

python benchmarks/photos.py FOLDER...              # what is missing of the other codecs, then bbans, then speeds
python benchmarks/photos.py FOLDER... --only-bbans # bbans and its speeds, beside what is kept of the others
python benchmarks/photos.py FOLDER... --large      # one image of 100 megapixels, made of those of the first folder

Each folder holds lossless pictures; a set is named as its folder. `--peers`, `--bbans` and `--speed` do one of these
parts alone, one at a time. What is not measured anew stays as it is in `results/photos.json`; a set has its rates once
all codecs are measured on it. What the other codecs make of an image is kept there by the digest of its pixels and
measured once; zpaq, which is slow, is tried on the first `--zpaq` images of each folder. Everything is decoded and
compared.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from data import RESULTS, save
from numpy.typing import NDArray

import bbans
from bbans.bench.baselines import Row, Skipped, chosen, measure
from bbans.bench.throughput import peak_megabytes
from bbans.codec import Codec
from bbans.folders import codec_chooser, write_collection
from bbans.inputs import Source, find_groups
from bbans.npy import read_npy

PEERS = ("png", "webp", "jxl-7", "jxl-9")
SLOW = "zpaq-5"
BEST = "jxl-9"
THREADS = (1, 2)
SPEED_IMAGES = 8
SPEED_REPEATS = 2
WARM_UP_SIDE = 64
MODELS = {(): "photo-grey", (3,): "photo"}
"""By the axes of an image after height and width."""
LARGE_SIDE = 10_000
SIDES = ("encode", "decode")

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image of a folder."""

    name: str
    path: str
    pixels: Image
    """``(height, width)`` or with an axis of channels."""

    @staticmethod
    def read(source: Source) -> Picture:
        (pixels,) = source.read()
        return Picture(source.name, source.path, pixels)

    @property
    def digest(self) -> str:
        shape = ",".join(map(str, self.pixels.shape)).encode()
        return hashlib.blake2b(shape + self.pixels.tobytes(), digest_size=8).hexdigest()


def pictures_of(folder: Path) -> list[Picture]:
    """All pictures of a folder, by name."""
    sources = [source for group in find_groups([str(folder)]) for source in group.sources]
    return sorted(map(Picture.read, sources), key=lambda picture: picture.name)


def add_peers(pictures: list[Picture], known: dict[str, dict[str, int]], zpaq: int, keep: Callable[[], None]) -> None:
    """Bytes of each picture in each codec that it was not yet tried with."""
    for codec, some in [*((name, pictures) for name in PEERS), (SLOW, pictures[:zpaq])]:
        for picture in some:
            sizes = known.setdefault(picture.digest, {})
            if codec not in sizes:
                sizes[codec] = measured(codec, picture.pixels).bytes
                keep()
        print(codec, 8 * sum(known[one.digest][codec] for one in some) / values_of(some), flush=True)


def measured(codec: str, image: Image) -> Row:
    """One codec on one image, decoded and compared."""
    (baseline,) = (one for one in chosen([codec]) if one.arrangement in ("raw", "each"))
    row = measure(baseline, image[None])
    assert isinstance(row, Row), row.reason if isinstance(row, Skipped) else ""
    return row


def values_of(pictures: list[Picture]) -> int:
    return sum(picture.pixels.size for picture in pictures)


def bbans_of(folder: Path, pictures: list[Picture]) -> dict[str, Any]:
    """Bytes of each picture as a file of its own, as `bbans compress PICTURE` makes it, and of the folder as one."""
    codec_for = codec_chooser("auto", embed_model=False)
    each, models = {}, set()
    for picture in pictures:
        file = io.BytesIO()
        written = write_collection(file, find_groups([picture.path]), codec_for)
        models |= {group.model or "zstandard" for group in written.groups.values()}
        with bbans.open_collection(file.getvalue()) as collection:
            assert same(Picture(picture.name, "", collection[picture.name]), picture), picture.name
        each[picture.name] = written.size
    with tempfile.TemporaryDirectory() as place:
        packed, back = Path(place, "set.bba"), Path(place, "back")
        written = bbans.compress_files(folder, packed)
        with bbans.open_collection(packed) as collection:
            collection.extract(back)
        assert [one.name for one in pictures_of(back)] == [picture.name for picture in pictures]
        assert all(same(*both) for both in zip(pictures_of(back), pictures, strict=True))
    return {"models": sorted(models), "each": each, "set_bytes": written.size}


def same(back: Picture, picture: Picture) -> bool:
    """In name, type, shape and every byte."""
    return back.name == picture.name and equal(back.pixels, picture.pixels)


def equal(back: NDArray[Any], pixels: Image) -> bool:
    return back.dtype == pixels.dtype and np.array_equal(back, pixels)


def rates_of(pictures: list[Picture], peers: dict[str, dict[str, int]], own: dict[str, Any]) -> dict[str, Any]:
    """Bits per value of all images, and of those that the slow codec was tried on."""
    sizes = {
        picture.name: {"values": picture.pixels.size, "bbans": own["each"][picture.name], **peers[picture.digest]}
        for picture in pictures
    }

    def over(codecs: list[str], rows: list[dict[str, int]]) -> dict[str, float]:
        values = sum(row["values"] for row in rows)
        return {codec: 8 * sum(row[codec] for row in rows) / values for codec in codecs}

    slow = [row for row in sizes.values() if SLOW in row]
    return {
        "images": len(pictures),
        "values": values_of(pictures),
        "models": own["models"],
        "bits_per_value": over(["bbans", *PEERS], list(sizes.values()))
        | {"bbans, as a set": 8 * own["set_bytes"] / values_of(pictures)},
        "slow_images": len(slow),
        "slow_bits_per_value": over(["bbans", BEST, SLOW], slow) if slow else {},
        "smaller_than_best": sum(row["bbans"] < row[BEST] for row in sizes.values()),
        "bytes": sizes,
    }


def speeds_of(pictures: list[Picture]) -> list[dict[str, Any]]:
    """Megapixels a second of the first images of one shape, one after the other and all at once."""
    shape = pictures[0].pixels.shape
    images = np.stack([picture.pixels for picture in pictures if picture.pixels.shape == shape][:SPEED_IMAGES])
    megapixels = len(images) * shape[0] * shape[1] / 1e6
    model = MODELS[shape[2:]]
    rows: list[dict[str, Any]] = []

    def add(codec: str, how: str, threads: int, seconds: tuple[float, float]) -> None:
        rates = {f"{side}_megapixels_per_second": megapixels / each for side, each in zip(SIDES, seconds, strict=True)}
        rows.append({"codec": codec, "images": how, "threads": threads, **rates})
        print(rows[-1], flush=True)

    for threads in THREADS:
        codec = warm_codec(model, threads, shape)
        runs = [timed(codec, [images]) for _ in range(SPEED_REPEATS)]
        add(f"bbans, {model}", f"{len(images)} in one file", threads, least(runs))
        if threads == 1:
            runs = [timed(codec, list(images)) for _ in range(SPEED_REPEATS)]
            add(f"bbans, {model}", f"{len(images)}, a file each", threads, least(runs))
    seconds = [0.0, 0.0]
    for image in images:
        row = measured(BEST, image)
        seconds[0] += image.nbytes / 1e6 / row.encode_megabytes_per_second
        seconds[1] += image.nbytes / 1e6 / row.decode_megabytes_per_second
    add(BEST, f"{len(images)}, a file each", 1, (seconds[0], seconds[1]))
    return rows


def warm_codec(model: str, threads: int, shape: tuple[int, ...]) -> Codec:
    """A codec whose compiled code is there."""
    codec = Codec.of(bbans.load_model(model), threads=threads, pixels=10**9)
    some = np.random.default_rng(0).integers(0, 256, (WARM_UP_SIDE, WARM_UP_SIDE, *shape[2:]), np.uint8)
    codec.decompress(codec.compress(some))
    return codec


def timed(codec: Codec, arrays: list[Image]) -> tuple[float, float]:
    """Seconds of compressing all of them, and of decompressing them."""
    start = time.perf_counter()
    files = [codec.compress(array) for array in arrays]
    middle = time.perf_counter()
    back = [codec.decompress(file) for file in files]
    end = time.perf_counter()
    assert all(map(equal, back, arrays))
    return middle - start, end - middle


def least(runs: list[tuple[float, float]]) -> tuple[float, float]:
    return min(encode for encode, _ in runs), min(decode for _, decode in runs)


def large_of(pictures: list[Picture], side: int, threads: int) -> dict[str, Any]:
    """One image of so many pixels high and wide: photographs side by side, every second row and column mirrored.

    Each way in a process of its own, from file to file.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "large.npy"), Path(folder, "large.bba")
        np.save(source, tiled([picture.pixels for picture in pictures], side))
        shape = read_npy(source).shape
        model = MODELS[shape[2:]]
        encode = in_child(compress_large, source, target, model, threads)
        decode = in_child(decompress_large, source, target, model, threads)
        size, values = target.stat().st_size, int(np.prod(shape))
    result = {
        "shape": list(shape),
        "model": model,
        "threads": threads,
        "bytes": size,
        "bits_per_value": 8 * size / values,
        "raw_megabytes": values / 1e6,
    }
    for name, (seconds, before, peak) in zip(SIDES, (encode, decode), strict=True):
        result[f"{name}_megapixels_per_second"] = side * side / 1e6 / seconds
        result[f"{name}_peak_megabytes"] = peak
        result[f"{name}_megabytes_before"] = before
    print(result, flush=True)
    return result


def tiled(images: list[Image], side: int) -> Image:
    """Those of the first one's shape in turn, until the image is full."""
    images = [image for image in images if image.shape == images[0].shape]
    height, width = images[0].shape[:2]
    whole = np.empty((side, side, *images[0].shape[2:]), np.uint8)
    across = -(-side // width)
    for row, top in enumerate(range(0, side, height)):
        for column, left in enumerate(range(0, side, width)):
            image = images[(row * across + column) % len(images)][:: 1 - row % 2 * 2, :: 1 - column % 2 * 2]
            part = whole[top : top + height, left : left + width]
            part[:] = image[: part.shape[0], : part.shape[1]]
    return whole


def in_child(function: Callable[..., tuple[float, float, float]], *arguments: object) -> tuple[float, float, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def compress_large(source: Path, target: Path, model: str, threads: int) -> tuple[float, float, float]:
    """Seconds, and the most megabytes that the process held: before, and in all."""
    image = read_npy(source)
    codec = warm_codec(model, threads, image.shape)
    before, start = peak_megabytes(), time.perf_counter()
    with target.open("w+b") as file:
        codec.write(file, image)
    return time.perf_counter() - start, before, peak_megabytes()


def decompress_large(source: Path, target: Path, model: str, threads: int) -> tuple[float, float, float]:
    """The same, and compares."""
    image = read_npy(source)
    codec = warm_codec(model, threads, image.shape)
    before, start = peak_megabytes(), time.perf_counter()
    with target.open("rb") as file, bbans.CompressedArray(file, codec) as compressed:
        back = compressed.read()
    seconds, peak = time.perf_counter() - start, peak_megabytes()
    assert equal(back, image)
    return seconds, before, peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--bbans", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--only-bbans", action="store_true")
    parser.add_argument("--large", type=int, nargs="?", const=LARGE_SIDE, metavar="SIDE")
    parser.add_argument("--zpaq", type=int, default=5, metavar="IMAGES")
    wanted = parser.parse_args()
    path = RESULTS / "photos.json"
    result: dict[str, Any] = {"peers": {}, "bbans": {}, "sets": {}, "speeds": {}, "large": []}
    if path.exists():
        result |= {key: value for key, value in json.loads(path.read_text()).items() if key in result}
    everything = not (wanted.peers or wanted.bbans or wanted.speed or wanted.only_bbans or wanted.large)

    for number, folder in enumerate(wanted.folders):
        name, pictures = folder.resolve().name, pictures_of(folder)
        print(name, len(pictures), "pictures", flush=True)
        if everything or wanted.peers:
            add_peers(pictures, result["peers"], wanted.zpaq, lambda: save("photos", result))
        if everything or wanted.bbans or wanted.only_bbans:
            result["bbans"][name] = bbans_of(folder, pictures)
        if name in result["bbans"] and all(set(PEERS) <= set(result["peers"].get(one.digest, ())) for one in pictures):
            result["sets"][name] = rates_of(pictures, result["peers"], result["bbans"][name])
            print({key: value for key, value in result["sets"][name].items() if key != "bytes"}, flush=True)
        if everything or wanted.speed or wanted.only_bbans:
            result["speeds"][name] = speeds_of(pictures)
        if wanted.large and not number:
            result["large"] = [{"made of": name, **large_of(pictures, wanted.large, THREADS[-1])}]
        save("photos", result)


if __name__ == "__main__":
    main()
