"""The classic codecs on the same array as `bbans`, in the arrangements that suit them.

``raw`` is the bytes of the array in one stream, a byte for each pixel of a binary image too. ``grid`` is the whole set
tiled into one picture, or into a few where that would be too large. ``each`` is one file for each image.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.bench.timing import RoundTrip, round_trip
from bbans.codec import Codec
from bbans.container import CODED, read_directory
from bbans.errors import BenchmarkError

Picture = NDArray[np.uint8]
"""Grey, height x width, or with a last axis of red, green and blue."""
Array = NDArray[Any]

OWN = "bbans"
GRID_SIDE = 8192
"""Pixels of a side of a grid: below WebP's limit of 16,383, and an area that Pillow decodes without fear."""
BZIP3_BLOCK_MINIMUM = 65 << 10
BZIP3_BLOCK_MAXIMUM = 511 << 20


@dataclass(frozen=True)
class Baseline:
    """A codec at one setting, in one arrangement."""

    name: str
    arrangement: str
    module: str
    """What it is imported from..."""
    package: str
    """...and the pip package that has it; empty for Python's own library."""
    takes_pictures: bool
    encode: Callable[[Array], list[bytes]]
    decode: Callable[[list[bytes], Array], Array]
    """Makes an array of the type and shape of its second argument, whose elements it does not look at."""


@dataclass(frozen=True)
class Row:
    """How a codec did on an array."""

    codec: str
    arrangement: str
    package: str
    """The pip package and its version."""
    bytes: int
    bits_per_dimension: float
    encode_megabytes_per_second: float
    """Of the array's bytes, in units of 1,000,000."""
    decode_megabytes_per_second: float
    stored_rows: int | None = None
    """Of `bbans` only: how many rows were smaller through zstandard than with the model."""


@dataclass(frozen=True)
class Skipped:
    """A codec that was not measured, and why."""

    codec: str
    arrangement: str
    reason: str


def measure(baseline: Baseline, array: Array) -> Row | Skipped:
    """One codec on ``array``, its decoding verified.

    Raises :class:`bbans.errors.BenchmarkError` if it loses anything.
    """
    try:
        import_module(baseline.module)
    except ImportError:
        return Skipped(baseline.name, baseline.arrangement, f"needs pip install {baseline.package}")
    if baseline.takes_pictures and not is_pictures(array):
        reason = f"takes 8-bit images, N x H x W or N x H x W x 3, and not {array.dtype} of shape {array.shape}"
        return Skipped(baseline.name, baseline.arrangement, reason)
    try:
        result = round_trip(array, baseline.encode, lambda files: baseline.decode(files, array))
    except BenchmarkError as error:
        raise BenchmarkError(f"{baseline.name}, {baseline.arrangement}: {error}") from error
    except Exception as error:  # codecs raise whatever they like
        return Skipped(baseline.name, baseline.arrangement, f"failed: {error or type(error).__name__}")
    package = f"{baseline.package} {version(baseline.package)}" if baseline.package else ""
    return _row(baseline.name, baseline.arrangement, package, array, result)


def measure_own(codec: Codec, array: Array) -> Row:
    """`bbans` on ``array``, as a whole file."""
    result = round_trip(array, lambda part: [codec.compress(part)], lambda files: codec.decompress(files[0]))
    name = f"{OWN}, {codec.model.name if codec.model else 'no model'}"
    return _row(name, "file", "", array, result, stored_rows(result.files[0]))


def _row(codec: str, arrangement: str, package: str, array: Array, result: RoundTrip, stored: int | None = None) -> Row:
    return Row(
        codec,
        arrangement,
        package,
        result.size,
        8 * result.size / array.size,
        array.nbytes / 1e6 / result.encode_seconds,
        array.nbytes / 1e6 / result.decode_seconds,
        stored,
    )


def stored_rows(data: bytes) -> int:
    """How many rows of a `.bba` file were stored through zstandard."""
    chunks = read_directory(io.BytesIO(data)).chunks
    return sum(chunk.rows for chunk in chunks if chunk.method not in CODED)


def chosen(names: Sequence[str]) -> list[Baseline]:
    """The baselines of these names, or all if none is named.

    Raises :class:`bbans.errors.BenchmarkError` for a name that is not one.
    """
    known = dict.fromkeys(baseline.name for baseline in BASELINES)
    for name in names:
        if name not in known:
            raise BenchmarkError(f"there is no codec {name!r}; there are: {', '.join(known)}")
    return [baseline for baseline in BASELINES if not names or baseline.name in names]


def is_pictures(array: Array) -> bool:
    """Whether picture codecs can take this array as it is.

    >>> is_pictures(np.zeros((5, 28, 28), np.uint8)), is_pictures(np.zeros((5, 784), np.uint8))
    (True, False)
    """
    return array.dtype in (np.uint8, np.bool_) and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3))


def tile(images: Picture) -> list[Picture]:
    """Images side by side in as few pictures as may be, as square as may be; what is left over is black.

    >>> [grid.shape for grid in tile(np.zeros((10, 28, 28), np.uint8))]
    [(84, 112)]
    """
    height, width = images.shape[1:3]
    down, across = max(1, GRID_SIDE // height), max(1, GRID_SIDE // width)
    return [
        _grid(images[start : start + down * across], down, across) for start in range(0, len(images), down * across)
    ]


def untile(grids: Sequence[Picture], shape: tuple[int, ...]) -> Picture:
    """The images, an array of ``shape``, that :func:`tile` made ``grids`` of."""
    height, width = shape[1:3]
    parts = []
    for grid in grids:
        cells = grid.reshape(grid.shape[0] // height, height, grid.shape[1] // width, width, *shape[3:])
        parts.append(cells.swapaxes(1, 2).reshape(-1, *shape[1:]))
    return np.concatenate(parts)[: shape[0]]


def _grid(images: Picture, down: int, across: int) -> Picture:
    count, height, width = images.shape[:3]
    columns = min(across, max(math.ceil(math.sqrt(count)), math.ceil(count / down)))
    rows = math.ceil(count / columns)
    cells = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    cells[:count] = images
    cells = cells.reshape(rows, columns, *images.shape[1:]).swapaxes(1, 2)
    return cells.reshape(rows * height, columns * width, *images.shape[3:])


def _raw(
    name: str, module: str, package: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> Baseline:
    """A codec of bytes."""
    return Baseline(
        name,
        "raw",
        module,
        package,
        False,
        lambda array: [compress(array.tobytes())],
        lambda files, like: np.frombuffer(decompress(files[0]), like.dtype).reshape(like.shape),
    )


def _pictures(
    name: str, module: str, package: str, encode: Callable[[Picture], bytes], decode: Callable[[bytes], Picture]
) -> tuple[Baseline, Baseline]:
    """A codec of pictures, on a grid and on each image."""

    def single(data: bytes, like: Array) -> Picture:
        picture = decode(data)
        return picture[..., 0] if picture.ndim == like.ndim else picture  # WebP has no grey

    def decode_grid(files: list[bytes], like: Array) -> Array:
        return untile([single(data, like) for data in files], like.shape).astype(like.dtype)

    def decode_each(files: list[bytes], like: Array) -> Array:
        return np.stack([single(data, like) for data in files]).astype(like.dtype)

    def encode_grid(array: Array) -> list[bytes]:
        return [encode(grid) for grid in tile(array.astype(np.uint8))]

    def encode_each(array: Array) -> list[bytes]:
        return [encode(image) for image in array.astype(np.uint8)]

    return (
        Baseline(name, "grid", module, package, True, encode_grid, decode_grid),
        Baseline(name, "each", module, package, True, encode_each, decode_each),
    )


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _zstd(data: bytes) -> bytes:
    return bytes(import_module("zstandard").ZstdCompressor(level=19).compress(data))


def _unzstd(data: bytes) -> bytes:
    return bytes(import_module("zstandard").ZstdDecompressor().decompress(data))


def _bzip3(data: bytes) -> bytes:
    block = min(BZIP3_BLOCK_MAXIMUM, max(BZIP3_BLOCK_MINIMUM, len(data)))  # all in one block: the best it can do
    return bytes(import_module("bz3").compress(data, block_size=block))


def _unbzip3(data: bytes) -> bytes:
    return bytes(import_module("bz3").decompress(data))


def _zpaq(data: bytes) -> bytes:
    return bytes(import_module("zpaq").compress(data, level=5, threads=1))  # more threads make more bytes


def _unzpaq(data: bytes) -> bytes:
    return bytes(import_module("zpaq").decompress(data))


def _png(picture: Picture) -> bytes:
    """One bit for each pixel if there are only zeros and ones."""
    bilevel = picture.ndim == 2 and picture.max() <= 1
    return _saved(picture.astype(np.bool_) if bilevel else picture, "PNG", optimize=True)


def _webp(picture: Picture) -> bytes:
    colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=-1)
    return _saved(colours, "WEBP", lossless=True, quality=100, method=6)


def _saved(picture: Array, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    import_module("PIL.Image").fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def _opened(data: bytes) -> Picture:
    with import_module("PIL.Image").open(io.BytesIO(data)) as picture:
        return np.asarray(picture).astype(np.uint8)


def _jxl(effort: int) -> Callable[[Picture], bytes]:
    def encode(picture: Picture) -> bytes:
        codecs = import_module("imagecodecs")
        return bytes(codecs.jpegxl_encode(picture, effort=effort, lossless=True, numthreads=1))

    return encode


def _unjxl(data: bytes) -> Picture:
    return np.asarray(import_module("imagecodecs").jpegxl_decode(data, numthreads=1), np.uint8)


BASELINES: tuple[Baseline, ...] = (
    _raw("zstd-19", "zstandard", "zstandard", _zstd, _unzstd),
    _raw("xz-9e", "lzma", "", _xz, lzma.decompress),
    _raw("bzip2-9", "bz2", "", bz2.compress, bz2.decompress),
    _raw("bzip3", "bz3", "bzip3", _bzip3, _unbzip3),
    _raw("zpaq-5", "zpaq", "zpaq", _zpaq, _unzpaq),
    *_pictures("png", "PIL.Image", "pillow", _png, _opened),
    *_pictures("webp", "PIL.Image", "pillow", _webp, _opened),
    *_pictures("jxl-7", "imagecodecs", "imagecodecs", _jxl(7), _unjxl),
    *_pictures("jxl-9", "imagecodecs", "imagecodecs", _jxl(9), _unjxl),
    *_pictures("jxl-10", "imagecodecs", "imagecodecs", _jxl(10), _unjxl)[:1],  # on each alone it takes minutes
)
"""The names say the level, or the effort, that a codec was set to."""
