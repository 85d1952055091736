"""The `.bba` format, version 1, and nothing else: see ``docs/format.md``, which this file follows line by line."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from typing import BinaryIO

from bbans.errors import FormatError
from bbans.fields import FieldReader, decode_varint, string, varint

MAGIC = b"\x89BBA\r\n\x1a\n"
"""As in PNG: a byte that is not ASCII, both kinds of line ends, and an end-of-file mark that stops a listing."""
VERSION = 1
ONE_ARRAY, ONE_ARRAY_WITH_MODEL, ONE_SET, ONE_SET_WITH_MODEL, COLLECTION = range(5)
"""The kinds of content so far; others are left for later versions. A set is an array whose rows have no order; the last
one is that of :mod:`bbans.collection`.
"""
COMMON_POSTERIOR = "amortized"
"""Written as an empty name, since most files have it."""
FOOTER = struct.Struct("<II")
DIMENSIONS_MAXIMUM = 64
DTYPE = re.compile(r"\|[biu]1|[<>](?:[iu][248]|f(?:2|4|8|12|16)|c(?:8|16|24|32))")


class Method(IntEnum):
    """How a chunk is coded."""

    ZSTANDARD = 0
    BITS_BACK = 1
    """If rows have no order, this is the first chunk of a set."""
    PLANES = 2
    """Through zstandard too, as :mod:`bbans.planes`."""
    SAME_SET = 3
    """Bits-back, going on with the set of the chunk before it."""


CODED = (Method.BITS_BACK, Method.SAME_SET)
"""The methods that need a model."""


@dataclass(frozen=True)
class ModelReference:
    """Which model, and which posterior of it, a file was coded with."""

    name: str
    identity: bytes
    posterior: str
    steps: int


@dataclass(frozen=True)
class Embedded:
    """What a header says about the model that follows it."""

    length: int
    checksum: int
    """CRC-32 of its bytes."""


@dataclass(frozen=True)
class Header:
    """What is known before the first chunk is written."""

    dtype: str
    """As in NumPy's array protocol: ``|u1``, ``<f4``."""
    dimensions: int
    row_shape: tuple[int, ...]
    """The shape without its first axis."""
    scale: int
    """An element is ``scale`` times the model's symbol: 1 or 255."""
    model: ModelReference | None
    """None if all chunks are stored through zstandard."""
    embedded: Embedded | None = None
    """None if the model is not in the file."""
    ordered: bool = True
    """Whether rows come in the order in which they were, or else in the canonical one (:mod:`bbans.canonical`)."""

    @property
    def item_size(self) -> int:
        """Bytes of an element."""
        return int(self.dtype[2:])


@dataclass(frozen=True)
class Chunk:
    """Where some rows of the array lie in the file."""

    rows: int
    method: Method
    offset: int
    length: int
    checksum: int


@dataclass(frozen=True)
class Directory:
    """All of a file but its payloads."""

    header: Header
    chunks: tuple[Chunk, ...]
    size: int
    """Bytes of the whole file."""
    seed: int
    """The checksum of the header, which those of the chunks start from."""
    embedded_offset: int
    """Where the header ends, and the embedded model lies if there is one."""

    @property
    def rows(self) -> int:
        """The length of the first axis."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def blocks(self) -> list[range]:
        """The numbers of the chunks that must be decoded together: those of a set, or each by itself."""
        starts = [number for number, chunk in enumerate(self.chunks) if chunk.method is not Method.SAME_SET]
        return [range(start, stop) for start, stop in pairwise([*starts, len(self.chunks)])]

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return (self.rows, *self.header.row_shape) if self.header.dimensions else ()


def write(
    file: BinaryIO, header: Header, chunks: Iterable[tuple[int, Method, bytes]], embedded_model: bytes = b""
) -> int:
    """Write a file from ``(rows, method, payload)`` of each chunk, as they come, and return its size in bytes.

    What the header says about the embedded model is taken from its bytes; there is none if they are empty.
    """
    writer = FileWriter(file, header, embedded_model)
    for chunk in chunks:
        writer.add(*chunk)
    return writer.finish()


class FileWriter:
    """Writes a file: its header at once, then every chunk that is added, and the index at the end."""

    def __init__(self, file: BinaryIO, header: Header, embedded_model: bytes = b"") -> None:
        embedded = Embedded(len(embedded_model), zlib.crc32(embedded_model)) if embedded_model else None
        head = _header_bytes(replace(header, embedded=embedded))
        self._file = file
        self._seed = zlib.crc32(head)
        self._entries: list[bytes] = []
        file.write(head + struct.pack("<I", self._seed))
        file.write(embedded_model)
        self._position = len(head) + 4 + len(embedded_model)

    def add(self, rows: int, method: Method, payload: bytes) -> None:
        """Write the next chunk."""
        self._file.write(payload)
        checksum = _chunk_checksum(self._seed, len(self._entries), payload)
        self._entries.append(varint(rows) + bytes([method]) + varint(len(payload)) + struct.pack("<I", checksum))
        self._position += len(payload)

    def finish(self) -> int:
        """Write index and footer; the size of the file in bytes."""
        index = varint(len(self._entries)) + b"".join(self._entries)
        length = struct.pack("<I", len(index))
        self._file.write(index + length + struct.pack("<I", zlib.crc32(index + length, self._seed)))
        return self._position + len(index) + FOOTER.size


def read_directory(file: BinaryIO) -> Directory:
    """Read header and index of a seekable file.

    Raises :class:`bbans.errors.FormatError` for anything that :func:`write` would not have written.
    """
    size = file.seek(0, io.SEEK_END)
    body, seed, embedded_offset = read_head(file)
    header = _parse_header(body)
    if _header_bytes(header) != head_bytes(body):
        raise FormatError("the header is not written the one way it should be: the file is damaged")
    end = embedded_offset + (header.embedded.length if header.embedded else 0)
    if end > size:
        raise FormatError("the embedded model does not fit in the file: the file is truncated or damaged")

    file.seek(max(size - FOOTER.size, end))
    index_length, checksum = FOOTER.unpack(_read(file, FOOTER.size))
    index_start = size - FOOTER.size - index_length
    if index_start < end:
        raise FormatError("the index does not fit in the file: the file is truncated or damaged")
    file.seek(index_start)
    index = file.read(index_length)
    if zlib.crc32(index + struct.pack("<I", index_length), seed) != checksum:
        raise FormatError("the index is damaged, or the file is truncated")
    chunks = _parse_index(index, end)
    if (chunks[-1].offset + chunks[-1].length if chunks else end) != index_start:
        raise FormatError("the chunks don't fill the file between header and index: the file is damaged")
    if not header.dimensions and sum(chunk.rows for chunk in chunks) != 1:
        raise FormatError("an array without dimensions has one element: the file is damaged")
    if header.model is None and any(chunk.method in CODED for chunk in chunks):
        raise FormatError("a chunk is coded with a model, and the header names none: the file is damaged")
    for before, chunk in zip((None, *chunks), chunks, strict=False):
        if chunk.method is Method.SAME_SET and (header.ordered or before is None or before.method not in CODED):
            raise FormatError("a chunk goes on with a set, and there is none before it: the file is damaged")
    return Directory(header, chunks, size, seed, embedded_offset)


def read_kind(file: BinaryIO) -> int:
    """The kind of content of a seekable file, whose header may be damaged otherwise.

    Raises :class:`bbans.errors.FormatError` if it is not a `.bba` file.
    """
    file.seek(0)
    _check_magic(_read(file, len(MAGIC) + 1))
    decode_varint(lambda count: _read(file, count))
    return _read(file, 1)[0]


def head_bytes(body: bytes) -> bytes:
    """The header with these fields, up to its checksum."""
    return MAGIC + bytes([VERSION]) + varint(len(body)) + body


def read_head(file: BinaryIO) -> tuple[bytes, int, int]:
    """The fields of a header, its checksum and where it ends; the file is left there."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = _read(file, len(MAGIC) + 1)
    _check_magic(start)
    length = decode_varint(lambda count: _read(file, count))
    body = _read(file, min(length, size))
    (seed,) = struct.unpack("<I", _read(file, 4))
    if zlib.crc32(start + varint(length) + body) != seed:
        raise FormatError("the header is damaged: its checksum does not match")
    return body, seed, file.tell()


def read_payload(file: BinaryIO, directory: Directory, number: int) -> bytes:
    """The payload of one chunk; :class:`bbans.errors.FormatError` if its checksum doesn't match."""
    chunk = directory.chunks[number]
    file.seek(chunk.offset)
    payload = file.read(chunk.length)
    if _chunk_checksum(directory.seed, number, payload) != chunk.checksum:
        raise FormatError(f"chunk {number} is damaged: its checksum does not match")
    return payload


def read_embedded(file: BinaryIO, directory: Directory) -> bytes:
    """The embedded model, empty if there is none; :class:`bbans.errors.FormatError` if its checksum doesn't match."""
    embedded = directory.header.embedded
    if embedded is None:
        return b""
    file.seek(directory.embedded_offset)
    data = file.read(embedded.length)
    if zlib.crc32(data) != embedded.checksum:
        raise FormatError("the embedded model is damaged: its checksum does not match")
    return data


def _read(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise FormatError("the file is truncated")
    return data


def _chunk_checksum(seed: int, number: int, payload: bytes) -> int:
    """CRC-32 of a payload, bound to its file's header and its place, so that chunks can't be exchanged."""
    return zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number), seed))


def _header_bytes(header: Header) -> bytes:
    kinds = (ONE_ARRAY, ONE_ARRAY_WITH_MODEL) if header.ordered else (ONE_SET, ONE_SET_WITH_MODEL)
    kind = kinds[header.embedded is not None]
    body = bytes([kind]) + string(header.dtype) + bytes([header.dimensions])
    body += b"".join(varint(size) for size in header.row_shape) + varint(header.scale)
    if header.model is None:
        body += string("")
    else:
        model = header.model
        posterior = "" if model.posterior == COMMON_POSTERIOR else model.posterior
        body += string(model.name) + string(posterior) + varint(model.steps) + model.identity
    if header.embedded is not None:
        body += varint(header.embedded.length) + struct.pack("<I", header.embedded.checksum)
    return head_bytes(body)


def _check_magic(start: bytes) -> None:
    if start[: len(MAGIC)] != MAGIC:
        if start[:4] == MAGIC[:4]:
            raise FormatError("a .bba file that a transfer in text mode has damaged: its line ends were converted")
        raise FormatError("not a .bba file: it does not begin with the magic bytes of one")
    if start[-1] != VERSION:
        raise FormatError(
            f"a .bba file of version {start[-1]}; this bbans reads version {VERSION}: a newer bbans is needed"
        )


def _parse_header(body: bytes) -> Header:
    reader = FieldReader(body)
    if (kind := reader.byte()) == COLLECTION:
        raise FormatError("the file holds a collection of arrays, not one: bbans.open_collection reads it")
    if kind not in (ONE_ARRAY, ONE_ARRAY_WITH_MODEL, ONE_SET, ONE_SET_WITH_MODEL):
        raise FormatError(f"the file holds content of kind {kind}, which this version of bbans can't read")
    dtype = reader.string()
    if not DTYPE.fullmatch(dtype):
        raise FormatError(f"the file holds elements of type {dtype!r}, which are not numbers known here")
    dimensions = reader.byte()
    if dimensions > DIMENSIONS_MAXIMUM:
        raise FormatError(f"an array of {dimensions} dimensions: the file is damaged")
    row_shape = tuple(reader.varint() for _ in range(dimensions - 1))
    scale = reader.varint()
    model = None
    if name := reader.string():
        posterior, steps = reader.string() or COMMON_POSTERIOR, reader.varint()
        model = ModelReference(name, reader.take(8), posterior, steps)
    embedded = None
    if kind in (ONE_ARRAY_WITH_MODEL, ONE_SET_WITH_MODEL):
        embedded = Embedded(reader.varint(), *struct.unpack("<I", reader.take(4)))
        if model is None or not embedded.length:
            raise FormatError("a model is embedded that has no name or no bytes: the file is damaged")
    reader.finish()
    return Header(
        dtype, dimensions, row_shape, scale, model, embedded, ordered=kind in (ONE_ARRAY, ONE_ARRAY_WITH_MODEL)
    )


def _parse_index(index: bytes, offset: int) -> tuple[Chunk, ...]:
    reader = FieldReader(index)
    chunks = []
    for _ in range(reader.varint()):
        rows, method, length = reader.varint(), reader.byte(), reader.varint()
        if method not in set(Method):
            raise FormatError(f"a chunk is coded by method {method}, which this version of bbans doesn't know")
        (checksum,) = struct.unpack("<I", reader.take(4))
        chunks.append(Chunk(rows, Method(method), offset, length, checksum))
        offset += length
    reader.finish()
    return tuple(chunks)
