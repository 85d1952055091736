"""Speed and memory of whole files: of bbans in any number of settings, and of other codecs beside it.

Each measurement is a process of its own, so that the peak of memory is its own, and nothing is left over from the one
before. bbans reads the array as it lies on disk, and writes a file; the others have all of it in memory.
"""

from __future__ import annotations

import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bbans.bench.baselines import OWN, Skipped, chosen
from bbans.bench.baselines import measure as measure_baseline
from bbans.codec import Codec
from bbans.errors import BenchmarkError
from bbans.model import load_model
from bbans.npy import read_npy
from bbans.reader import CompressedArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM_UP_IMAGES = 64


@dataclass(frozen=True)
class Setting:
    """One way to use bbans."""

    model: str
    """A name or a path."""
    steps: int
    engine: str
    ans: str
    threads: int
    images: int
    """The first so many of the array, which begins again where it ends."""


@dataclass(frozen=True)
class Speed:
    """How fast a codec was, the faster of a few times each way."""

    codec: str
    setting: Setting | None
    """None for other codecs."""
    images: int
    bytes: int
    bits_per_dimension: float
    encode_images_per_second: float
    decode_images_per_second: float
    encode_megabytes_per_second: float
    """Of the array's bytes, in units of 1,000,000."""
    decode_megabytes_per_second: float
    peak_megabytes: float
    """The most memory that the process held."""


def label(speed: Speed) -> str:
    """The codec, and for bbans how it was used."""
    setting = speed.setting
    if setting is None:
        return speed.codec
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    return f"{speed.codec}, K = {setting.steps}, {setting.engine}, {threads}"


def draw(figure: Figure, speeds: Sequence[Speed], title: str, kind: str) -> bytes:
    """Bits per dimension against images a second each way, as a picture of the kind that a file's ending names."""
    from matplotlib import colormaps

    encode, decode = figure.subplots(1, 2, sharey=True)
    for number, speed in enumerate(speeds):
        marker = "x" if speed.setting is None else "o"
        for axes, rate in ((encode, speed.encode_images_per_second), (decode, speed.decode_images_per_second)):
            colour = colormaps["tab20"](number % 20)
            axes.plot(rate, speed.bits_per_dimension, marker, color=colour, label=label(speed))
    figure.suptitle(title)
    encode.set(xlabel="images encoded a second", xscale="log", ylabel="bits per dimension")
    decode.set(xlabel="images decoded a second", xscale="log")
    for axes in (encode, decode):
        axes.grid(alpha=0.3)
    decode.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=120)
    return file.getvalue()


def settings_of(
    models: Sequence[str],
    steps: Sequence[int],
    engines: Sequence[str],
    cores: Sequence[str],
    threads: Sequence[int],
    images: Sequence[int],
) -> list[Setting]:
    """All combinations."""
    return [
        Setting(model, number, engine, core, count, size)
        for model in models
        for number in steps
        for engine in engines
        for core in cores
        for count in threads
        for size in images
    ]


def measure(
    path: Path, settings: Sequence[Setting], codecs: Sequence[str], images: int, repeats: int
) -> Iterator[Speed | Skipped]:
    """Measure bbans in all ``settings``, then other codecs on the first ``images``, each in a new process.

    Everything is decoded and compared: raises :class:`bbans.errors.BenchmarkError` if a byte is lost.
    """
    context = multiprocessing.get_context("spawn")
    for setting in settings:
        with ProcessPoolExecutor(1, context) as process:
            yield process.submit(measure_setting, path, setting, repeats).result()
    for other in chosen(codecs) if codecs else []:
        with ProcessPoolExecutor(1, context) as process:
            yield process.submit(measure_other, path, other.name, other.arrangement, images).result()


def measure_setting(path: Path, setting: Setting, repeats: int) -> Speed:
    """In this process: from a file to a file, and from there back, compared chunk by chunk."""
    array = read_npy(path)
    part: NDArray[Any] = array[: setting.images]
    codec = Codec.of(
        load_model(setting.model),
        steps=setting.steps,
        engine=setting.engine,
        ans=setting.ans,
        threads=setting.threads,
        pixels=part.size,
    )
    codec.decompress(codec.compress(np.array(part[:WARM_UP_IMAGES])))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "images.bba")
        if setting.images > len(array):
            part = _repeated(array, setting.images, Path(folder, "images.npy"))
        encode_seconds, decode_seconds = [], []
        for _ in range(repeats):
            start = time.perf_counter()
            with target.open("w+b") as file:
                codec.write(file, part)
            encode_seconds.append(time.perf_counter() - start)
            start, done = time.perf_counter(), 0
            with CompressedArray(target.open("rb"), codec) as compressed:
                for block in compressed.blocks():
                    if not np.array_equal(block, part[done : done + len(block)]):
                        raise BenchmarkError(f"{setting}: what it wrote does not decode to what it was given")
                    done += len(block)
            decode_seconds.append(time.perf_counter() - start)
        size = target.stat().st_size
    return _speed(f"{OWN}, {setting.model}", setting, part, size, min(encode_seconds), min(decode_seconds))


def measure_other(path: Path, name: str, arrangement: str, images: int) -> Speed | Skipped:
    """In this process: another codec, once."""
    (baseline,) = (other for other in chosen([name]) if other.arrangement == arrangement)
    array = np.array(read_npy(path)[:images])
    row = measure_baseline(baseline, array)
    if isinstance(row, Skipped):
        return row
    encode, decode = (
        array.nbytes / 1e6 / speed for speed in (row.encode_megabytes_per_second, row.decode_megabytes_per_second)
    )
    return _speed(f"{row.codec}, {row.arrangement}", None, array, row.bytes, encode, decode)


def _repeated(array: NDArray[Any], images: int, path: Path) -> NDArray[Any]:
    """An array on disk of so many images."""
    longer = np.lib.format.open_memmap(path, "w+", array.dtype, (images, *array.shape[1:]))
    for first in range(0, images, len(array)):
        longer[first : first + len(array)] = array[: images - first]
    longer.flush()
    return read_npy(path)


def _speed(codec: str, setting: Setting | None, array: NDArray[Any], size: int, encode: float, decode: float) -> Speed:
    count, megabytes = len(array), array.nbytes / 1e6
    rates = count / encode, count / decode, megabytes / encode, megabytes / decode
    return Speed(codec, setting, count, size, 8 * size / array.size, *rates, peak_megabytes())


def peak_megabytes() -> float:
    """The most memory that this process has held. (Linux adds its parent's to what ``getrusage`` says.)"""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource  # Windows has none

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
