"""What is fuzzed: functions of any bytes that must end well, or in an error of bbans.

Checksums are made right where damage would else get no further, and each has whole files to begin from.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from attacks import forge
from attacks.forge import MAGIC, varint
from conftest import random_images, tiny_context_model, tiny_model, tiny_residual_model

import bbans
from bbans import container
from bbans.canonical import canonical_order
from bbans.codec import Codec
from bbans.collection_reader import in_folder
from bbans.container import Header, Method, ModelReference
from bbans.embedded import embed, extract
from bbans.fields import FieldReader
from bbans.model import Model, save_model

MEMORY = 1 << 22
"""Bytes that decoding may take."""
PART = struct.Struct("<H")
"""The length of a part of an input."""


MODELS = tiny_model("bernoulli"), tiny_context_model("logistic-mixture"), tiny_residual_model("channel-linear-logistic")
MODEL = MODELS[0]
CODEC = Codec.of(MODEL, engine="numpy", ans="numpy", threads=1)
IMAGES = random_images(MODEL, 3)
assert CODEC.reference is not None
REFERENCE: ModelReference = CODEC.reference


def joined(*parts: bytes) -> bytes:
    """An input of several parts."""
    return b"".join(PART.pack(len(part)) + part for part in parts)


def parted(data: bytes, count: int) -> list[bytes]:
    """So many parts, whatever the input is; the last takes what is left."""
    parts = []
    for _ in range(count - 1):
        length = PART.unpack(data[:2].ljust(2, b"\0"))[0]
        parts.append(data[2 : 2 + length])
        data = data[2 + length :]
    return [*parts, data[2:]]


def sealed(header: bytes, content: bytes, index: bytes) -> bytes:
    """A file of these parts with all checksums right, as far as the index can be read."""
    head = MAGIC + b"\1" + varint(len(header)) + header
    seed = zlib.crc32(head)
    index = _resealed(index, content, seed)
    size = struct.pack("<I", len(index))
    return head + struct.pack("<I", seed) + content + index + size + struct.pack("<I", zlib.crc32(index + size, seed))


def _resealed(index: bytes, content: bytes, seed: int) -> bytes:
    """An index with the checksums of payloads that lie at the end of ``content`` one after the other."""
    reader, entries = FieldReader(index), []
    try:
        for _ in range(min(reader.varint(), 100)):
            entries.append((reader.varint(), reader.byte(), reader.varint()))
            reader.take(4)
        rest = reader.rest()
    except bbans.FormatError:
        return index
    position = len(content) - sum(length for _, _, length in entries)
    made = varint(len(entries))
    for number, (rows, method, length) in enumerate(entries):
        payload = content[max(position, 0) : max(position + length, 0)]
        checksum = zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number), seed))
        made += varint(rows) + bytes([method]) + varint(length) + struct.pack("<I", checksum)
        position += length
    return made + rest


def _parts_of_file(data: bytes) -> bytes:
    """A whole file as an input of :func:`whole_file`."""
    start = len(MAGIC) + 1
    length = data[start]
    header = data[start + 1 : start + 1 + length]
    (index_length,) = struct.unpack("<I", data[-8:-4])
    end = len(data) - 8 - index_length
    return joined(header, data[start + 1 + length + 4 : end], data[end:-8])


def whole_file(data: bytes) -> None:
    """Header, payloads and index."""
    file = sealed(*parted(data, 3))
    with bbans.open(file, model=MODEL, engine="numpy", ans="numpy", threads=1, max_memory=MEMORY) as compressed:
        compressed.embedded_model()
        compressed.read()


def raw(data: bytes) -> None:
    """Any bytes at all."""
    bbans.decompress(data, model=MODEL, engine="numpy", ans="numpy", threads=1, max_memory=MEMORY)


def collection(data: bytes) -> None:
    """What the table says of the members, and these."""
    table, members = parted(data, 2)
    file = forge.collection([(b"", 0, members, b"")], table=table)
    settings = {"model": MODEL, "engine": "numpy", "ans": "numpy", "threads": 1, "max_memory": MEMORY}
    with bbans.open_collection(file, **settings) as opened, tempfile.TemporaryDirectory() as folder:
        lost: list[str] = []
        opened.write_files(in_folder(Path(folder)), lambda path, error: lost.append(path))


def _parts_of_collection() -> bytes:
    """Two pictures and an array as an input of :func:`collection`."""
    pictures, numbers = CODEC.compress(IMAGES), bbans.compress(np.arange(6.0), model=None)
    files = b"\2" + b"\x07a/b\0c/d" + b"\2" + b"\1\1\0\0" + b"\2\2\0\0" + b"\0\1" + b"\1\1"
    table = varint(2) + b"\1x\1" + varint(len(pictures)) + pictures[-4:] + files
    return joined(table + b"\1y\0" + varint(len(numbers)) + numbers[-4:], pictures + numbers)


def payload(data: bytes) -> None:
    """What the stack holds, and how many images it should hold."""
    count, words = data[:1].ljust(1, b"\0")[0], data[1:]
    CODEC.chunk_coder().decode(words, 1 + count)


def payloads_of_set(data: bytes) -> None:
    """What the stacks of two chunks of a set hold, and how many images they should hold."""
    sizes, first, second = parted(data, 3)
    rows = [1 + count for count in sizes[:2].ljust(2, b"\0")]
    CODEC.set_coder(MODEL.pixels, 2).decode([first, second], rows)


def _payloads_of_set() -> bytes:
    """An input of :func:`payloads_of_set`."""
    images = IMAGES.reshape(3, -1)
    rows = images[canonical_order(images)][[0, 1, 1, 2, 2]]
    first = np.array([0, 1, 1, 3, 3])
    return joined(bytes([2, 1]), *CODEC.set_coder(MODEL.pixels, 2).encode(lambda places: rows[places], first, [3, 2]))


def embedded(data: bytes) -> None:
    """A model that lies in a file."""
    extract(data, REFERENCE)


def model(data: bytes) -> None:
    """A model's own file: its description, the header of its tensors, and these."""
    description, header, tensors = parted(data, 3)
    try:
        fields = json.loads(header)
        fields["__metadata__"] = {"bbans": description.decode("utf-8", "replace")}
        header = json.dumps(fields).encode()
    except (ValueError, TypeError, RecursionError):
        pass
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(struct.pack("<Q", len(header)) + header + tensors)
        file.flush()
        loaded = bbans.load_model(file.name)
    if loaded.pixels <= MODEL.pixels * 3:
        coder = Codec.of(loaded, engine="numpy", ans="numpy", threads=1).chunk_coder()
        image = np.zeros((1, loaded.pixels), np.int64)
        assert np.array_equal(coder.decode(coder.encode(image), 1), image), "a model that loads must work"


@dataclass(frozen=True)
class Target:
    """What is fuzzed, and the inputs to begin from."""

    use: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _parts_of_model(model: Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_model(model, path)
        data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return joined(header["__metadata__"]["bbans"].encode(), json.dumps(header).encode(), data[8 + length :])


def _files() -> tuple[bytes, ...]:
    file, rows = io.BytesIO(), IMAGES.reshape(len(IMAGES), -1).astype(np.int64)
    header = Header("|u1", IMAGES.ndim, IMAGES.shape[1:], 1, REFERENCE)
    chunk = len(rows), Method.BITS_BACK, CODEC.chunk_coder().encode(rows)
    container.write(file, header, [chunk], embed(MODEL, "amortized"))
    plain = (
        CODEC.compress(IMAGES, 2),
        CODEC.compress(IMAGES, ordered=False),
        bbans.compress(np.arange(6.0), model=None),
        bbans.compress(np.array(5), model=None),
        bbans.compress(np.arange(900, dtype="<u2").reshape(9, 100), model=None),
    )
    return (*plain, file.getvalue())


TARGETS = {
    "whole_file": Target(whole_file, tuple(map(_parts_of_file, _files()))),
    "raw": Target(raw, _files()),
    "collection": Target(collection, (_parts_of_collection(),)),
    "payload": Target(payload, (b"\2" + CODEC.chunk_coder().encode(IMAGES.reshape(3, -1).astype(np.int64)),)),
    "payloads_of_set": Target(payloads_of_set, (_payloads_of_set(),)),
    "embedded": Target(embedded, tuple(embed(model, "amortized") for model in MODELS)),
    "model": Target(model, tuple(map(_parts_of_model, MODELS))),
}


def attempt(target: str, data: bytes) -> None:
    """One input: an error of bbans is as good as none."""
    with suppress(bbans.BbansError):
        TARGETS[target].use(data)
