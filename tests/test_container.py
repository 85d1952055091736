"""The format: every byte is as docs/format.md says, and every other byte is refused."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bbans.container import Directory, Header, Method, ModelReference, read_directory, read_payload, write
from bbans.errors import FormatError

HEADER = Header("|u1", 3, (28, 28), 1, ModelReference("gg", bytes(range(8)), "amortized", 5))
CHUNKS = [(300, Method.BITS_BACK, b"first payload"), (2, Method.ZSTANDARD, b"second")]


def written(header: Header = HEADER, chunks: list[tuple[int, Method, bytes]] = CHUNKS) -> bytes:
    file = io.BytesIO()
    assert write(file, header, chunks) == len(file.getvalue())
    return file.getvalue()


def parsed(data: bytes) -> Directory:
    return read_directory(io.BytesIO(data))


def test_known_answer() -> None:
    """A whole file, byte by byte."""
    body = b"\x00" + b"\x03|u1" + b"\x03" + b"\x1c\x1c" + b"\x01" + b"\x02gg" + b"\x00" + b"\x05"
    body += bytes(range(8))
    head = b"\x89BBA\r\n\x1a\n" + b"\x01" + bytes([len(body)]) + body
    seed = zlib.crc32(head)
    checksums = [
        zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number), seed))
        for number, payload in enumerate([b"first payload", b"second"])
    ]
    index = b"\x02" + b"\xac\x02" + b"\x01" + b"\x0d" + struct.pack("<I", checksums[0])
    index += b"\x02" + b"\x00" + b"\x06" + struct.pack("<I", checksums[1])
    length = struct.pack("<I", len(index))
    footer = length + struct.pack("<I", zlib.crc32(index + length, seed))
    assert written() == head + struct.pack("<I", seed) + b"first payload" + b"second" + index + footer


def test_other_posteriors_are_named() -> None:
    reference = ModelReference("gg", bytes(8), "half-asleep", 0)
    data = written(Header("|u1", 3, (28, 28), 1, reference))
    assert parsed(data).header.model == reference
    assert b"\x0bhalf-asleep" in data


def test_what_is_written_is_read() -> None:
    data = written()
    directory = parsed(data)
    assert directory.header == HEADER
    assert directory.shape == (302, 28, 28)
    assert directory.size == len(data)
    assert [read_payload(io.BytesIO(data), directory, n) for n in (0, 1)] == [b"first payload", b"second"]


@given(
    dtype=st.sampled_from(["|b1", "<f8", ">u2"]),
    row_shape=st.lists(st.integers(0, 1 << 40), max_size=5),
    methods=st.sampled_from(["", "0", "1", "2", "01", "101", "13", "013", "1330", "2131"]),
    rows=st.integers(0, 1 << 40),
    payload=st.binary(max_size=40),
    name=st.text(min_size=1, max_size=20),
    steps=st.integers(0, 1 << 20),
)
def test_any_content_is_read_back(
    dtype: str, row_shape: list[int], methods: str, rows: int, payload: bytes, name: str, steps: int
) -> None:
    reference = ModelReference(name, b"12345678", "q", steps)
    header = Header(dtype, len(row_shape) + 1, tuple(row_shape), 255, reference, ordered="3" not in methods)
    chunks = [(rows + number, Method(int(method)), payload) for number, method in enumerate(methods)]
    data = written(header, chunks)
    directory = parsed(data)
    assert directory.header == header
    assert [(chunk.rows, chunk.method) for chunk in directory.chunks] == [(rows, method) for rows, method, _ in chunks]


def test_sets_are_made_of_the_chunks_that_go_on_with_them() -> None:
    unordered = replace(HEADER, ordered=False)
    chunks = [(1, method, b"payload") for method in (Method.ZSTANDARD, Method.BITS_BACK, Method.SAME_SET)]
    assert parsed(written(unordered, [*chunks, chunks[1]])).blocks == [range(1), range(1, 3), range(3, 4)]
    assert parsed(written(HEADER, [])).blocks == parsed(written(unordered, [])).blocks == []
    for header, wrong in (
        (HEADER, chunks),
        (unordered, [chunks[2]]),
        (unordered, [chunks[0], chunks[2]]),
        (replace(unordered, model=None), [chunks[1]]),
    ):
        with pytest.raises(FormatError, match=r"goes on with a set|names none"):
            parsed(written(header, wrong))


def read_all(data: bytes) -> None:
    directory = parsed(data)
    for number in range(len(directory.chunks)):
        read_payload(io.BytesIO(data), directory, number)


def test_every_flipped_bit_is_found() -> None:
    data = written()
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError):
                read_all(bytes(damaged))


def test_every_truncation_is_found() -> None:
    data = written()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read_all(data[:length])


def test_exchanged_chunks_are_found() -> None:
    """Payloads of the same length: nothing but the checksums can tell them apart."""
    chunks = [(1, Method.ZSTANDARD, b"aaaa"), (1, Method.ZSTANDARD, b"bbbb")]
    data = written(HEADER, chunks)
    with pytest.raises(FormatError, match="chunk 0 is damaged"):
        read_all(data.replace(b"aaaabbbb", b"bbbbaaaa"))


def test_a_header_that_could_be_written_otherwise_is_refused() -> None:
    body = b"\x00\x03|u1\x03\x1c\x1c\x01\x02gg\x09amortized\x00" + bytes(8)
    head = b"\x89BBA\r\n\x1a\n\x01" + bytes([len(body)]) + body
    seed = zlib.crc32(head)
    footer = struct.pack("<I", 1) + struct.pack("<I", zlib.crc32(b"\x00" + struct.pack("<I", 1), seed))
    with pytest.raises(FormatError, match="the one way it should be"):
        parsed(head + struct.pack("<I", seed) + b"\x00" + footer)


@given(data=st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parsed(data)


@given(body=st.binary(max_size=60), index=st.binary(max_size=60))
def test_noise_with_valid_checksums_is_refused_or_read(body: bytes, index: bytes) -> None:
    """Checksums are no protection from a forger: parsing must end in a format error or a sane result."""
    head = b"\x89BBA\r\n\x1a\n\x01" + bytes([len(body)]) + body
    seed = zlib.crc32(head)
    length = struct.pack("<I", len(index))
    data = head + struct.pack("<I", seed) + index + length + struct.pack("<I", zlib.crc32(index + length, seed))
    try:
        directory = parsed(data)
    except FormatError:
        return
    assert directory.size == len(data)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "truncated|does not begin"),
        (b"PK\x03\x04 something else", "does not begin with the magic"),
        (b"\x89BBA\n\x1a\n\x01" + b"\x00" * 50, "text mode"),
        (b"\x89BBA\r\n\x1a\n\x02" + b"\x00" * 50, "version 2; .* newer bbans is needed"),
    ],
)
def test_what_is_no_file_of_ours_is_told_apart(data: bytes, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parsed(data)
