"""What people have: arrays in files of several formats, and folders of files that become groups of rows.

Nothing is read through pickle.
"""

from __future__ import annotations

import glob
import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bbans.collection import IDX_TYPES, FileFormat, Form, NamedFile
from bbans.errors import ArrayError
from bbans.npy import read_npy
from bbans.pictures import SUFFIXES, describe_picture, read_picture

IDX_SUFFIXES = ("-ubyte", ".idx")
EXPECTED = "expected a .npy, .npz or IDX file (*-ubyte, *.idx), a zarr array, a PNG, WebP or TIFF, or a folder of these"


@dataclass(frozen=True)
class Source:
    """A file that becomes some rows of an array."""

    path: str
    """Where it lies."""
    name: str
    """Its path in the collection; in an archive, that of its entry too."""
    form: Form
    dtype: str
    row_shape: tuple[int, ...]

    @property
    def file(self) -> NamedFile:
        """What a collection says of it."""
        return NamedFile(self.name, self.form)

    def read(self) -> NDArray[Any]:
        """Its rows, ``(form.rows, *row_shape)``; :class:`bbans.errors.ArrayError` if it has changed."""
        path = Path(self.path)
        if path.suffix.lower() == ".npz":
            found = read_npz(path, self.name)
        elif self.form.format is FileFormat.NPY:
            found = read_npy(path)
        elif self.form.format is FileFormat.IDX:
            found = read_idx(path)
        else:
            found = read_picture(path, self.form, self.dtype, self.row_shape)
        if (found.dtype.str, found.shape) != (self.dtype, (self.form.rows, *self.row_shape)):
            raise ArrayError(f"{path} changed while it was read")
        return found


@dataclass(frozen=True)
class Group:
    """Files whose rows have one type and shape, and so are one array."""

    name: str
    sources: tuple[Source, ...]

    @property
    def rows(self) -> int:
        return sum(source.form.rows for source in self.sources)

    @property
    def size(self) -> int:
        """Elements."""
        return self.rows * math.prod(self.sources[0].row_shape)

    def read(self) -> NDArray[Any]:
        """All rows: the only time that they are in memory."""
        first = self.sources[0]
        if len(self.sources) == 1:
            return first.read()
        rows = np.empty((self.rows, *first.row_shape), first.dtype)
        done = 0
        for source in self.sources:
            rows[done : done + source.form.rows] = source.read()
            done += source.form.rows
        return rows


def read_array(path: Path) -> NDArray[Any] | None:
    """The array that a path stands for if it stands for one: a `.npy` or IDX file, an `.npz` file that holds one, or a
    zarr array. None for what becomes a collection.

    Raises :class:`bbans.errors.ArrayError` if it is no such file.
    """
    name = path.name.lower()
    if is_zarr(path):
        return read_zarr(path)
    if path.is_dir() or name.endswith(SUFFIXES) or any(character in path.name for character in "*?["):
        return None
    if _is_idx(name):
        return read_idx(path)
    if name.endswith(".npz"):
        entries = npz_entries(path)
        return read_npz(path, entries[0]) if len(entries) == 1 else None
    return read_npy(path)


def find_groups(inputs: Sequence[str]) -> list[Group]:
    """The files of folders, patterns such as ``scans/*.png``, `.npz` files and single files, in order of their names.

    They are named by their paths in the folder that holds all inputs. Nothing is left out but what begins with a
    dot. Raises :class:`bbans.errors.ArrayError` if there is anything that is no picture and no array, or nothing.
    """
    found: dict[tuple[str, tuple[int, ...], bool], list[Source]] = {}
    for path, name in _files(inputs):
        for source in _sources(path, name):
            found.setdefault((source.dtype, source.row_shape, bool(source.form.palette)), []).append(source)
    groups: dict[str, Group] = {}
    for (dtype, shape, palette), sources in found.items():
        name = f"{np.dtype(dtype).name} {'x'.join(map(str, shape)) or 'numbers'}{' palette' * palette}"
        if name in groups:  # of the other order of bytes
            name += " swapped"
        groups[name] = Group(name, tuple(sources))
    if not groups:
        raise ArrayError(f"{', '.join(inputs)}: there are no files that could be compressed")
    return list(groups.values())


def _files(inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each file, and its path from the folder that holds all inputs, in the order of the latter."""
    found: dict[str, None] = {}
    bases = []
    for given in inputs:
        matches = sorted(glob.glob(given, recursive=True)) if not os.path.lexists(given) else [given]
        if not matches:
            raise ArrayError(f"cannot read {given}: No such file or directory")
        for path in matches:
            folder = os.path.isdir(path)
            bases.append(os.path.abspath(path if folder else os.path.dirname(path) or "."))
            found.update(dict.fromkeys(_walk(path) if folder else [path]))
    base = os.path.commonpath(bases)
    named = ((os.path.relpath(os.path.abspath(path), base).replace(os.sep, "/"), path) for path in found)
    return ((path, name) for name, path in sorted(named))


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))


def _sources(path: str, name: str) -> Iterator[Source]:
    lower = name.lower()
    if lower.endswith(SUFFIXES):
        yield Source(path, name, *describe_picture(Path(path)))
    elif lower.endswith(".npz"):
        for entry in npz_entries(Path(path)):
            yield _array_source(path, entry, FileFormat.NPY, *_npz_header(Path(path), entry))
    elif lower.endswith(".npy"):
        array = read_npy(Path(path))
        yield _array_source(path, name, FileFormat.NPY, array.dtype, array.shape)
    elif _is_idx(lower):
        array = read_idx(Path(path))
        yield _array_source(path, name, FileFormat.IDX, array.dtype, array.shape)
    else:
        raise ArrayError(f"{path}: {EXPECTED}; move other files away, or name those that are meant")


def _array_source(
    path: str, name: str, file_format: FileFormat, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Source:
    if not shape:
        raise ArrayError(f"{path}: {name} is a single number; what goes into a collection needs rows")
    return Source(path, name, Form(file_format, shape[0]), dtype.str, shape[1:])


def npz_entries(path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file, which end in ``.npy``."""
    with _archive(path) as archive:
        names = archive.namelist()
    if not names or not all(name.endswith(".npy") for name in names):
        raise ArrayError(f"{path} is not a .npz file of arrays")
    return names


def read_npz(path: Path, entry: str) -> NDArray[Any]:
    """One array of an `.npz` file."""
    try:
        with _archive(path) as archive, archive.open(entry) as member:
            array: NDArray[Any] = npy_format.read_array(member, allow_pickle=False)
            return array
    except (ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ArrayError(f"{path}: {entry} is not an array of numbers: {error}") from error


def _npz_header(path: Path, entry: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape, without the elements; headers of a later version than 1 are read with them."""
    with _archive(path) as archive, archive.open(entry) as member:
        try:
            if npy_format.read_magic(member) == (1, 0):
                shape, _, dtype = npy_format.read_array_header_1_0(member)
                return dtype, shape
        except ValueError as error:
            raise ArrayError(f"{path}: {entry} is not an array of numbers: {error}") from error
    array = read_npz(path, entry)
    return array.dtype, array.shape


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError) as error:
        raise ArrayError(f"{path} is not a .npz file of numbers: {error}") from error
    except OSError as error:
        raise ArrayError(f"cannot read {path}: {error.strerror or error}") from error


def _is_idx(name: str) -> bool:
    return name.lower().removesuffix(".gz").endswith(IDX_SUFFIXES)


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an IDX file, as MNIST comes in, which may be gzipped."""
    types = {code: dtype for dtype, code in IDX_TYPES.items()}
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ArrayError(f"{path} is not a gzipped file: {error}") from error
    except OSError as error:
        raise ArrayError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in types:
        raise ArrayError(f"{path} is not an IDX file")
    dtype, start = np.dtype(types[data[2]]), 4 + 4 * data[3]
    shape = np.frombuffer(data, ">u4", data[3], 4).tolist() if len(data) >= start else []
    if start + math.prod(shape) * dtype.itemsize != len(data):
        raise ArrayError(f"{path}: an IDX file whose size does not fit its shape")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def write_idx_header(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
    """What comes before the elements of an IDX file."""
    file.write(bytes([0, 0, IDX_TYPES[dtype], len(shape)]) + np.array(shape, ">u4").tobytes())


def is_zarr(path: Path) -> bool:
    return any((path / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def read_zarr(path: Path) -> NDArray[Any]:
    """All of a zarr array in a folder."""
    stored = open_zarr(path)
    try:
        return np.asarray(stored[...])
    except Exception as error:  # zarr's codecs and stores raise errors of many kinds
        raise ArrayError(f"{path} is not a zarr array that can be read: {error}") from error


def open_zarr(path: Path) -> Any:
    """A zarr array in a folder, of which nothing is read yet; :class:`bbans.errors.ArrayError` if there is none."""
    try:
        import zarr  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ArrayError(f"{path}: reading zarr arrays needs zarr: pip install 'bbans[zarr]'") from error
    try:
        stored = zarr.open(path, mode="r")
        if not isinstance(stored, zarr.Array):
            raise ArrayError(f"{path} is a group of zarr arrays; name one of them: {', '.join(sorted(stored.keys()))}")
        return stored
    except ArrayError:
        raise
    except Exception as error:  # zarr's codecs and stores raise errors of many kinds
        raise ArrayError(f"{path} is not a zarr array that can be read: {error}") from error
