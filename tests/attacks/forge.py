"""What an attacker, or a bad disk, makes of files: written without the library, which would refuse to."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import zstandard

MAGIC = b"\x89BBA\r\n\x1a\n"

Attack = tuple[str, bytes]
"""What it is, and the bytes."""


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    data = bytearray()
    while value >= 128:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def string(text: bytes) -> bytes:
    return bytes([len(text)]) + text


@dataclass(frozen=True)
class Forgery:
    """The parts of a file, none of which is checked; all checksums come out right."""

    kind: int = 0
    dtype: bytes = b"|u1"
    dimensions: int = 2
    row_shape: tuple[int, ...] = (4,)
    scale: int = 1
    model: bytes = b""
    identity: bytes = bytes(8)
    steps: int = 0
    chunks: tuple[tuple[int, int, bytes], ...] = field(default_factory=lambda: ((1, 0, stored(b"abcd")),))
    """Rows, method, payload."""
    lengths: tuple[int, ...] | None = None
    """Of the payloads, if the index is to say others."""
    count: int | None = None
    """Of the chunks, if the index is to say another."""

    def __bytes__(self) -> bytes:
        body = bytes([self.kind]) + string(self.dtype) + bytes([self.dimensions])
        body += b"".join(map(varint, self.row_shape)) + varint(self.scale) + string(self.model)
        if self.model:
            body += string(b"") + varint(self.steps) + self.identity
        head = MAGIC + b"\1" + varint(len(body)) + body
        seed = zlib.crc32(head)
        lengths = self.lengths or tuple(len(payload) for _, _, payload in self.chunks)
        index = varint(len(self.chunks) if self.count is None else self.count)
        for number, ((rows, method, payload), length) in enumerate(zip(self.chunks, lengths, strict=True)):
            checksum = zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number), seed))
            index += varint(rows) + bytes([method]) + varint(length) + struct.pack("<I", checksum)
        size = struct.pack("<I", len(index))
        payloads = b"".join(payload for _, _, payload in self.chunks)
        footer = index + size + struct.pack("<I", zlib.crc32(index + size, seed))
        return head + struct.pack("<I", seed) + payloads + footer


def stored(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def claiming(size: int) -> bytes:
    """A zstandard frame that says it holds so many bytes, and holds none."""
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", min(size, (1 << 64) - 1)) + b"\x01\0\0"


def flips(data: bytes) -> Iterator[Attack]:
    """Each byte with one bit flipped."""
    for position in range(len(data)):
        yield (
            f"bit of byte {position}",
            data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :],
        )


def truncations(data: bytes) -> Iterator[Attack]:
    """Each length that is too short, and some that are too long."""
    yield from ((f"cut to {length} bytes", data[:length]) for length in range(len(data)))
    yield from ((f"with {len(more)} bytes more", data + more) for more in (b"\0", b"x" * 8, data))


def exchanges(data: bytes, start: int, stop: int, other: bytes) -> Iterator[Attack]:
    """Two payloads of one length that lie side by side from ``start`` to ``stop``, exchanged and doubled; and what lies
    there in ``other`` file, in place of it.
    """
    middle = (start + stop) // 2
    first, second = data[start:middle], data[middle:stop]
    for name, payloads in (("exchanged", second + first), ("doubled", first + first), ("another's", other[start:stop])):
        if payloads != first + second:
            yield f"payloads {name}", data[:start] + payloads + data[stop:]


HUGE = (1 << 20, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1)


def forgeries(model: bytes, identity: bytes, row_shape: tuple[int, ...], payload: bytes) -> Iterator[Attack]:
    """Headers and indices that make no sense, around a payload of that model which holds one row."""
    own = {"model": model, "identity": identity, "dimensions": 1 + len(row_shape), "row_shape": row_shape}
    for rows in (0, 2, 1000, *HUGE):
        yield f"{rows} rows stored", bytes(Forgery(chunks=((rows, 0, stored(b"abcd")),)))
        yield f"{rows} rows coded", bytes(Forgery(**own, chunks=((rows, 1, payload),)))
        yield f"{rows} rows coded in nothing", bytes(Forgery(**own, chunks=((rows, 1, b""),)))
        yield f"a frame that claims {rows} rows", bytes(Forgery(chunks=((rows, 0, claiming(4 * rows)),)))
        yield f"{rows} rows in a set", bytes(Forgery(2, **own, chunks=((rows, 1, b"\x08" + payload),)))
        yield f"{rows} rows in a set that counts on nothing", bytes(Forgery(2, **own, chunks=((rows, 1, payload),)))
        pair = ((1, 1, b"\x08" + payload), (rows, 3, b"\x08" + payload))
        yield f"a row and {rows} more in a set", bytes(Forgery(2, **own, chunks=pair))
        yield f"a row and {rows} more in a set in an array", bytes(Forgery(**own, chunks=pair))
        yield f"{rows} rows of a set that has none before", bytes(Forgery(2, **own, chunks=pair[1:]))
    for size in HUGE:
        for shape in ((size,), (size, size), (0, size), (size, 0)):
            yield f"rows of shape {shape}", bytes(Forgery(dimensions=1 + len(shape), row_shape=shape))
        yield f"a frame that claims {size} bytes", bytes(Forgery(chunks=((1, 0, claiming(size)),)))
        yield f"a chunk of {size} bytes", bytes(Forgery(lengths=(size,)))
        yield f"{size} chunks", bytes(Forgery(count=size))
        yield f"scale {size}", bytes(Forgery(**own, scale=size, chunks=((1, 1, payload),)))
        yield f"{size} steps", bytes(Forgery(**own, steps=size, chunks=((1, 1, payload),)))
    for dtype in (b"", b"O", b"|O8", b"|V4", b"<U9", b"|u1,|u1", b"<i3", b"<f99", b"u1", b"=u1", b"|b4", b"\xff"):
        yield f"elements of type {dtype!r}", bytes(Forgery(dtype=dtype))
    for name in (b"../../etc/passwd", b"/dev/zero", b"/dev/stdin", b".", b"mnist", b"\0", b"\xff", b"x" * 255):
        yield f"model {name!r}", bytes(Forgery(**{**own, "model": name}, chunks=((1, 1, payload),)))
    yield "another identity", bytes(Forgery(**{**own, "identity": b"01234567"}, chunks=((1, 1, payload),)))
    yield "no model", bytes(Forgery(chunks=((1, 1, payload),)))
    yield "method 9", bytes(Forgery(chunks=((1, 9, payload),)))
    yield "a dimension missing", bytes(Forgery(dimensions=3))
    yield "255 dimensions", bytes(Forgery(dimensions=255, row_shape=(1,) * 254))
    yield "a number without two rows", bytes(Forgery(dimensions=0, row_shape=(), chunks=((2, 0, stored(b"ab")),)))


def model_forgeries(data: bytes) -> Iterator[Attack]:
    """Model files whose JSON makes no sense."""
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    description = json.loads(header["__metadata__"]["bbans"])

    def file(text: str, rest: bytes = tensors) -> bytes:
        encoded = text.encode()
        encoded += b" " * (-len(encoded) % 8)
        return struct.pack("<Q", len(encoded)) + encoded + rest

    def described(text: str) -> bytes:
        return file(json.dumps({**header, "__metadata__": {"bbans": text}}))

    yield "no header", struct.pack("<Q", 1 << 62) + tensors
    yield "a header that never ends", struct.pack("<Q", len(data)) + data[8:]
    yield "deep lists", file("[" * 100_000)
    yield "deep lists in the description", described("[" * 100_000 + "]" * 100_000)
    yield "no description", file(json.dumps({**header, "__metadata__": {}}))
    for text in ("", "null", "[]", "1", "NaN", '"x"', "{}", '{"format": 1}', '{"format": 1e999}'):
        yield f"description {text}", described(text)
    for key in description:
        for value in (None, -1, 0, 1.5, 1e999, float("nan"), 1 << 70, "x", [], {}, [[]], True, [1 << 40] * 3, [-1, 0]):
            if value != description[key]:
                yield f"{key} {value}", described(json.dumps({**description, key: value}))
    for name, tensor in header.items():
        for change in (
            {"shape": [1 << 40, 1 << 40]}, {"shape": [0, 3]}, {"shape": []}, {"dtype": "F32"}, {"dtype": "X"},
            {"data_offsets": [0, 1 << 60]}, {"data_offsets": [8, 0]}, {"data_offsets": [-1, 5]},
        ):  # fmt: skip
            if name != "__metadata__":
                yield f"{name}: {change}", file(json.dumps({**header, name: {**tensor, **change}}))
        yield f"without {name}", file(json.dumps({key: value for key, value in header.items() if key != name}))
    twice = json.dumps(header)[:-1] + ", " + json.dumps(header)[1:]
    yield "each tensor twice", file(twice)


def collection(members: list[tuple[bytes, int, bytes, bytes]], *, table: bytes = b"", packed: bytes = b"") -> bytes:
    """A collection of ``(name, role, member, what the table says of its files)``, or with another table; all checksums
    come out right.
    """
    head = MAGIC + b"\1" + b"\1" + b"\4"
    seed = zlib.crc32(head)
    if not table:
        table = varint(len(members))
        for name, role, member, files in members:
            table += string(name) + bytes([role]) + varint(len(member)) + member[-4:] + files
    packed = packed or stored(table)
    size = struct.pack("<I", len(packed))
    content = b"".join(member for _, _, member, _ in members)
    return head + struct.pack("<I", seed) + content + packed + size + struct.pack("<I", zlib.crc32(packed + size, seed))


def collection_forgeries(pictures: bytes, other: bytes) -> Iterator[Attack]:
    """Tables that make no sense, around files of three grey pictures and of something else."""

    def form(kind: int = 1, rows: int = 1, palette: bytes = b"", transparency: bytes = b"") -> bytes:
        parts = varint(len(palette)) + palette + varint(len(transparency)) + transparency
        return bytes([kind]) + varint(rows) + parts

    def files(names: bytes = b"a\0b\0c", count: int = 3, forms: bytes = b"\1" + form(), runs: bytes = b"\0\3") -> bytes:
        return varint(count) + varint(len(names)) + names + forms + runs

    def named(attack: str, said: bytes, role: int = 1, name: bytes = b"x") -> Attack:
        return attack, collection([(name, role, pictures, said)])

    for names in (
        b"../b", b"/b", b"b/../../c", b"b/.", b"./b", b"", b"b/", b"b\\c", b"..", b"a", b"a/b", b"\xff", b"b\0d",
        b"\xed\xa0\x80",
    ):  # fmt: skip
        yield named(f"names {names!r}", files(b"a\0c\0" + names))
    for name in (b"", b"..", b".", b"a/b", b"/", b"\0", b"\xff", b"a\\b"):
        yield named(f"member {name!r}", files(), name=name)
        yield named(f"array {name!r}", b"", role=0, name=name)
    for size in (0, 1, 2, 4, *HUGE):
        yield named(f"{size} files", files(count=size))
        yield named(f"a run of {size}", files(runs=b"\0" + varint(size)))
        yield named(f"form {size + 1}", files(runs=varint(size + 1) + b"\3"))
        yield named(f"{size + 2} forms", files(forms=varint(size + 2) + form()))
        yield named(f"files of {size + 2} rows", files(forms=b"\1" + form(2, size + 2)))
        yield f"{size + 1} members", collection([(b"x", 1, pictures, files())], table=varint(size + 1))
    yield named("two runs of one form", files(runs=b"\0\1\0\2"))
    yield named("the same form twice", files(forms=b"\2" + form() + form(), runs=b"\0\1\1\2"))
    yield named("a form that nothing has", files(forms=b"\2" + form() + form(2)))
    yield named("forms in another order", files(forms=b"\2" + form() + form(2), runs=b"\1\1\0\2"))
    for wrong in (
        form(3), form(4, 1, b"abc"), form(9), form(0, 1, b"abc"), form(1, 1, b"ab"), form(1, 1, bytes(771)),
        form(1, 1, b"abc", b"12"), form(1, 1, b"", b"1"), form(2, 1, b"abc", b"1"), form(1, 3),
    ):  # fmt: skip
        yield named(f"form {wrong[:9]!r}", files(forms=b"\1" + wrong))
        single = files(b"a", 1, b"\1" + wrong, b"\0\1")
        yield f"of numbers, form {wrong[:9]!r}", collection([(b"x", 1, other, single)])
    yield named("role 9", files(), role=9)
    yield named("files of an array", files(), role=0)
    yield named("something left over", files() + b"\0")
    yield "no members", collection([], table=b"\0")
    yield "two members of one name", collection([(b"x", 0, other, b""), (b"x", 0, other, b"")])
    yield "two files of one name", collection([(b"c", 0, other, b""), (b"x", 1, pictures, files(b"a\0b\0c.npy"))])
    inner = collection([(b"x", 1, pictures, files())])
    yield "a collection in a collection", collection([(b"x", 0, inner, b"")])
    yield "a member that is nothing", collection([(b"x", 0, b"nothing at all", b"")])
    yield "a member of no bytes", collection([(b"x", 0, b"", b"")])
    one = varint(1) + string(b"x") + b"\0" + varint(len(other)) + other[-4:]
    yield "more between", collection([(b"x", 0, other, b""), (b"y", 0, other, b"")], table=one)
