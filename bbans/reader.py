"""Reading `.bba` files: all of an array, or only the rows that are asked for."""

from __future__ import annotations

import bisect
import io
import math
import os
import re
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.codec import Codec, Progress, map_in_order
from bbans.container import Chunk, Header, Method, ModelReference, read_directory, read_payload
from bbans.errors import FormatError, ModelError
from bbans.fallback import restore
from bbans.model import Model, load_model
from bbans.symbols import NUMERIC_KINDS, count_images

DTYPE = re.compile(r"[|<>=][a-zA-Z]\d{1,2}")


class CompressedArray:
    """An array in a `.bba` file; reading rows decodes only the chunks that hold them.

    It has ``len``, ``shape``, ``dtype``, indexing by integers and slices (of further axes too) and iteration over
    rows. Close it, or use it as a context manager. It may be shared by threads.

    Raises :class:`bbans.errors.FormatError` for a file that is not whole and sane, and
    :class:`bbans.errors.ModelError` if ``codec`` has not the model that the file was written with.
    """

    def __init__(self, file: BinaryIO, codec: Codec) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.directory = read_directory(file)
        self.header = self.directory.header
        self.dtype = parse_dtype(self.header)
        self.shape = self.directory.shape
        self._codec = codec
        codec.check(self.header.model)
        if self.header.model is not None:
            _check_rows(self.header, self.directory.chunks, codec)
        self._starts = [0]
        for chunk in self.directory.chunks:
            self._starts.append(self._starts[-1] + chunk.rows)
        self._latest: tuple[int, NDArray[Any]] | None = None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        first, *others = key if isinstance(key, tuple) else (key,)
        if not self.shape or not isinstance(first, (int, np.integer, slice)):
            return self.read()[key]
        if isinstance(first, slice):
            start, stop, step = first.indices(len(self))
            if step < 0:
                start, stop, step = stop + 1 + (start - stop - 1) % -step, start + 1, -step
                return self[(slice(max(start, 0), stop, step), *others)][::-1] if start < stop else self.read(0, 0)
            rows = self.read(start, max(start, stop))
            return rows[(slice(None, None, step), *others)]
        row = int(first) + (len(self) if first < 0 else 0)
        if not 0 <= row < len(self):
            raise IndexError(f"row {int(first)} of an array of {len(self)} rows")
        number = bisect.bisect_right(self._starts, row) - 1
        block = self._block(number)
        return block[(row - self._starts[number], *others)]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(len(self.directory.chunks)):
            yield from self._block(number)

    def __enter__(self) -> CompressedArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, start: int = 0, stop: int | None = None, progress: Progress | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (to the end by default) as an array."""
        total = self.directory.rows
        stop = total if stop is None else min(stop, total)
        try:
            out = np.empty((max(stop - start, 0), *self.header.row_shape), self.dtype)
        except (MemoryError, ValueError) as error:
            raise FormatError(f"an array of shape {self.shape} does not fit in memory: {error}") from error
        starts = self._starts
        numbers = [n for n in range(len(starts) - 1) if starts[n] < stop and starts[n + 1] > start]
        for number, block in zip(numbers, map_in_order(self._decode, numbers, self._codec.threads), strict=True):
            first, last = max(start, starts[number]), min(stop, starts[number + 1])
            out[first - start : last - start] = block[first - starts[number] : last - starts[number]]
            if progress is not None:
                progress(last - first)
        return out if self.shape else out.reshape(())

    def _block(self, number: int) -> NDArray[Any]:
        """All rows of a chunk; the latest one is kept, since rows are often asked for one after the other."""
        latest = self._latest
        if latest is None or latest[0] != number:
            latest = self._latest = number, self._decode(number)
        return latest[1].copy()

    def _decode(self, number: int) -> NDArray[Any]:
        chunk = self.directory.chunks[number]
        with self._lock:
            payload = read_payload(self._file, self.directory, number)
        shape = (chunk.rows, *self.header.row_shape)
        if chunk.method is Method.ZSTANDARD:
            data = restore(payload, math.prod(shape) * self.dtype.itemsize)
            return np.frombuffer(data, self.dtype).reshape(shape)
        return self._codec.decode(payload, chunk.rows, self.header).reshape(shape)


def parse_dtype(header: Header) -> np.dtype[Any]:
    """The type of a file's elements; :class:`bbans.errors.FormatError` if it is not one of numbers."""
    try:
        dtype = np.dtype(header.dtype) if DTYPE.fullmatch(header.dtype) else None
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in NUMERIC_KINDS or dtype.str != header.dtype:
        raise FormatError(f"the file holds elements of type {header.dtype!r}, which are not numbers known here")
    return dtype


def _check_rows(header: Header, chunks: tuple[Chunk, ...], codec: Codec) -> None:
    """Chunks coded with a model must hold whole images, of values that the array's type can hold."""
    assert codec.model is not None
    for chunk in chunks:
        if chunk.method is Method.BITS_BACK:
            shape = (chunk.rows, *header.row_shape)
            if not count_images(shape, codec.model.image_shape) or header.scale not in (1, 255):
                raise FormatError(f"a chunk of shape {shape} does not fit model {codec.model.name}")


def codec_for(
    reference: ModelReference | None,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "numpy",
    threads: int | None = None,
) -> Codec:
    """A codec for what a file names: ``model`` if given, else the shipped model of that name.

    Raises :class:`bbans.errors.ModelError` if it is missing or another one.
    """
    loaded, posterior = None, None
    if reference is not None:
        posterior = reference.posterior
        try:
            loaded = model if isinstance(model, Model) else load_model(model or reference.name)
        except ModelError as error:
            raise ModelError(f"the file needs model {reference.name}: {error}") from error
    codec = Codec.of(loaded, posterior=posterior, engine=engine, device=device, ans=ans, threads=threads)
    codec.check(reference)
    return codec


def open_array(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "numpy",
    threads: int | None = None,
) -> CompressedArray:
    """Open a `.bba` file by its path, its bytes, or as a seekable binary file, without decoding any of it.

    ``model`` is needed only if the file was written with a model that doesn't come with the package. The other
    arguments are those of :meth:`bbans.Codec.of`.
    """
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        file = open(source, "rb")  # noqa: SIM115 - closed with the CompressedArray
    else:
        file = source
    try:
        reference = read_directory(file).header.model
        codec = codec_for(reference, model=model, engine=engine, device=device, ans=ans, threads=threads)
        return CompressedArray(file, codec)
    except BaseException:
        if file is not source:
            file.close()
        raise
