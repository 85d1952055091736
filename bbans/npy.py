"""Arrays in `.npy` files, where Python objects are refused; files and folders that appear whole or not at all."""

from __future__ import annotations

import bisect
import io
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bbans.errors import ArrayError


def read_npy(source: Path | BinaryIO, name: str = "standard input") -> NDArray[Any]:
    """The array of a `.npy` file: mapped from a path, read from a stream.

    Raises :class:`bbans.errors.ArrayError` if it is no such file, or holds Python objects.
    """
    try:
        if isinstance(source, Path):
            name = str(source)
            with source.open("rb") as file:
                if file.read(len(npy_format.MAGIC_PREFIX)) != npy_format.MAGIC_PREFIX:
                    raise ArrayError(f"{name} is not a .npy file")
            try:
                return npy_format.open_memmap(source, mode="r")
            except ValueError:  # what can't be mapped: no elements, or Python objects, which the next line refuses
                return read_npy(io.BytesIO(source.read_bytes()), name)
        array: NDArray[Any] = npy_format.read_array(source, allow_pickle=False)
        return array
    except OSError as error:
        raise ArrayError(f"cannot read {name}: {error.strerror or error}") from error
    except ArrayError:
        raise
    except Exception as error:  # NumPy's parser of headers lets errors of many kinds through
        raise ArrayError(f"{name} is not an array of numbers in .npy format: {error}") from error


@dataclass(frozen=True)
class NpyFiles:
    """The rows of `.npy` files one after the other; they are read when they are asked for.

    Raises :class:`bbans.errors.ArrayError` for what is no such file, and where rows have different types or shapes.
    """

    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        for path, array in zip(self.paths, self._arrays, strict=True):
            if not array.ndim or array.dtype != self.dtype or array.shape[1:] != self.shape[1:]:
                raise ArrayError(
                    f"{path} holds {array.dtype} {array.shape}, and {self.paths[0]} rows of {self.dtype} "
                    f"{self._arrays[0].shape[1:]}: they don't make one array"
                )

    def __reduce__(self) -> tuple[type[NpyFiles], tuple[tuple[Path, ...]]]:
        """Other processes open the files again."""
        return NpyFiles, (self.paths,)

    @cached_property
    def _arrays(self) -> list[NDArray[Any]]:
        return [read_npy(path) for path in self.paths]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *itertools.accumulate(len(array) for array in self._arrays)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements."""
        return self._arrays[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows together."""
        return (self._starts[-1], *self._arrays[0].shape[1:])

    def __getitem__(self, part: slice, /) -> NDArray[Any]:
        start, stop, _ = part.indices(self.shape[0])
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        pieces = [
            array[max(0, start - begin) : stop - begin]
            for array, begin in zip(self._arrays[first:], self._starts[first:-1], strict=True)
            if begin < stop
        ]
        return np.concatenate(pieces) if pieces else self._arrays[0][:0]


def write_npy(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write ``array`` in `.npy` format."""
    npy_format.write_array(file, array, allow_pickle=False)


def write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write what comes before the elements; it is as long for fewer rows."""
    description = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, description)


def write_npy_blocks(
    file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[NDArray[Any]]
) -> None:
    """Write an array that comes in blocks of rows in `.npy` format."""
    write_npy_header(file, dtype, shape)
    for block in blocks:
        file.write(np.ascontiguousarray(block).data.cast("B") if block.size else b"")


def _sync_folder(folder: Path) -> None:
    """Make a new name last, on systems where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when the block ends well, and else leaves nothing behind."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``path`` when the block ends well, and else leaves nothing behind."""
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield part
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o777 & ~mask)
        if hasattr(os, "sync"):  # one by one, many small files take long
            os.sync()
        os.rename(part, path)
        _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
