"""The codec: whole arrays to `.bba` bytes and back, with one model or none."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans import container
from bbans.ans import Core, core_named
from bbans.buffers import flat_view, open_buffer
from bbans.canonical import Bytes, SortedRows, order_bits, row_bytes
from bbans.chunk import ChunkCoder
from bbans.container import CODED, Directory, Header, Method, ModelReference
from bbans.embedded import embed
from bbans.errors import ArrayError, FormatError, ModelError
from bbans.evaluated import EvaluatedModel
from bbans.fallback import NEAR, Stored, quick_size, restore, store, stored_if_smaller
from bbans.inference.refined import STEPS_MAXIMUM
from bbans.lehmer import Integers
from bbans.local.coder import LocalCoder
from bbans.local.evaluated import strip_likelihood
from bbans.local.likelihood import StripLikelihood
from bbans.model import Model
from bbans.parallel import Progress, map_in_order, spare_threads
from bbans.portable.engine import Engine
from bbans.portable.engines import engine_named, goes_with_compiled_code
from bbans.portable.local import LocalNetwork
from bbans.reader import WORKING_BYTES, CompressedArray, check_out
from bbans.rows import Rows, Spread, block_of, check_rows
from bbans.sets import ROWS_MAXIMUM, SetCoder
from bbans.symbols import (
    SupportsDLPack,
    count_images,
    find_scale,
    fitting_scales,
    from_symbols,
    numeric_array,
    to_symbols,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

CHUNK_PIXELS = 1 << 22
"""Pixels of a chunk, unless the caller chooses."""
LOCAL_CHUNK_PIXELS = 1 << 20
"""The same of images of any size, of which each that is as large has a chunk of its own."""
SET_PIXELS = 1 << 30
"""Pixels of a set, unless the caller chooses: what decoding one keeps in memory."""
STORED_CHUNK_BYTES = 1 << 24
LOCAL_WORKING_BYTES = 4
"""That decoding a value of an image of any size takes besides the value."""
STORED_CHUNKS = {b"\0": Method.ZSTANDARD, b"\2": Method.PLANES}
"""How a chunk outside of a file begins that is stored through zstandard."""


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
    order_bits: float = 0
    """What was given back, since the rows' order was not kept."""

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
    evaluated: EvaluatedModel | StripLikelihood | None
    """The model on its engine; a model for images of any size has no latents, and codes them in strips."""
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
        evaluated: EvaluatedModel | StripLikelihood
        if model.any_size:
            model.identity(posterior)  # which says so if there is no such posterior
            if steps:
                raise ModelError(f"model {model.name} has no latents, and so no posterior to refine by {steps} steps")
            evaluated = strip_likelihood(model, engine)
        else:
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

    @property
    def misfit(self) -> str:
        """What a user is told of an array that the codec's model does not fit."""
        if self.model is None:
            return "no model fits; the array was stored through zstandard"
        return (
            f"model {self.model.name} does not fit (it takes images of shape {self.model.shape_text} with "
            f"{self.model.symbols} values); the array was stored through zstandard"
        )

    def fitted_to(self, shape: tuple[int, ...]) -> Codec:
        """The codec for images as an array of ``shape`` holds them: see :meth:`bbans.Model.fitted_to`."""
        if self.model is None or not self.model.any_size:
            return self
        return replace(self, model=self.model.fitted_to(shape))

    def chunk_coder(self, threads: int = 1) -> ChunkCoder | LocalCoder:
        """What codes a chunk that has so many threads to itself; the codec must have a model, fitted to the images."""
        assert self.model is not None
        if isinstance(self.evaluated, EvaluatedModel):
            return self._bits_back(threads)
        network = self.model.decoder
        assert isinstance(network, LocalNetwork) and self.evaluated is not None
        height, width, channels = (*self.model.image_shape, 1)[:3]
        shape = height, width, channels
        return LocalCoder(network, self.evaluated, self.core, shape, self.model.image_bits, threads)

    def _bits_back(self, threads: int) -> ChunkCoder:
        assert self.model is not None and isinstance(self.evaluated, EvaluatedModel)
        evaluated = self.evaluated.on_threads(threads)
        return ChunkCoder(evaluated, self.core, self.model.image_bits, self.model.latent_bits)

    def set_coder(self, row_pixels: int, chunks: int) -> SetCoder:
        """What codes a set of so many chunks; the codec must have a model."""
        coder = self._bits_back(spare_threads(self.threads, chunks))
        assert self.model is not None
        row_images = row_pixels // self.model.pixels
        return SetCoder(
            coder.model, coder.core, coder.image_bits, coder.latent_bits, row_pixels, row_images, self.threads
        )

    def compress(
        self, array: NDArray[Any] | SupportsDLPack, chunk_size: int | None = None, ordered: bool = True
    ) -> bytes:
        """The array as a whole `.bba` file: see :meth:`write`."""
        file = io.BytesIO()
        self.write(file, array, chunk_size, ordered=ordered)
        return file.getvalue()

    def write(
        self,
        file: BinaryIO,
        array: NDArray[Any] | SupportsDLPack,
        chunk_size: int | None = None,
        progress: Progress | None = None,
        ordered: bool = True,
    ) -> Written:
        """Compress an array of any numeric type and shape to ``file``.

        ``chunk_size`` is the number of rows (entries of the first axis) that are coded together: what a slice of
        the file costs to read. What the model doesn't fit, or codes worse, is stored through zstandard. Unless
        ``ordered``, rows come back in canonical order (:mod:`bbans.canonical`), and what their order takes is saved;
        ``chunk_size`` is then the number of rows of a set. Raises :class:`bbans.errors.ArrayError` for arrays that
        don't hold numbers, or are to lose their order and hold one image.

        Chunks are written as they are coded, or kept until the last one is if a model might be embedded.
        """
        array = numeric_array(array)
        fitted = self.fitted_to(array.shape)
        rows = array[None] if array.ndim == 0 else array
        scale = fitted._scale_of(rows, array.shape, None)
        content = rows if ordered else fitted._sorted(rows, scale)
        return fitted._write(file, content, array.shape, scale, chunk_size, progress, None)

    def write_rows(
        self,
        file: BinaryIO,
        rows: Rows,
        spread: Spread,
        chunk_size: int | None = None,
        progress: Progress | None = None,
    ) -> Written:
        """The same file as :meth:`write` makes, of rows that may lie anywhere, coded where ``spread`` says.

        This codec and ``rows`` are sent there, with the slices of rows to read and to code, some 16 MB at a time; what
        comes back is chunks.
        """
        check_rows(rows)
        fitted = self.fitted_to(rows.shape)
        scale = fitted._scale_of(rows, rows.shape, spread)
        return fitted._write(file, rows, rows.shape, scale, chunk_size, progress, spread)

    def _write(
        self,
        file: BinaryIO,
        rows: Rows,
        shape: tuple[int, ...],
        scale: int | None,
        chunk_size: int | None,
        progress: Progress | None,
        spread: Spread | None,
    ) -> Written:
        content = self._content(rows, scale, chunk_size, progress, spread)
        reference = self.reference if content.uses_model else None
        header = Header(
            rows.dtype.str,
            len(shape),
            rows.shape[1:],
            scale if reference and scale else 1,
            reference,
            ordered=not isinstance(rows, SortedRows),
        )
        written: list[tuple[int, Method]] = []

        def chunks() -> Iterator[CodedChunk]:
            for count, method, payload in content.chunks:
                written.append((count, method))
                yield count, method, payload

        size = container.write(file, header, chunks(), content.embedded)
        note = content.note
        stored_rows = sum(count for count, method in written if method not in CODED)
        if note is None and stored_rows:
            note = f"{stored_rows} of {rows.shape[0]} rows are smaller through zstandard, and were stored so"
        name = reference.name if reference else None
        won = sum(order_bits(rows.first[part]) for part in _sets(written)) if isinstance(rows, SortedRows) else 0
        elements = math.prod(shape)
        return Written(size, elements, elements * rows.dtype.itemsize, name, note, len(content.embedded), won)

    def decompress(self, data: Buffer, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The array that a `.bba` file holds, which must have been written with this codec's model or with none.

        It is decoded into ``out``, if given: see :meth:`bbans.CompressedArray.read`.
        """
        with CompressedArray(open_buffer(data), self) as compressed:
            return compressed.read(out=out)

    def encode_chunk(self, array: NDArray[Any] | SupportsDLPack) -> bytes:
        """Images as one chunk, for software that keeps model, shape and type of the elements itself.

        A byte says how: with the elements 1 or 255 times the model's symbols, or 0 or 2 if zstandard makes less of
        them or there are values that the model doesn't have. See "Chunks outside of files" in ``docs/format.md``.
        Raises :class:`bbans.errors.ArrayError` unless the array is made of images of the model's shape.
        """
        array = numeric_array(array)
        fitted = self.fitted_to(array.shape)
        model = fitted._model_for_chunks()
        model.check_images(array.shape, array.dtype)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        scale = find_scale(array, model.symbols)
        if scale is None:
            return _stored_chunk(store(little))
        symbols = to_symbols(array, scale).reshape(-1, model.pixels)
        payload = fitted.chunk_coder(self.threads).encode(symbols)
        stored = stored_if_smaller(little, len(payload), self.thorough)
        return bytes([scale]) + payload if stored is None else _stored_chunk(stored)

    def decode_chunk(
        self,
        data: Buffer,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The images that :meth:`encode_chunk` was given, in ``out`` if it is given: of this shape and type.

        Raises :class:`bbans.errors.FormatError` if ``data`` is damaged, and :class:`bbans.errors.ArrayError` as
        :meth:`encode_chunk` does, or if ``out`` is something else.
        """
        dtype = np.dtype(dtype)
        fitted = self.fitted_to(shape)
        model = fitted._model_for_chunks()
        model.check_images(shape, dtype)
        check_out(out, shape, dtype)
        elements = math.prod(shape)
        view = flat_view(data)
        scale, payload = bytes(view[:1]), bytes(view[1:])
        if scale in STORED_CHUNKS:
            found = restore((STORED_CHUNKS[scale], payload), dtype.newbyteorder("<"), shape)
        elif scale in (b"\x01", b"\xff"):
            symbols = fitted.chunk_coder(self.threads).decode(payload, elements // model.pixels)
            found = from_symbols(symbols, scale[0], dtype)
        else:
            raise FormatError(f"a chunk can't begin with {scale.hex() or 'nothing'}: it is damaged")
        found = found.reshape(shape)
        if out is None:
            return found.astype(dtype)
        out[...] = found
        return out

    def _model_for_chunks(self) -> Model:
        if self.model is None:
            raise ModelError("chunks outside of files need a model")
        return self.model

    @property
    def working_bytes(self) -> int:
        """See :class:`bbans.reader.Decoder`."""
        return LOCAL_WORKING_BYTES if self.model is not None and self.model.any_size else WORKING_BYTES

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
            image_shape = self.model.fitted_to(shape).image_shape
            # A row of a set is one image, or several.
            images = count_images(shape if header.ordered else (1, *header.row_shape), image_shape)
            if chunk.method in CODED and not (images and chunk.rows):
                raise FormatError(f"a chunk of shape {shape} does not fit model {self.model.name}: the file is damaged")
        for block in () if header.ordered else directory.blocks:
            if sum(directory.chunks[number].rows for number in block) > ROWS_MAXIMUM:
                raise FormatError(f"a set of more than {ROWS_MAXIMUM} rows: the file is damaged")

    def decode(self, payload: bytes, rows: int, header: Header, threads: int) -> NDArray[Any]:
        """See :class:`bbans.reader.Decoder`."""
        fitted = self.fitted_to((rows, *header.row_shape))
        assert fitted.model is not None
        elements = rows * math.prod(header.row_shape)
        symbols = fitted.chunk_coder(threads).decode(payload, elements // fitted.model.pixels)
        return from_symbols(symbols, header.scale, np.dtype(header.dtype)).ravel()

    def decode_set(
        self, payloads: Sequence[bytes | None], sizes: Sequence[int], header: Header, progress: Progress | None
    ) -> Iterator[NDArray[Any]]:
        """See :class:`bbans.reader.Decoder`."""
        coder = self.set_coder(math.prod(header.row_shape), len(sizes))
        whole = [payload for payload in payloads if payload is not None]
        damaged = len(whole) < len(payloads)
        found = coder.salvage(payloads, sizes) if damaged else coder.decode(whole, sizes, progress)
        for block in found.blocks():
            yield from_symbols(block, header.scale, np.dtype(header.dtype)).reshape(-1, *header.row_shape)

    def _sorted(self, rows: NDArray[Any], scale: int | None) -> SortedRows:
        """The rows in canonical order; :class:`bbans.errors.ArrayError` if they are the lines of one image."""
        if scale is None:
            return SortedRows.of(rows, row_bytes(rows))
        assert self.model is not None
        if self.model.any_size:
            raise ArrayError(
                f"sets are coded with models that have latents, and {self.model.name} has none: keep order"
            )
        if math.prod(rows.shape[1:]) < self.model.pixels:
            raise ArrayError(
                f"an array of shape {rows.shape} is one image of model {self.model.name}, not a set of images: give it "
                "an axis more, or keep its order"
            )
        # The order of symbols is that of the elements, which may have more bytes.
        return SortedRows.of(rows, row_bytes(rows if rows.itemsize == 1 else to_symbols(rows, scale)))

    def _scale_of(self, rows: Rows, shape: tuple[int, ...], spread: Spread | None) -> int | None:
        """How the elements become the model's symbols, or None if the model doesn't fit an array of ``shape``."""
        model = self.model
        if model is None or not math.prod(shape) or count_images(shape, model.image_shape) is None:
            return None
        return scale_of_rows(rows, model.symbols, spread)

    def _content(
        self,
        rows: Rows,
        scale: int | None,
        chunk_size: int | None,
        progress: Progress | None,
        spread: Spread | None,
    ) -> _Content:
        """What a file of ``rows`` holds, coded as it is asked for unless a model might have to be embedded."""
        if self.model is None or scale is None:
            stored = _reported(self._stored(rows, chunk_size, spread), progress)
            return _Content(stored, uses_model=False, note=self.misfit)
        if isinstance(rows, SortedRows):
            chunks = self._coded_sets(rows, scale, chunk_size, progress)
        else:
            chunks = _reported(self._coded(rows, scale, chunk_size, spread), progress)
        if not self.embedded:
            return _Content(chunks, uses_model=True)
        # The model comes before the chunks, and whether it is worth its bytes is known after the last of them.
        coded = list(chunks)
        if not any(method is Method.BITS_BACK for _, method, _ in coded):
            return _Content(coded, uses_model=False)
        size = len(self.embedded) + sum(len(payload) for _, _, payload in coded)
        smaller = self._stored_if_smaller(rows, chunk_size, size, True, spread)
        if smaller is None:
            return _Content(coded, uses_model=True, embedded=self.embedded)
        note = (
            f"the file would be larger with model {self.model.name} in it ({len(self.embedded):,} bytes); "
            "the array was stored through zstandard"
        )
        return _Content(smaller, uses_model=False, note=note)

    def _stored_if_smaller(
        self, rows: Rows, chunk_size: int | None, size: int, thorough: bool, spread: Spread | None
    ) -> list[CodedChunk] | None:
        """All rows through zstandard at level 19, if that takes less than ``size`` bytes.

        The quick level decides unless the comparison is to be ``thorough``: see :mod:`bbans.fallback`.
        """
        slices = _slices(rows.shape[0], chunk_size or stored_chunk_size(rows))
        quick = sum(self._mapped(spread)(partial(_quick_size_of, rows), slices))
        if size < (NEAR * quick if thorough else quick):
            return None
        stored = []
        for chunk in self._stored(rows, chunk_size, spread):
            size -= len(chunk[2])
            if size <= 0:
                return None
            stored.append(chunk)
        return stored

    def _stored(self, rows: Rows, chunk_size: int | None, spread: Spread | None) -> Iterator[CodedChunk]:
        """Chunks of rows through zstandard."""
        slices = _slices(rows.shape[0], chunk_size or stored_chunk_size(rows))
        stored = self._mapped(spread)(partial(_store_rows, rows), slices)
        for part, (method, payload) in zip(slices, stored, strict=True):
            yield part.stop - part.start, method, payload

    def _coded(self, rows: Rows, scale: int, chunk_size: int | None, spread: Spread | None) -> Iterator[CodedChunk]:
        """Chunks of rows through the model, or as many as zstandard likes together if it makes less of them."""
        cut = Cut.of(self, rows, chunk_size)
        groups = cut.groups(rows.shape[0])
        coded = (
            self.coded_groups(rows, groups, scale)
            if spread is None
            else spread(partial(_coded_elsewhere, self, rows, scale), groups)
        )
        for chunks in coded:
            yield from chunks

    def coded_groups(self, rows: Rows, groups: list[list[slice]], scale: int) -> Iterator[list[CodedChunk]]:
        """The chunks of each group, coded side by side: each on its own, or all rows of a group through zstandard."""
        assert self.model is not None
        slices = [part for group in groups for part in group]
        threads = spare_threads(self.threads, len(slices))

        def encode(part: slice) -> bytes:
            block = block_of(rows, part)
            fitted = self.fitted_to(block.shape)  # rows may be lines of an image, which is then what a chunk holds
            assert fitted.model is not None
            return fitted.chunk_coder(threads).encode(to_symbols(block, scale).reshape(-1, fitted.model.pixels))

        payloads = map_in_order(encode, slices, self.threads)
        for group in groups:
            coded = [next(payloads) for _ in group]
            together = block_of(rows, slice(group[0].start, group[-1].stop))
            stored = stored_if_smaller(together, sum(map(len, coded)), self.thorough)
            if stored is not None:
                yield [(len(together), *stored)]
            else:
                yield [
                    (part.stop - part.start, Method.BITS_BACK, payload)
                    for part, payload in zip(group, coded, strict=True)
                ]

    def _coded_sets(
        self, rows: SortedRows, scale: int, chunk_size: int | None, progress: Progress | None
    ) -> Iterator[CodedChunk]:
        """Chunks of sets through the model, or of all rows of a set through zstandard if that makes less of them."""
        row_pixels = math.prod(rows.shape[1:])
        for part in _slices(len(rows), chunk_size or max(1, min(ROWS_MAXIMUM, SET_PIXELS // row_pixels))):
            members = rows.part(part)
            chunks = _slices(part.stop - part.start, max(1, CHUNK_PIXELS // row_pixels))
            sizes = [chunk.stop - chunk.start for chunk in chunks]

            def fetch(places: slice | Integers, members: SortedRows = members) -> Bytes:
                return to_symbols(members[places], scale).reshape(-1, row_pixels)

            coder = self.set_coder(row_pixels, len(sizes))
            payloads = coder.encode(fetch, members.first, sizes, progress)
            stored = self._stored_if_smaller(members, None, sum(map(len, payloads)), self.thorough, None)
            if stored is not None:
                yield from stored
                continue
            for number, (size, payload) in enumerate(zip(sizes, payloads, strict=True)):
                yield size, Method.SAME_SET if number else Method.BITS_BACK, payload

    def _mapped(self, spread: Spread | None) -> Spread:
        """``spread``, or this codec's threads."""
        return spread or partial(map_in_order, threads=self.threads)


@dataclass(frozen=True)
class Cut:
    """How rows are cut into chunks, and which of these are stored through zstandard together if at all."""

    size: int
    """Rows of a chunk, at most."""
    together: int
    """Chunks of a group, at most."""

    @staticmethod
    def of(codec: Codec, rows: Rows, chunk_size: int | None) -> Cut:
        """For rows that the codec's model fits."""
        assert codec.model is not None
        row_pixels = math.prod(rows.shape[1:])
        size = chunk_size or max(1, (LOCAL_CHUNK_PIXELS if codec.model.any_size else CHUNK_PIXELS) // row_pixels)
        if row_pixels < codec.model.pixels:
            size = rows.shape[0]  # all rows together are one image
        # Large images are as different as pictures are: what suits is found for each.
        alone = chunk_size or codec.model.any_size
        return Cut(size, 1 if alone else max(1, stored_chunk_size(rows) // size))

    def groups(self, count: int) -> list[list[slice]]:
        """Chunks of almost equal size that hold ``count`` rows."""
        slices = _slices(count, self.size)
        return [slices[first : first + self.together] for first in range(0, len(slices), self.together)]

    def endless_groups(self) -> Iterator[list[slice]]:
        """Full chunks, as many as are asked for."""
        for first in itertools.count(step=self.size * self.together):
            starts = range(first, first + self.size * self.together, self.size)
            yield [slice(start, start + self.size) for start in starts]


def scale_of_rows(rows: Rows, symbols: int, spread: Spread | None = None) -> int | None:
    """:func:`bbans.symbols.find_scale`, for rows that may lie anywhere."""
    if spread is None:
        return find_scale(block_of(rows, slice(None)), symbols)
    slices = _slices(rows.shape[0], stored_chunk_size(rows))
    found = list(spread(partial(_scales_of, rows, symbols), slices))
    return next((scale for scale in found[0] if all(scale in scales for scales in found)), None)


def _scales_of(rows: Rows, symbols: int, part: slice) -> list[int]:
    return fitting_scales(block_of(rows, part), symbols)


def _stored_chunk(stored: Stored) -> bytes:
    method, payload = stored
    return next(first for first, known in STORED_CHUNKS.items() if known is method) + payload


def _store_rows(rows: Rows, part: slice) -> Stored:
    return store(block_of(rows, part))


def _quick_size_of(rows: Rows, part: slice) -> int:
    return quick_size(block_of(rows, part))


def _coded_elsewhere(codec: Codec, rows: Rows, scale: int, group: list[slice]) -> list[CodedChunk]:
    """The chunks of one group, whose rows are read once."""
    first = group[0].start
    block = block_of(rows, slice(first, group[-1].stop))
    here = [slice(part.start - first, part.stop - first) for part in group]
    return next(replace(codec, threads=1).coded_groups(block, [here], scale))


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


def _sets(chunks: Iterable[tuple[int, Method]]) -> list[slice]:
    """Where the rows of each set lie, from the rows and methods of all chunks."""
    sets: list[slice] = []
    start = 0
    for rows, method in chunks:
        if method is Method.SAME_SET:
            sets[-1] = slice(sets[-1].start, start + rows)
        elif method is Method.BITS_BACK:
            sets.append(slice(start, start + rows))
        start += rows
    return sets


def stored_chunk_size(rows: Rows) -> int:
    """How many rows zstandard gets at a time."""
    return max(1, STORED_CHUNK_BYTES // max(1, math.prod(rows.shape[1:]) * rows.dtype.itemsize))


def _slices(count: int, size: int) -> list[slice]:
    """Rows cut into chunks of almost equal size, at most ``size``."""
    pieces = math.ceil(count / size)
    return [slice(count * piece // pieces, count * (piece + 1) // pieces) for piece in range(pieces)]
