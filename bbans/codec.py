"""The codec: whole arrays to `.bba` bytes and back, with one model or none."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans import container
from bbans.ans import Core, core_named
from bbans.chunk import ChunkCoder
from bbans.container import Directory, Header, Method, ModelReference
from bbans.embedded import embed
from bbans.errors import FormatError, ModelError
from bbans.evaluated import EvaluatedModel
from bbans.fallback import NEAR, quick_size, store, stored_if_smaller
from bbans.inference.refined import STEPS_MAXIMUM
from bbans.model import Model
from bbans.parallel import map_in_order, spare_threads
from bbans.portable.engine import Engine
from bbans.portable.engines import engine_named, goes_with_compiled_code
from bbans.reader import CompressedArray, Progress
from bbans.symbols import check_numeric, count_images, find_scale, from_symbols, to_symbols

CHUNK_PIXELS = 1 << 22
"""Pixels of a chunk, unless the caller chooses."""
STORED_CHUNK_BYTES = 1 << 24


CodedChunk = tuple[int, Method, bytes]
"""Rows, method and payload."""


@dataclass(frozen=True)
class Written:
    """What became of an array."""

    size: int
    """Bytes of the file."""
    elements: int
    raw_size: int
    """Bytes of the array."""
    model: str | None
    note: str | None
    """What the user should know: that data was stored through zstandard, and why."""
    embedded_size: int = 0
    """Bytes of the file that are the model's."""

    @property
    def bits_per_dimension(self) -> float:
        """Bits of the whole file for each element of the array."""
        return 8 * self.size / self.elements if self.elements else math.nan


@dataclass(frozen=True)
class _Content:
    """What goes into a file."""

    chunks: Iterable[CodedChunk]
    uses_model: bool
    embedded: bytes = b""
    note: str | None = None


@dataclass(frozen=True, eq=False)
class Codec:
    """A loaded model, ready to code any number of arrays, from any number of threads.

    >>> import numpy as np, bbans
    >>> codec = bbans.Codec.of(bbans.load_model("gg-mnist-binary"))
    >>> images = np.zeros((5, 28, 28), bool)
    >>> data = codec.compress(images)
    >>> bool((codec.decompress(data) == images).all())
    True
    """

    model: Model | None
    """None stores everything through zstandard."""
    posterior: str
    steps: int
    evaluated: EvaluatedModel | None
    core: Core
    threads: int
    thorough: bool = False
    engine: Engine | None = None
    """What evaluates the model."""
    embedded: bytes = b""
    """What is put into every file so that it needs no other model; empty if nothing is."""

    @staticmethod
    def of(
        model: Model | None,
        *,
        posterior: str | None = None,
        steps: int = 0,
        engine: str | Engine = "auto",
        device: str = "auto",
        ans: str = "auto",
        threads: int | None = None,
        thorough: bool = False,
        embed_model: bool = False,
        pixels: int | None = None,
    ) -> Codec:
        """A codec for ``model``, with its default posterior unless another one is named.

        The posterior is refined by ``steps`` steps up the ELBO of each image (:mod:`bbans.inference.refined`).
        ``threads`` is the number of chunks coded at once, as many as there are processors by default. The bytes
        don't depend on it, nor on ``engine``, ``device`` and ``ans``; if it is known about how many ``pixels`` are to
        be coded, ``auto`` loads compiled code only where it is worth it. A chunk is stored through zstandard if its
        default level makes less of it than the model does, or, with ``thorough``, if level 19 does. With
        ``embed_model``, the model is part of every file that is coded with it; a file that this makes larger than
        level 19 does is stored through zstandard. Raises :class:`bbans.errors.ModelError` for a posterior that the
        model lacks or a model too large to embed, :class:`bbans.errors.CoreError` for an engine or a core that is not
        there.
        """
        threads = threads or os.cpu_count() or 1
        if model is None:
            return Codec(None, "", 0, None, core_named("numpy" if ans == "auto" else ans), threads, thorough)
        posterior = posterior or model.default_posterior
        if not 0 <= steps <= STEPS_MAXIMUM:
            raise ModelError(f"a posterior is refined by 0 to {STEPS_MAXIMUM} steps, got {steps}")
        if isinstance(engine, str):
            engine = engine_named(engine, device, None if pixels is None else model.multiply_adds(pixels))
        evaluated = EvaluatedModel.of(model, posterior, engine, steps)
        embedded = embed(model, posterior) if embed_model else b""
        if ans == "auto":
            ans = "numba" if goes_with_compiled_code(engine) else "numpy"
        return Codec(model, posterior, steps, evaluated, core_named(ans), threads, thorough, engine, embedded)

    def __reduce__(self) -> tuple[Callable[..., Codec], tuple[object, ...]]:
        """For other processes: the networks are loaded again there."""
        settings = self.posterior or None, self.steps, self.engine or "auto", self.core.name, self.threads
        return _again, (self.model, *settings, self.thorough, bool(self.embedded))

    @property
    def reference(self) -> ModelReference | None:
        """How a file names this codec's model."""
        if self.model is None:
            return None
        return ModelReference(self.model.name, self.model.identity(self.posterior), self.posterior, self.steps)

    def chunk_coder(self, threads: int = 1) -> ChunkCoder:
        """What codes a chunk that has so many threads to itself; the codec must have a model."""
        assert self.model is not None and self.evaluated is not None
        evaluated = self.evaluated.on_threads(threads)
        return ChunkCoder(evaluated, self.core, self.model.image_bits, self.model.latent_bits)

    def compress(self, array: NDArray[Any], chunk_size: int | None = None) -> bytes:
        """The array as a whole `.bba` file: see :meth:`write`."""
        file = io.BytesIO()
        self.write(file, array, chunk_size)
        return file.getvalue()

    def write(
        self, file: BinaryIO, array: NDArray[Any], chunk_size: int | None = None, progress: Progress | None = None
    ) -> Written:
        """Compress an array of any numeric type and shape to ``file``.

        ``chunk_size`` is the number of rows (entries of the first axis) that are coded together: what a slice of
        the file costs to read. What the model doesn't fit, or codes worse, is stored through zstandard. Raises
        :class:`bbans.errors.ArrayError` for arrays that don't hold numbers.

        Chunks are written as they are coded, or kept until the last one is if a model might be embedded.
        """
        check_numeric(array)
        scale = self._scale_of(array)
        rows = array[None] if array.ndim == 0 else array
        content = self._content(rows, scale, chunk_size, progress)
        reference = self.reference if content.uses_model else None
        header = Header(array.dtype.str, array.ndim, rows.shape[1:], scale if reference and scale else 1, reference)
        stored_rows = 0

        def chunks() -> Iterator[CodedChunk]:
            nonlocal stored_rows
            for chunk in content.chunks:
                stored_rows += 0 if chunk[1] is Method.BITS_BACK else chunk[0]
                yield chunk

        size = container.write(file, header, chunks(), content.embedded)
        note = content.note
        if note is None and stored_rows:
            note = f"{stored_rows} of {len(rows)} rows are smaller through zstandard, and were stored so"
        name = reference.name if reference else None
        return Written(size, array.size, array.nbytes, name, note, len(content.embedded))

    def decompress(self, data: bytes) -> NDArray[Any]:
        """The array that a `.bba` file holds, which must have been written with this codec's model or with none."""
        with CompressedArray(io.BytesIO(data), self) as compressed:
            return compressed.read()

    def check(self, directory: Directory) -> None:
        """See :class:`bbans.reader.Decoder`."""
        header = directory.header
        if header.model is None:
            return
        if self.model is None or header.model != self.reference:
            own = f"{self.model.name} ({self.posterior}, {self.steps} steps)" if self.model else "no model"
            raise ModelError(
                f"the file was written with model {header.model.name}, posterior {header.model.posterior}, "
                f"{header.model.steps} steps, identity {header.model.identity.hex()}; what is loaded is {own}"
            )
        if header.scale not in (1, 255):
            raise FormatError(f"the file has a scale of {header.scale}: it is damaged")
        for chunk in directory.chunks:
            shape = (chunk.rows, *header.row_shape)
            if chunk.method is Method.BITS_BACK and not count_images(shape, self.model.image_shape):
                raise FormatError(f"a chunk of shape {shape} does not fit model {self.model.name}: the file is damaged")

    def decode(self, payload: bytes, rows: int, header: Header, threads: int) -> NDArray[Any]:
        """See :class:`bbans.reader.Decoder`."""
        assert self.model is not None
        elements = rows * math.prod(header.row_shape)
        symbols = self.chunk_coder(threads).decode(payload, elements // self.model.pixels)
        return from_symbols(symbols, header.scale, np.dtype(header.dtype)).ravel()

    def _scale_of(self, array: NDArray[Any]) -> int | None:
        """How the array's elements become the model's symbols, or None if the model doesn't fit."""
        if self.model is None or not array.size or count_images(array.shape, self.model.image_shape) is None:
            return None
        return find_scale(array, self.model.symbols)

    def _content(
        self, rows: NDArray[Any], scale: int | None, chunk_size: int | None, progress: Progress | None
    ) -> _Content:
        """What a file of ``rows`` holds, coded as it is asked for unless a model might have to be embedded."""
        if self.model is None or scale is None:
            note = "no model fits; the array was stored through zstandard"
            if self.model is not None:
                note = (
                    f"model {self.model.name} does not fit (it takes images of shape {self.model.image_shape} with "
                    f"{self.model.symbols} values); the array was stored through zstandard"
                )
            return _Content(_reported(self._stored(rows, chunk_size), progress), uses_model=False, note=note)
        chunks = _reported(self._coded(rows, scale, chunk_size), progress)
        if not self.embedded:
            return _Content(chunks, uses_model=True)
        # The model comes before the chunks, and whether it is worth its bytes is known after the last of them.
        coded = list(chunks)
        if not any(method is Method.BITS_BACK for _, method, _ in coded):
            return _Content(coded, uses_model=False)
        size = len(self.embedded) + sum(len(payload) for _, _, payload in coded)
        stored = self._stored_if_smaller(rows, chunk_size, size)
        if stored is None:
            return _Content(coded, uses_model=True, embedded=self.embedded)
        note = (
            f"the file would be larger with model {self.model.name} in it ({len(self.embedded):,} bytes); "
            "the array was stored through zstandard"
        )
        return _Content(stored, uses_model=False, note=note)

    def _stored_if_smaller(self, rows: NDArray[Any], chunk_size: int | None, size: int) -> list[CodedChunk] | None:
        """All rows through zstandard at level 19, if that takes less than ``size`` bytes."""
        slices = _slices(len(rows), chunk_size or _stored_chunk_size(rows))
        if size < NEAR * sum(quick_size(rows[part]) for part in slices):
            return None
        stored = []
        for chunk in self._stored(rows, chunk_size):
            size -= len(chunk[2])
            if size <= 0:
                return None
            stored.append(chunk)
        return stored

    def _stored(self, rows: NDArray[Any], chunk_size: int | None) -> Iterator[CodedChunk]:
        """Chunks of rows through zstandard."""
        slices = _slices(len(rows), chunk_size or _stored_chunk_size(rows))
        stored = map_in_order(lambda part: store(rows[part]), slices, self.threads)
        for part, (method, payload) in zip(slices, stored, strict=True):
            yield part.stop - part.start, method, payload

    def _coded(self, rows: NDArray[Any], scale: int, chunk_size: int | None) -> Iterator[CodedChunk]:
        """Chunks of rows through the model, or as many as zstandard likes together if it makes less of them."""
        assert self.model is not None
        model = self.model
        row_pixels = math.prod(rows.shape[1:])
        size = chunk_size or max(1, CHUNK_PIXELS // row_pixels)
        if row_pixels < model.pixels:
            size = len(rows)  # all rows together are one image
        slices = _slices(len(rows), size)
        coder = self.chunk_coder(spare_threads(self.threads, len(slices)))

        def encode(part: slice) -> bytes:
            return coder.encode(to_symbols(rows[part], scale).reshape(-1, model.pixels).astype(np.int64))

        payloads = map_in_order(encode, slices, self.threads)
        together = 1 if chunk_size else max(1, _stored_chunk_size(rows) // size)
        for first in range(0, len(slices), together):
            group = slices[first : first + together]
            coded = [next(payloads) for _ in group]
            together_rows = rows[group[0].start : group[-1].stop]
            stored = stored_if_smaller(together_rows, sum(map(len, coded)), self.thorough)
            if stored is not None:
                yield len(together_rows), *stored
            else:
                for part, payload in zip(group, coded, strict=True):
                    yield part.stop - part.start, Method.BITS_BACK, payload


def _again(
    model: Model | None,
    posterior: str | None,
    steps: int,
    engine: str | Engine,
    ans: str,
    threads: int,
    thorough: bool,
    embed_model: bool,
) -> Codec:
    """A codec that was sent to another process."""
    return Codec.of(
        model,
        posterior=posterior,
        steps=steps,
        engine=engine,
        ans=ans,
        threads=threads,
        thorough=thorough,
        embed_model=embed_model,
    )


def _reported(chunks: Iterable[CodedChunk], progress: Progress | None) -> Iterator[CodedChunk]:
    """The same chunks, each counted when it comes."""
    for chunk in chunks:
        if progress is not None:
            progress(chunk[0])
        yield chunk


def _stored_chunk_size(rows: NDArray[Any]) -> int:
    """How many rows zstandard gets at a time."""
    return max(1, STORED_CHUNK_BYTES // max(1, math.prod(rows.shape[1:]) * rows.itemsize))


def _slices(count: int, size: int) -> list[slice]:
    """Rows cut into chunks of almost equal size, at most ``size``."""
    pieces = math.ceil(count / size)
    return [slice(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]
