"""Reading `.bba` files: all of an array, or only the rows that are asked for."""

from __future__ import annotations

import bisect
import math
import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bbans.container import Directory, Header, Method, read_directory, read_embedded, read_payload
from bbans.embedded import extract
from bbans.errors import ArrayError, BbansError, FormatError, LimitError
from bbans.fallback import restore
from bbans.model import Model
from bbans.parallel import map_in_order, spare_threads

Decoded = TypeVar("Decoded")
Progress = Callable[[int], object]
"""Called with the number of rows done since the last call."""


WORKING_BYTES = 24
"""That decoding a pixel takes besides the pixel."""


def half_of_memory() -> int:
    """Half of the machine's memory in bytes, or 4 GiB where that is not to be known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


class Decoder(Protocol):
    """What decodes the chunks that were coded with a model: a :class:`bbans.Codec`."""

    @property
    def threads(self) -> int:
        """How many chunks are decoded at once."""

    def check(self, directory: Directory) -> None:
        """Raise an error unless this can decode the file.

        A :class:`bbans.errors.ModelError` if it needs another model, a :class:`bbans.errors.FormatError` if its
        chunks are not made of images of the model.
        """

    def decode(self, payload: bytes, rows: int, header: Header, threads: int) -> NDArray[Any]:
        """The elements of a bits-back chunk of ``rows`` rows, flattened, decoded on so many threads."""


class CompressedArray:
    """An array in a `.bba` file; reading rows decodes only the chunks that hold them.

    It has ``len``, ``shape``, ``dtype``, indexing by integers and slices (of further axes too) and iteration over
    rows. Close it, or use it as a context manager. It may be shared by threads.

    Raises :class:`bbans.errors.FormatError` for a file that is not whole and sane, and
    :class:`bbans.errors.ModelError` if ``decoder`` has not the model that the file was written with. What would take
    more than ``max_memory`` bytes to decode or to hold, half of the machine's by default, is not tried: reading it
    raises :class:`bbans.errors.LimitError`.
    """

    def __init__(
        self, file: BinaryIO, decoder: Decoder, max_memory: int | None = None, path: str | None = None
    ) -> None:
        self._file = file
        self._path = path
        self._max_memory = half_of_memory() if max_memory is None else max_memory
        self._lock = threading.Lock()
        self.directory = read_directory(file)
        self.header = self.directory.header
        self.dtype = parse_dtype(self.header)
        self.shape = self.directory.shape
        self._decoder = decoder
        decoder.check(self.directory)
        self._starts = [0]
        for chunk in self.directory.chunks:
            self._starts.append(self._starts[-1] + chunk.rows)
        self._latest: tuple[int, NDArray[Any]] | None = None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Along each axis, the lengths of the parts that are decoded together, as ``dask.array`` has them."""
        rows = tuple(chunk.rows for chunk in self.directory.chunks)
        return (rows, *((length,) for length in self.header.row_shape)) if self.shape else ()

    def __reduce__(self) -> tuple[Callable[..., CompressedArray], tuple[object, ...]]:
        """For other processes, which open the same file."""
        if self._path is None:
            raise TypeError("only an array that was opened by its path can be sent to other processes")
        return _open_again, (self._path, self._decoder, self._max_memory)

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
        return self._block(number)[(row - self._starts[number], *others)].copy()

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(len(self.directory.chunks)):
            yield from self._block(number).copy()

    def __enter__(self) -> CompressedArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def decoder(self) -> Decoder:
        """What decodes the chunks that were coded with a model."""
        return self._decoder

    def payload(self, number: int) -> bytes:
        """The bytes of a chunk; :class:`bbans.errors.FormatError` if they are damaged."""
        with self._lock:
            return read_payload(self._file, self.directory, number)

    def __del__(self) -> None:
        if getattr(self, "_path", None) is not None:
            self.close()

    def embedded_model(self) -> Model | None:
        """The model that lies in the file, or None; :class:`bbans.errors.FormatError` if it is damaged."""
        if self.header.embedded is None or self.header.model is None:
            return None
        with self._lock:
            data = read_embedded(self._file, self.directory)
        return extract(data, self.header.model)

    def read(
        self,
        start: int = 0,
        stop: int | None = None,
        progress: Progress | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (to the end by default) as an array.

        They are decoded into ``out``, if given, chunk by chunk: an array of just the shape and type, which may be part
        of another one, mapped, or a tensor's memory. Else :class:`bbans.errors.ArrayError` is raised.
        """
        stop = self.directory.rows if stop is None else min(stop, self.directory.rows)
        if out is None:
            self.check_memory(stop - start, self.dtype.itemsize)
            rows = self._empty(stop - start)
        else:
            check_out(out, (max(stop - start, 0), *self.header.row_shape) if self.shape else (), self.dtype)
            rows = out if self.shape else out[None]
        done = 0
        for block in self.blocks(start, stop):
            rows[done : done + len(block)] = block
            done += len(block)
            if progress is not None:
                progress(len(block))
        if out is not None:
            return out
        return rows if self.shape else rows.reshape(())

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[Any]]:
        """The same rows chunk by chunk, ``(rows, ...)``, in order: decoded side by side, in the memory of a few."""
        stop = self.directory.rows if stop is None else min(stop, self.directory.rows)
        starts = self._starts
        numbers = [n for n in range(len(starts) - 1) if starts[n] < stop and starts[n + 1] > start]
        for number, block in zip(numbers, self._blocks(numbers, self._decode), strict=True):
            yield block[max(0, start - starts[number]) : stop - starts[number]]

    def salvage(self) -> Iterator[tuple[range, NDArray[Any] | BbansError]]:
        """The rows of each chunk, and what they hold or why they are lost, in order."""
        numbers = list(range(len(self.directory.chunks)))

        def decode(number: int, threads: int) -> NDArray[Any] | BbansError:
            try:
                return self._decode(number, threads)
            except BbansError as error:
                return error

        for number, found in zip(numbers, self._blocks(numbers, decode), strict=True):
            yield range(self._starts[number], self._starts[number + 1]), found

    def check_memory(self, rows: int, bytes_of_element: int) -> None:
        """Raise :class:`bbans.errors.LimitError` if so many rows are too many."""
        size = rows * math.prod(self.header.row_shape) * bytes_of_element
        if size > self._max_memory:
            raise LimitError(
                f"{rows} rows take about {size:,} bytes to decode, more than the {self._max_memory:,} allowed: "
                "if you trust the file, raise the limit (--max-memory), or read fewer rows at a time"
            )

    def _empty(self, rows: int) -> NDArray[Any]:
        """Room for so many rows; :class:`bbans.errors.FormatError` if there is none."""
        try:
            return np.empty((max(rows, 0), *self.header.row_shape), self.dtype)
        except (MemoryError, ValueError) as error:
            raise FormatError(f"an array of shape {self.shape} does not fit in memory: {error}") from error

    def _blocks(self, numbers: list[int], decode: Callable[[int, int], Decoded]) -> Iterator[Decoded]:
        """These chunks, as many at once as there are threads, decoded by number on so many threads each."""
        threads = self._decoder.threads
        each = spare_threads(threads, len(numbers))
        return map_in_order(lambda number: decode(number, each), numbers, threads)

    def _block(self, number: int) -> NDArray[Any]:
        """All rows of a chunk, not to be changed: the latest is kept, since rows are often asked for one by one."""
        latest = self._latest
        if latest is None or latest[0] != number:
            latest = self._latest = number, self._decode(number, self._decoder.threads)
        return latest[1]

    def _decode(self, number: int, threads: int) -> NDArray[Any]:
        chunk = self.directory.chunks[number]
        planes = 2 * self.dtype.itemsize if chunk.method is Method.PLANES else 0
        working = WORKING_BYTES if chunk.method is Method.BITS_BACK else planes
        self.check_memory(chunk.rows, self.dtype.itemsize + working)
        payload = self.payload(number)
        shape = (chunk.rows, *self.header.row_shape)
        if chunk.method is not Method.BITS_BACK:
            return restore((chunk.method, payload), self.dtype, shape)
        return self._decoder.decode(payload, chunk.rows, self.header, threads).reshape(shape)


def _open_again(path: str, decoder: Decoder, max_memory: int) -> CompressedArray:
    """An array that was sent to another process."""
    return CompressedArray(open(path, "rb"), decoder, max_memory, path)


def check_out(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise :class:`bbans.errors.ArrayError` if ``out`` is given and can't take elements of this shape and type."""
    if out is None:
        return
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ArrayError(f"out= must be a writeable NumPy array, {dtype} {shape}, not {found}")


def parse_dtype(header: Header) -> np.dtype[Any]:
    """The type of a file's elements; :class:`bbans.errors.FormatError` if this machine has no such numbers."""
    try:
        return np.dtype(header.dtype)
    except TypeError:
        raise FormatError(
            f"the file holds elements of type {header.dtype!r}, which this machine doesn't have"
        ) from None


def check_equal(compressed: CompressedArray, array: NDArray[Any]) -> None:
    """Raise :class:`bbans.errors.BbansError` unless a file decodes to ``array``, and all of it is whole."""
    compressed.embedded_model()
    start = 0
    for decoded in compressed.blocks():
        expected = array[start : start + len(decoded)] if array.ndim else array
        if decoded.dtype != array.dtype or decoded.tobytes() != expected.tobytes():
            raise BbansError("what was written does not decode to the input; nothing was kept. Please report this")
        start += len(decoded)
