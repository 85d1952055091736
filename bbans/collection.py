"""Collections in the `.bba` format: several array files in one, and the names of what their rows were made of.

See ``docs/format.md``. A member is a whole array file (:mod:`bbans.container`), with its own checksums, its own model,
and its own damage. What the members are is in a table at the end.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import BinaryIO, cast

import zstandard

from bbans.container import COLLECTION, FOOTER, Directory, Header, head_bytes, read_directory, read_head
from bbans.errors import FormatError
from bbans.fields import FieldReader, string, varint

TABLE_LEVEL = 19
TABLE_MAXIMUM = 1 << 28
"""Bytes of a table that is neither written nor read larger than this."""
PALETTE_MAXIMUM = 3 * 256
PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[^/\\\0]+(?:/(?!\.{1,2}(?:/|\Z))[^/\\\0]+)*")
"""Relative, with ``/`` between its parts, none of which leads elsewhere."""
MEMBER_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0]+")
BODY = bytes([COLLECTION])


class Role(IntEnum):
    """What a member is."""

    ARRAY = 0
    """An array with a name."""
    FILES = 1
    """An array whose rows were files."""


class FileFormat(IntEnum):
    """How a file is written back."""

    NPY = 0
    PNG = 1
    TIFF = 2
    WEBP = 3
    IDX = 4


PICTURE_FORMATS = (FileFormat.PNG, FileFormat.TIFF, FileFormat.WEBP)
IDX_TYPES = {"|u1": 0x08, "|i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}
"""The types of elements that IDX files have, and their codes."""


@dataclass(frozen=True)
class Form:
    """What a file is besides its name and its elements."""

    format: FileFormat
    rows: int = 1
    """How many rows of the member are its: the pages of a picture, or the rows of an array."""
    palette: bytes = b""
    """Red, green and blue of each colour, if the elements are indices of colours..."""
    transparency: bytes = b""
    """...and the opacity of the first colours, if not all are opaque."""


@dataclass(frozen=True)
class NamedFile:
    """A file of a collection."""

    name: str
    """Its path in the folder."""
    form: Form


@dataclass(frozen=True)
class Member:
    """An array file in a collection."""

    name: str
    role: Role
    length: int
    checksum: int
    """The CRC that its bytes end with, which depends on all others."""
    files: tuple[NamedFile, ...] = ()
    """In the order of its rows; for :attr:`Role.FILES` only."""
    offset: int = 0
    """Where it begins in the collection."""

    @property
    def rows(self) -> int:
        """How many rows its files have."""
        return sum(file.form.rows for file in self.files)


@dataclass(frozen=True)
class Contents:
    """All of a collection but its members."""

    members: tuple[Member, ...]
    size: int
    """Bytes of the whole file."""


class CollectionWriter:
    """Writes a collection to a file that can be read and sought, from where it stands.

    >>> import io, numpy as np, bbans
    >>> file = io.BytesIO()
    >>> writer = CollectionWriter(file)
    >>> with writer.member("numbers") as part:
    ...     _ = part.write(bbans.compress(np.arange(5), model=None))
    >>> writer.finish() == len(file.getvalue())
    True
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self._members: list[Member] = []
        head = head_bytes(BODY)
        self._seed = zlib.crc32(head)
        file.write(head + struct.pack("<I", self._seed))

    @contextmanager
    def member(self, name: str, role: Role = Role.ARRAY, files: Iterable[NamedFile] = ()) -> Iterator[BinaryIO]:
        """A file that a whole array file is to be written to."""
        start = self._file.tell()
        yield self._file
        end = self._file.tell()
        self._file.seek(end - 4)
        (checksum,) = struct.unpack("<I", self._file.read(4))
        self._members.append(Member(name, role, end - start, checksum, tuple(files), start))

    @property
    def latest(self) -> Member:
        """The member that was written last; its offset counts from the beginning of the file."""
        return self._members[-1]

    def finish(self) -> int:
        """Write the table; returns the size of the collection in bytes.

        Raises :class:`bbans.errors.FormatError` if there are no members, or their names or files are not what a
        reader would accept.
        """
        table = _table_bytes(self._members)
        _check_names(self._members)
        if len(table) > TABLE_MAXIMUM:
            raise FormatError(f"the names of a collection take {len(table):,} bytes, and may take {TABLE_MAXIMUM:,}")
        packed = zstandard.ZstdCompressor(level=TABLE_LEVEL, write_checksum=True).compress(table)
        length = struct.pack("<I", len(packed))
        self._file.write(packed + length + struct.pack("<I", zlib.crc32(packed + length, self._seed)))
        return self._file.tell() - self._start


def read_contents(file: BinaryIO) -> Contents:
    """Read the table of a seekable file that is a collection.

    Raises :class:`bbans.errors.FormatError` for anything that :class:`CollectionWriter` would not have written. The
    members are not looked at: see :func:`read_member`.
    """
    size = file.seek(0, io.SEEK_END)
    body, seed, start = read_head(file)
    if body != BODY:
        raise FormatError("the file holds an array, not a collection")
    file.seek(max(size - FOOTER.size, start))
    footer = file.read(FOOTER.size)
    if len(footer) != FOOTER.size:
        raise FormatError("the file is truncated")
    length, checksum = FOOTER.unpack(footer)
    table_start = size - FOOTER.size - length
    if table_start < start:
        raise FormatError("the table does not fit in the file: the file is truncated or damaged")
    file.seek(table_start)
    packed = file.read(length)
    if zlib.crc32(packed + footer[:4], seed) != checksum:
        raise FormatError("the table is damaged, or the file is truncated")
    table = _unpacked(packed)
    members = _parse_table(table)
    if _table_bytes(members) != table:
        raise FormatError("the table is not written the one way it should be: the file is damaged")
    _check_names(members)
    ends = list(itertools.accumulate((member.length for member in members), initial=start))
    if ends[-1] != table_start:
        raise FormatError("the members don't fill the file between header and table: the file is damaged")
    return Contents(tuple(replace(member, offset=end) for member, end in zip(members, ends, strict=False)), size)


def member_file(file: BinaryIO, lock: threading.Lock, member: Member) -> BinaryIO:
    """The bytes of a member as a file of their own, to be read.

    Several threads may read the members of one collection if these are given the same lock.
    """
    return cast(BinaryIO, _FilePart(file, lock, member.offset, member.length))


def read_member(part: BinaryIO, member: Member) -> Directory:
    """Header and index of a member, from :func:`member_file`.

    Raises :class:`bbans.errors.FormatError` if it is damaged, or not the one that the table speaks of.
    """
    directory = read_directory(part)
    part.seek(member.length - 4)
    if part.read(4) != struct.pack("<I", member.checksum):
        raise FormatError(f"member {member.name!r} is not the one that was written there: the file is damaged")
    if member.role is Role.FILES:
        if directory.rows != member.rows or not directory.header.dimensions:
            raise FormatError(f"member {member.name!r} has not the rows of its files: the file is damaged")
        for form in {file.form for file in member.files}:
            if not _fits(form, directory.header):
                raise FormatError(f"member {member.name!r} can't be written to its files: the file is damaged")
    return directory


class _FilePart(io.RawIOBase):
    """Some bytes of a file as a file of their own, to be read."""

    def __init__(self, file: BinaryIO, lock: threading.Lock, offset: int, length: int) -> None:
        self._file, self._lock = file, lock
        self._offset, self._length, self._position = offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._length - self._position)
        count = left if size is None or size < 0 else min(size, left)
        with self._lock:
            self._file.seek(self._offset + self._position)
            data = self._file.read(count)
        self._position += len(data)
        return data


def _unpacked(packed: bytes) -> bytes:
    """The table in its frame, of which no more is unpacked than it may have."""
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= TABLE_MAXIMUM:
            raise FormatError("the table has no size, or one that is too large: the file is damaged")
        stream = zstandard.ZstdDecompressor().decompressobj()
        table = stream.decompress(packed)
    except zstandard.ZstdError as error:
        raise FormatError(f"the table is damaged: {error}") from error
    if len(table) != size or not stream.eof or stream.unused_data:
        raise FormatError("the table is longer or shorter than it says: the file is damaged")
    return table


def _table_bytes(members: Iterable[Member]) -> bytes:
    members = list(members)
    table = [varint(len(members))]
    for member in members:
        table.append(string(member.name) + bytes([member.role]) + varint(member.length))
        table.append(struct.pack("<I", member.checksum))
        if member.role is Role.FILES:
            table.append(_files_bytes(member.files))
    return b"".join(table)


def _files_bytes(files: tuple[NamedFile, ...]) -> bytes:
    try:
        names = "\0".join(file.name for file in files).encode()
    except UnicodeEncodeError:
        raise FormatError("a file's name is not Unicode, and can't be kept") from None
    forms = list(dict.fromkeys(file.form for file in files))
    number = {form: place for place, form in enumerate(forms)}
    out = [varint(len(files)), varint(len(names)), names, varint(len(forms))]
    for form in forms:
        out.append(bytes([form.format]) + varint(form.rows))
        out += [varint(len(part)) + part for part in (form.palette, form.transparency)]
    for form, run in itertools.groupby(file.form for file in files):
        out.append(varint(number[form]) + varint(sum(1 for _ in run)))
    return b"".join(out)


def _parse_table(table: bytes) -> list[Member]:
    reader = FieldReader(table)
    members = []
    for _ in range(reader.varint()):
        name, role, length = reader.string(), reader.byte(), reader.varint()
        if role not in set(Role):
            raise FormatError(f"a member has role {role}, which this version of bbans doesn't know")
        (checksum,) = struct.unpack("<I", reader.take(4))
        files = _parse_files(reader) if role == Role.FILES else ()
        members.append(Member(name, Role(role), length, checksum, files))
    reader.finish()
    return members


def _parse_files(reader: FieldReader) -> tuple[NamedFile, ...]:
    count = reader.varint()
    try:
        names = reader.take(reader.varint()).decode().split("\0")
    except UnicodeDecodeError:
        raise FormatError("a file's name is not UTF-8: the file is damaged") from None
    if len(names) != count:
        raise FormatError("a member has more or fewer names than files: the file is damaged")
    forms = [_parse_form(reader) for _ in range(reader.varint())]
    files: list[NamedFile] = []
    while len(files) < count:
        number, run = reader.varint(), reader.varint()
        if number >= len(forms) or not 0 < run <= count - len(files):
            raise FormatError("files have a form that there is not: the file is damaged")
        files += [NamedFile(name, forms[number]) for name in names[len(files) : len(files) + run]]
    return tuple(files)


def _parse_form(reader: FieldReader) -> Form:
    file_format, rows = reader.byte(), reader.varint()
    if file_format not in set(FileFormat):
        raise FormatError(f"a file has format {file_format}, which this version of bbans doesn't know")
    palette, transparency = reader.take(reader.varint()), reader.take(reader.varint())
    return Form(FileFormat(file_format), rows, palette, transparency)


def _check_names(members: Iterable[Member]) -> None:
    """Raise :class:`bbans.errors.FormatError` unless there are members, and each file has a place of its own."""
    members = list(members)
    names = [member.name for member in members]
    if not names or len(set(names)) != len(names) or not all(map(MEMBER_NAME.fullmatch, names)):
        raise FormatError("a collection needs members with names that differ and have no slashes")
    if any((member.role is Role.FILES) != bool(member.files) for member in members):
        raise FormatError("a member of a collection has no files, or files that it should not have")
    places: set[str] = set()
    folders: set[str] = set()
    for path in paths_of(members):
        if not PATH.fullmatch(path):
            raise FormatError(f"a file of a collection can't have the name {path!r}")
        if path in places:
            raise FormatError(f"two files of a collection have the name {path!r}")
        places.add(path)
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for path in places & folders:
        raise FormatError(f"{path!r} is a file of a collection and a folder too")


def paths_of(members: Iterable[Member]) -> Iterator[str]:
    """The paths of all files that a collection is written to."""
    for member in members:
        if member.role is Role.FILES:
            yield from (file.name for file in member.files)
        else:
            yield f"{member.name}.npy"


def _fits(form: Form, header: Header) -> bool:
    """Whether rows of an array can be such a file."""
    shape, colours = header.row_shape, len(form.palette) // 3
    if form.format not in PICTURE_FORMATS:
        known = form.format is FileFormat.NPY or (header.dtype in IDX_TYPES and header.dimensions < 256)
        return known and not form.palette and not form.transparency
    if form.rows < 1 or (form.rows > 1 and form.format is not FileFormat.TIFF) or min(shape, default=0) < 1:
        return False
    if form.format is FileFormat.WEBP:
        return header.dtype == "|u1" and len(shape) == 3 and shape[2] in (3, 4) and not form.palette
    if form.palette:
        indices = header.dtype == "|u1" and len(shape) == 2
        opaque = not form.transparency or form.format is FileFormat.PNG
        whole = len(form.palette) == 3 * colours <= PALETTE_MAXIMUM and len(form.transparency) <= colours
        return indices and opaque and whole
    if form.transparency:
        return False
    if len(shape) == 2:
        return header.dtype in ("|b1", "|u1", "<u2")
    return header.dtype == "|u1" and len(shape) == 3 and shape[2] in (2, 3, 4)
