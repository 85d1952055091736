"""Arrays in `.npy` files, where Python objects are refused; files and folders that appear whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
