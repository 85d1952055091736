"""Reading `.bba` files: all of an array, or only the rows that are asked for."""

from __future__ import annotations

import bisect
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.canonical import canonical_order, row_bytes
from bbans.container import Directory, Header, Method, read_directory, read_embedded, read_payload
from bbans.embedded import extract
from bbans.errors import ArrayError, BbansError, FormatError, LimitError
from bbans.fallback import restore
from bbans.model import Model
from bbans.parallel import Progress, map_in_order, spare_threads

WORKING_BYTES = 24
"""That decoding a pixel takes besides the pixel."""
ORDER_BYTES = 32
"""That sorting a row takes besides the row."""


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

    @property
    def working_bytes(self) -> int:
        """That decoding an element takes besides the element."""

    def check(self, directory: Directory) -> None:
        """Raise an error unless this can decode the file.

        A :class:`bbans.errors.ModelError` if it needs another model, a :class:`bbans.errors.FormatError` if its
        chunks are not made of images of the model.
        """

    def decode(self, payload: bytes, rows: int, header: Header, threads: int) -> NDArray[Any]:
        """The elements of a bits-back chunk of ``rows`` rows, flattened, decoded on so many threads."""

    def decode_set(
        self, payloads: Sequence[bytes | None], sizes: Sequence[int], header: Header, progress: Progress | None
    ) -> Iterator[NDArray[Any]]:
        """The rows of a set in canonical order, some at a time, from its chunks of ``sizes`` rows.

        If some are None, the rows that can be had without them.
        """


@dataclass(frozen=True)
class Salvaged:
    """What came of chunks that are decoded together."""

    chunks: range
    rows: range
    """Where they belong."""
    found: NDArray[Any]
    """These rows. If there is an error: none, or those of a set that can still be had."""
    error: BbansError | None

    @property
    def place(self) -> str:
        """Where that is, in words."""
        where = f"chunk {self.chunks.start}"
        if len(self.chunks) > 1:
            where = f"the set of chunks {self.chunks.start}:{self.chunks.stop}"
        return f"{where} (rows {self.rows.start}:{self.rows.stop})"


class CompressedArray:
    """An array in a `.bba` file; reading rows decodes only the chunks, or the sets, that hold them.

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
        self._chunks = self.directory.blocks
        self._starts = [0]
        for chunks in self._chunks:
            self._starts.append(self._starts[-1] + sum(self._sizes(chunks)))
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
        for number in range(len(self._chunks)):
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
        for block in self.blocks(start, stop, progress):
            rows[done : done + len(block)] = block
            done += len(block)
        if out is not None:
            return out
        return rows if self.shape else rows.reshape(())

    def blocks(
        self, start: int = 0, stop: int | None = None, progress: Progress | None = None
    ) -> Iterator[NDArray[Any]]:
        """The same rows some at a time, in order: decoded side by side, in the memory of a few chunks, or of a set."""
        stop = self.directory.rows if stop is None else min(stop, self.directory.rows)
        starts = self._starts
        numbers = [n for n in range(len(starts) - 1) if starts[n] < stop and starts[n + 1] > start]
        if not self.header.ordered:
            for number in numbers:
                yield from self._set_blocks(number, start, stop, progress)
            return
        threads = self._decoder.threads
        each = spare_threads(threads, len(numbers))
        decoded = map_in_order(lambda number: self._decode(number, each), numbers, threads)
        for number, block in zip(numbers, decoded, strict=True):
            part = block[max(0, start - starts[number]) : stop - starts[number]]
            yield part
            if progress is not None:
                progress(len(part))

    def _set_blocks(self, number: int, start: int, stop: int, progress: Progress | None) -> Iterator[NDArray[Any]]:
        """Rows of a set, or of a stored chunk beside sets."""
        done = self._starts[number]
        chunks = self._chunks[number]
        if self.directory.chunks[chunks[0]].method is not Method.BITS_BACK:
            blocks = iter([self._decode(number, self._decoder.threads)])
        else:
            blocks = self._decode_set([self.payload(chunk) for chunk in chunks], chunks, progress)
            progress = None
        for block in blocks:
            part = block[max(0, start - done) : max(0, stop - done)]
            if len(part):
                yield part
            done += len(block)
            if progress is not None:
                progress(len(part))

    def salvage(self, progress: Progress | None = None) -> Iterator[Salvaged]:
        """What came of all chunks, in order."""
        numbers = list(range(len(self._chunks)))
        # The chunks of a set are decoded at once, those of other files several at a time.
        threads = self._decoder.threads if self.header.ordered else 1
        each = spare_threads(self._decoder.threads, len(numbers) if self.header.ordered else 1)
        for salvaged in map_in_order(lambda number: self._salvaged(number, each), numbers, threads):
            if progress is not None:
                progress(len(salvaged.rows))
            yield salvaged

    def _salvaged(self, number: int, threads: int) -> Salvaged:
        chunks, rows = self._chunks[number], range(self._starts[number], self._starts[number + 1])
        try:
            return Salvaged(chunks, rows, self._decode(number, threads), None)
        except BbansError as error:
            return Salvaged(chunks, rows, self._rest_of_set(chunks), error)

    def _rest_of_set(self, chunks: range) -> NDArray[Any]:
        """What the whole chunks of a set hold of it; nothing if all of them are whole."""
        payloads: list[bytes | None] = []
        for number in chunks:
            try:
                payloads.append(self.payload(number))
            except BbansError:
                payloads.append(None)
        if None not in payloads or not any(payloads):
            return self._empty(0)
        try:
            return np.concatenate([self._empty(0), *self._decode_set(payloads, chunks, None)])
        except BbansError:
            return self._empty(0)

    @property
    def _row_elements(self) -> int:
        return math.prod(self.header.row_shape)

    def _sizes(self, chunks: range) -> list[int]:
        return [self.directory.chunks[number].rows for number in chunks]

    def check_memory(self, rows: int, bytes_of_element: int) -> None:
        """Raise :class:`bbans.errors.LimitError` if so many rows are too many."""
        self._check_size(rows, rows * self._row_elements * bytes_of_element)

    def _check_size(self, rows: int, size: int) -> None:
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

    def _block(self, number: int) -> NDArray[Any]:
        """All rows of a chunk, not to be changed: the latest is kept, since rows are often asked for one by one."""
        latest = self._latest
        if latest is None or latest[0] != number:
            latest = self._latest = number, self._decode(number, self._decoder.threads)
        return latest[1]

    def _decode(self, number: int, threads: int) -> NDArray[Any]:
        """All rows of a chunk, or of a set."""
        chunks = self._chunks[number]
        chunk = self.directory.chunks[chunks[0]]
        rows = sum(self._sizes(chunks))
        if chunk.method is Method.BITS_BACK and not self.header.ordered:
            self.check_memory(rows, self.dtype.itemsize)
            return np.concatenate(list(self._decode_set([self.payload(each) for each in chunks], chunks, None)))
        planes = 2 * self.dtype.itemsize if chunk.method is Method.PLANES else 0
        working = self._decoder.working_bytes if chunk.method is Method.BITS_BACK else planes
        self.check_memory(rows, self.dtype.itemsize + working)
        payload = self.payload(chunks[0])
        shape = (rows, *self.header.row_shape)
        if chunk.method is not Method.BITS_BACK:
            return restore((chunk.method, payload), self.dtype, shape)
        return self._decoder.decode(payload, rows, self.header, threads).reshape(shape)

    def _decode_set(
        self, payloads: Sequence[bytes | None], chunks: range, progress: Progress | None
    ) -> Iterator[NDArray[Any]]:
        """The rows of a set, some at a time, as far as there are payloads."""
        sizes = self._sizes(chunks)
        at_once = min(self._decoder.threads, len(sizes)) * max(sizes)
        pixels = (sum(sizes) + at_once * WORKING_BYTES) * self._row_elements
        self._check_size(sum(sizes), pixels + sum(sizes) * ORDER_BYTES)
        return self._decoder.decode_set(payloads, sizes, self.header, progress)


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
    """Raise :class:`bbans.errors.BbansError` unless a file decodes to ``array``, and all of it is whole.

    If the file keeps no order, ``array`` may have any.
    """
    compressed.embedded_model()
    rows = array if array.ndim else array[None]
    order = None if compressed.header.ordered else canonical_order(row_bytes(rows))
    start = 0
    for decoded in compressed.blocks():
        part = slice(start, start + len(decoded))
        expected = rows[part] if order is None else rows[order[part]]
        if decoded.dtype != array.dtype or decoded.tobytes() != expected.tobytes():
            raise BbansError("what was written does not decode to the input; nothing was kept. Please report this")
        start += len(decoded)
