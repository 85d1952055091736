"""Writing a `.bba` file from batches of rows, in the memory of a few chunks."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.api import choose_model
from bbans.codec import Codec, CodedChunk, Cut, Written, stored_chunk_size
from bbans.container import FileWriter, Header, Method
from bbans.errors import ArrayError, StoredWarning
from bbans.fallback import store
from bbans.model import Model, load_model
from bbans.npy import whole_file
from bbans.parallel import map_in_order
from bbans.symbols import SupportsDLPack, count_images, fitting_scales, numeric_array


class Writer:
    """Appends batches of rows to a new `.bba` file, and completes it when it is closed.

    >>> import bbans, io
    >>> images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 30)
    >>> file = io.BytesIO()
    >>> with bbans.Writer(file, model="gg-mnist-binary", chunk_size=10) as writer:
    ...     for batch in images[:7], images[7:30]:
    ...         writer.append(batch)
    >>> file.getvalue() == bbans.compress(images, model="gg-mnist-binary", chunk_size=10)
    True

    ``target`` is a path, where the file appears whole when the block ends well and else not at all, or a binary file,
    which stays open. The other arguments are those of :func:`bbans.compress`; ``model="auto"`` is decided by the first
    batch. A model is embedded without asking whether that pays.

    Chunks hold ``chunk_size`` rows, by default about four million pixels, and the last one what is left. If it is
    known how many ``rows`` there will be, chunks are of almost equal size, as :func:`bbans.compress` cuts them. So the
    file is the one that it makes of all rows, if their number is given, is a multiple of ``chunk_size`` or is not
    larger, and if the model fits all of them. A chunk with values that the model doesn't have is stored through
    zstandard here, where :func:`bbans.compress` would not use the model at all; and the first chunk that isn't blank
    decides whether binary images have values 0 and 1, or 0 and 255.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        model: str | os.PathLike[str] | Model | None = "auto",
        posterior: str | None = None,
        steps: int = 0,
        chunk_size: int | None = None,
        rows: int | None = None,
        embed_model: bool = False,
        engine: str = "auto",
        device: str = "auto",
        ans: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._target = target
        self._model = model
        self._options: dict[str, Any] = {
            "posterior": posterior,
            "steps": steps,
            "embed_model": embed_model,
            "engine": engine,
            "device": device,
            "ans": ans,
            "threads": threads,
            "thorough": model == "auto",
        }
        if model != "auto":
            self._model = model if model is None or isinstance(model, Model) else load_model(model)
        self._chunk_size = chunk_size
        self._rows = rows
        self._appended = 0
        self._chunks: _Chunks | None = None
        self._resources = ExitStack()
        self.written: Written | None = None
        """What became of the rows, once the file is complete."""

    def append(self, rows: NDArray[Any] | SupportsDLPack) -> None:
        """Add rows, an array of at least one axis; they are copied, coded when there are enough, and written.

        Raises :class:`bbans.errors.ArrayError` if they are of another type or shape than those before, or more than
        there should be.
        """
        if self.written is not None:
            raise ArrayError("the file is complete; rows can't be appended to it")
        rows = numeric_array(rows)
        if not rows.ndim:
            raise ArrayError("expected rows, an array of at least one axis, got a single element")
        if self._rows is not None and self._appended + len(rows) > self._rows:
            raise ArrayError(f"expected {self._rows} rows in all, got {self._appended + len(rows)}")
        if self._chunks is None:
            self._chunks = self._begin(rows)
        self._chunks.append(rows)
        self._appended += len(rows)

    def close(self) -> None:
        """Code what is left, and complete the file.

        Raises :class:`bbans.errors.ArrayError` if nothing was appended, or fewer rows than there should be.
        """
        if self.written is not None:
            return
        if self._chunks is None:
            self.abort()
            raise ArrayError("nothing was appended: a file needs at least a batch of no rows, for its shape and type")
        if self._rows not in (None, self._appended):
            self.abort()
            raise ArrayError(f"expected {self._rows} rows in all, got {self._appended}")
        try:
            self.written = self._chunks.finish(self._appended)
        except BaseException:
            self.abort()
            raise
        self._resources.close()
        if self.written.note is not None and self._model is not None:
            warnings.warn(self.written.note, StoredWarning, stacklevel=2)

    def abort(self) -> None:
        """Give up: nothing appears at a path, and a binary file is left as it is, without its end."""
        resources, self._resources = self._resources, ExitStack()
        resources.__exit__(_Aborted, _Aborted(), None)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _begin(self, rows: NDArray[Any]) -> _Chunks:
        """Open the target, for rows like these."""
        model = choose_model(rows) if self._model == "auto" else self._model
        assert model is None or isinstance(model, Model)
        pixels = None if self._rows is None else self._rows * math.prod(rows.shape[1:])
        codec = Codec.of(model, pixels=pixels, **self._options)
        target = self._target
        if isinstance(target, (str, os.PathLike)):
            target = self._resources.enter_context(whole_file(Path(target)))
        return _Chunks(target, codec, rows, self._chunk_size, self._rows)


class _Aborted(Exception):
    """Tells an open file that it won't be completed."""


class _Chunks:
    """Collects rows until there is work for all threads, codes them, and writes chunks."""

    def __init__(
        self, file: BinaryIO, codec: Codec, like: NDArray[Any], chunk_size: int | None, rows: int | None
    ) -> None:
        self._file = file
        codec = codec.fitted_to((1, *like.shape[1:]))
        self._codec = codec
        self._dtype = like.dtype
        self._row_shape = like.shape[1:]
        self._symbols = 0
        cut = Cut(chunk_size or stored_chunk_size(like), 1)
        if codec.model is not None and count_images((1, *self._row_shape), codec.model.image_shape):
            self._symbols = codec.model.symbols
            cut = Cut.of(codec, like, chunk_size)
        self._groups = iter(cut.groups(rows)) if rows is not None else cut.endless_groups()
        self._ahead = math.ceil(codec.threads / cut.together)
        self._scale: int | None = None
        self._held: list[CodedChunk] = []
        self._writer: FileWriter | None = None
        self._stored_rows = 0
        self._next_block()

    def append(self, rows: NDArray[Any]) -> None:
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise ArrayError(
                f"expected rows of {self._dtype} and shape {self._row_shape} as before, "
                f"got {rows.dtype} and {rows.shape[1:]}"
            )
        done = 0
        while done < len(rows):
            taken = rows[done : done + len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            done += len(taken)
            if self._filled == len(self._buffer):
                self._write_block()
                self._next_block()

    def finish(self, rows: int) -> Written:
        """Code the rest, and complete the file of so many rows."""
        self._write_block()
        writer = self._opened(uses_model=bool(self._symbols and rows))
        size = writer.finish()
        model, note = self._codec.model, None
        if not self._symbols:
            note = self._codec.misfit
        elif self._stored_rows:
            note = f"{self._stored_rows} of {rows} rows were stored through zstandard: smaller so, or of other values"
        elements = rows * math.prod(self._row_shape)
        name = model.name if model is not None and self._symbols and rows else None
        embedded = len(self._codec.embedded) if name else 0
        return Written(size, elements, elements * self._dtype.itemsize, name, note, embedded)

    def _next_block(self) -> None:
        """Room for the next groups of chunks."""
        self._block = list(itertools.islice(self._groups, self._ahead))
        self._first = self._block[0][0].start if self._block else 0
        rows = self._block[-1][-1].stop - self._first if self._block else 0
        self._buffer = np.empty((rows, *self._row_shape), self._dtype)
        self._filled = 0

    def _write_block(self) -> None:
        """Code the rows that have been collected: all of the block, or those before the end."""
        rows = self._buffer[: self._filled]
        cut = [[slice(p.start - self._first, min(p.stop - self._first, len(rows))) for p in g] for g in self._block]
        groups = [kept for group in cut if (kept := [part for part in group if part.start < len(rows)])]
        whole = [slice(group[0].start, group[-1].stop) for group in groups]
        fits = [self._fits(rows[part]) for part in whole]
        misfits = [part for part, fit in zip(whole, fits, strict=True) if not fit]
        stored = list(map_in_order(lambda part: store(rows[part]), misfits, self._codec.threads))
        fitting = [group for group, fit in zip(groups, fits, strict=True) if fit]
        coded = self._codec.coded_groups(rows, fitting, self._scale or 1)
        for part, fit in zip(whole, fits, strict=True):
            chunks = next(coded) if fit else [(part.stop - part.start, *stored.pop(0))]
            for chunk in chunks:
                self._add(chunk)

    def _fits(self, rows: NDArray[Any]) -> bool:
        """Whether a group is for the model; the first one that isn't blank decides the scale."""
        if not self._symbols:
            return False
        scales = fitting_scales(rows, self._symbols)
        if self._scale is None and len(scales) != 1 + (self._symbols == 2):
            self._scale = scales[0] if scales else 1
        return self._scale in scales if self._scale is not None else True

    def _add(self, chunk: CodedChunk) -> None:
        """Write a chunk, or hold it back while the header's scale is not decided: those before are blank, and small."""
        self._stored_rows += 0 if chunk[1] is Method.BITS_BACK else chunk[0]
        if self._symbols and self._scale is None:
            self._held.append(chunk)
        else:
            self._opened(uses_model=bool(self._symbols)).add(*chunk)

    def _opened(self, uses_model: bool) -> FileWriter:
        """The file, with its header and what was held back."""
        if self._writer is None:
            reference = self._codec.reference if uses_model else None
            dimensions = 1 + len(self._row_shape)
            header = Header(self._dtype.str, dimensions, self._row_shape, self._scale or 1, reference)
            self._writer = FileWriter(self._file, header, self._codec.embedded if uses_model else b"")
            for chunk in self._held:
                self._writer.add(*chunk)
            self._held = []
        return self._writer
