"""Reading collections: each file by its name, each member as an array, or all files back to a folder."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.collection import FileFormat, Form, Member, NamedFile, Role, member_file, read_contents, read_member
from bbans.errors import BbansError, FormatError
from bbans.inputs import write_idx_header
from bbans.npy import whole_folder, write_npy_blocks
from bbans.parallel import Progress
from bbans.pictures import write_picture
from bbans.reader import CompressedArray, Salvaged

Create = Callable[[str], AbstractContextManager[BinaryIO]]
"""From the path of a file to what it is written to; a file whose block ends with an error must vanish."""


class Collection(Mapping[str, NDArray[Any]]):
    """The files of a collection by their paths, decoded when they are asked for.

    A picture is ``(height, width)`` or ``(height, width, channels)``, or ``(pages, ...)`` if it has several; an array
    is as it was. The members that they lie in are :meth:`array`. Close it, or use it as a context manager.

    Raises :class:`bbans.errors.FormatError` for a file that is not whole and sane.
    """

    def __init__(self, file: BinaryIO, open_member: Callable[[BinaryIO], CompressedArray]) -> None:
        self._file, self._open_member = file, open_member
        self._lock = threading.Lock()
        self._arrays: dict[str, CompressedArray] = {}
        self.contents = read_contents(file)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, path: str) -> NDArray[Any]:
        member, file, start = self._places[path]
        array = self.array(member.name)
        if file is None:
            return array.read()
        rows = array[start : start + file.form.rows]
        found: NDArray[Any] = rows[0] if _is_one_picture(file.form) else rows
        return found

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the members."""
        return tuple(member.name for member in self.contents.members)

    def array(self, name: str) -> CompressedArray:
        """A member: the rows of all its files in one array, not decoded yet.

        Raises :class:`KeyError` if there is none of that name, :class:`bbans.errors.FormatError` if it is damaged, and
        :class:`bbans.errors.ModelError` if its model is missing.
        """
        if name not in self._arrays:
            member = {member.name: member for member in self.contents.members}[name]
            read_member(member_file(self._file, self._lock, member), member)
            self._arrays[name] = self._open_member(member_file(self._file, self._lock, member))
        return self._arrays[name]

    def extract(self, folder: Path, progress: Progress | None = None) -> None:
        """Write all files to a new folder, which appears whole or not at all."""
        with whole_folder(folder) as place:
            self.write_files(in_folder(place), progress=progress)

    def write_files(
        self,
        create: Create,
        lost: Callable[[str, BbansError], object] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write all files; those that are damaged are told to ``lost`` and left out, or end it if there is none."""
        for member in self.contents.members:
            try:
                array = self.array(member.name)
            except FormatError as error:
                if lost is None:
                    raise
                for path in [file.name for file in member.files] or [f"{member.name}.npy"]:
                    lost(path, error)
                continue
            rows = _Rows(array.salvage(), progress)
            for file in _files_of(member, array):
                try:
                    with create(file.name) as target:
                        shape = (file.form.rows, *array.header.row_shape) if array.shape else ()
                        _write_file(target, file, array.dtype, shape, rows.take(file.form.rows))
                except BbansError as error:
                    if lost is None:
                        raise
                    lost(file.name, error)

    @cached_property
    def _places(self) -> dict[str, tuple[Member, NamedFile | None, int]]:
        """Where each path lies: in which member, and from which row on."""
        places: dict[str, tuple[Member, NamedFile | None, int]] = {}
        for member in self.contents.members:
            start = 0
            for file in member.files:
                places[file.name] = member, file, start
                start += file.form.rows
            if member.role is Role.ARRAY:
                places[f"{member.name}.npy"] = member, None, 0
        return places


class _Rows:
    """Blocks of rows, taken as many at a time as are asked for."""

    def __init__(self, blocks: Iterator[Salvaged], progress: Progress | None = None) -> None:
        self._blocks, self._progress = blocks, progress
        self._rows = range(0)

    def take(self, count: int) -> Iterator[NDArray[Any]]:
        """The next ``count`` rows in pieces; after all of them, an error if some are lost."""
        error: BbansError | None = None
        while count:
            if not self._rows:
                self._block = next(self._blocks)
                self._rows = self._block.rows
            taken = min(count, len(self._rows))
            if self._block.error is not None:
                error = self._block.error
            else:
                yield self._block.found[len(self._block.found) - len(self._rows) :][:taken]
            self._rows = self._rows[taken:]
            count -= taken
            if self._progress is not None:
                self._progress(taken)
        if error is not None:
            raise error


def in_folder(folder: Path) -> Create:
    """Creates files in a folder, and never one that is there already."""

    @contextmanager
    def create(path: str) -> Iterator[BinaryIO]:
        place = folder / path
        if os.name == "nt" and folder.resolve() not in place.resolve().parents:  # C:x, or a device
            raise BbansError(f"a file of the collection can't have the name {path!r} on this system")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = place.open("xb")
        except FileExistsError:
            raise BbansError(f"the names of two files are one on this system: {path!r}") from None
        try:
            with file:
                yield file
        except BaseException:
            with suppress(OSError):
                place.unlink()
            raise

    return create


def _files_of(member: Member, array: CompressedArray) -> Iterable[NamedFile]:
    if member.role is Role.FILES:
        return member.files
    return [NamedFile(f"{member.name}.npy", Form(FileFormat.NPY, array.directory.rows))]


def _is_one_picture(form: Form) -> bool:
    return form.rows == 1 and form.format not in (FileFormat.NPY, FileFormat.IDX)


def _write_file(
    target: BinaryIO, file: NamedFile, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterator[NDArray[Any]]
) -> None:
    if file.form.format is FileFormat.NPY:
        write_npy_blocks(target, dtype, shape, blocks)
    elif file.form.format is FileFormat.IDX:
        if not file.name.lower().endswith(".gz"):
            _write_idx(target, dtype, shape, blocks)
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as packed:
            _write_idx(packed, dtype, shape, blocks)  # type: ignore[arg-type]
    else:
        write_picture(target, file.form, np.concatenate(list(blocks)))


def _write_idx(target: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterator[NDArray[Any]]) -> None:
    write_idx_header(target, dtype.str, shape)
    for block in blocks:
        target.write(np.ascontiguousarray(block).tobytes())
