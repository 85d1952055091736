"""Collections: every byte is as docs/format.md says, every other byte is refused, and damage stays in its member."""

from __future__ import annotations

import io
import struct
import threading
import zlib

import numpy as np
import pytest
import zstandard
from attacks.forge import claiming, collection, collection_forgeries, flips, truncations, varint
from attacks.test_attacks import repelled
from hypothesis import given
from hypothesis import strategies as st

import bbans
from bbans.collection import (
    CollectionWriter,
    Contents,
    FileFormat,
    Form,
    NamedFile,
    Role,
    member_file,
    read_contents,
    read_member,
)
from bbans.container import Directory, read_payload
from bbans.errors import FormatError

PNG, TIFF = Form(FileFormat.PNG), Form(FileFormat.TIFF, rows=2)
GREY = bbans.compress(np.arange(60, dtype=np.uint8).reshape(3, 4, 5), model=None)
NUMBERS = bbans.compress(np.arange(7.0), model=None, chunk_size=3)
FILES = (NamedFile("a.png", PNG), NamedFile("b/a.tif", TIFF))


def written(*members: tuple[str, Role, bytes, tuple[NamedFile, ...]]) -> bytes:
    file = io.BytesIO()
    writer = CollectionWriter(file)
    for name, role, data, files in members:
        with writer.member(name, role, files) as part:
            part.write(data)
    assert writer.finish() == len(file.getvalue())
    return file.getvalue()


BOTH = written(("grey", Role.FILES, GREY, FILES), ("numbers", Role.ARRAY, NUMBERS, ()))


def read_all(data: bytes) -> tuple[Contents, list[Directory]]:
    """Everything there is, with all checksums."""
    file, lock = io.BytesIO(data), threading.Lock()
    contents = read_contents(file)
    directories = []
    for member in contents.members:
        part = member_file(file, lock, member)
        directories.append(read_member(part, member))
        for number in range(len(directories[-1].chunks)):
            read_payload(part, directories[-1], number)
    return contents, directories


def test_known_answer() -> None:
    """A whole file, byte by byte."""
    table = b"\x02" + b"\x04grey" + b"\x01" + varint(len(GREY)) + GREY[-4:]
    table += (
        b"\x02" + b"\x0d" + b"a.png\0b/a.tif" + b"\x02" + b"\x01\x01\0\0" + b"\x02\x02\0\0" + b"\0\x01" + b"\x01\x01"
    )
    table += b"\x07numbers" + b"\x00" + varint(len(NUMBERS)) + NUMBERS[-4:]
    head = b"\x89BBA\r\n\x1a\n" + b"\x01" + b"\x01" + b"\x04"
    seed = zlib.crc32(head)
    packed = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(table)
    length = struct.pack("<I", len(packed))
    footer = length + struct.pack("<I", zlib.crc32(packed + length, seed))
    assert head + struct.pack("<I", seed) + GREY + NUMBERS + packed + footer == BOTH


def test_what_is_written_is_read() -> None:
    contents, directories = read_all(BOTH)
    assert [member.name for member in contents.members] == ["grey", "numbers"]
    assert contents.members[0].files == FILES and contents.members[1].role is Role.ARRAY
    assert [directory.shape for directory in directories] == [(3, 4, 5), (7,)]
    assert contents.size == len(BOTH)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=9).filter(
    lambda name: name not in (".", "..")
)


@given(paths=st.lists(names, min_size=1, max_size=9, unique=True), rows=st.lists(st.integers(0, 3), min_size=9))
def test_any_names_are_read_back(paths: list[str], rows: list[int]) -> None:
    files = tuple(
        NamedFile("folder/" * (count % 2) + path, Form(FileFormat.NPY, count))
        for path, count in zip(paths, rows, strict=False)
        if path != "folder"
    )
    if not files:
        return
    array = np.zeros((sum(file.form.rows for file in files), 2), np.uint8)
    data = written(("x", Role.FILES, bbans.compress(array, model=None), files))
    assert read_all(data)[0].members[0].files == files


def test_every_flipped_bit_and_truncation_is_found() -> None:
    assert repelled(flips(BOTH), read_all) == len(BOTH)
    assert repelled(truncations(BOTH), read_all) == len(BOTH) + 3


def test_damage_stays_in_its_member() -> None:
    """Even if it is the header."""
    for position in (12, 20, 30, len(GREY)):
        damaged = BOTH[: position + 4] + bytes([BOTH[position + 4] ^ 1]) + BOTH[position + 5 :]
        file = io.BytesIO(damaged)
        _, numbers = read_contents(file).members
        assert read_member(member_file(file, threading.Lock(), numbers), numbers).shape == (7,)


def test_members_in_the_wrong_place() -> None:
    """Of one length and with one header each."""
    first, second = (bbans.compress(np.array([n, 7], np.uint8), model=None) for n in (1, 2))
    assert len(first) == len(second)
    data = written(("first", Role.ARRAY, first, ()), ("second", Role.ARRAY, second, ()))
    exchanged = data.replace(first + second, second + first)
    assert exchanged != data
    assert repelled([("exchanged", exchanged), ("twice", data.replace(second, first))], read_all) == 2


def test_forgeries() -> None:
    """All checksums are right here, as an attacker would have them."""
    assert read_all(collection([(b"grey", 1, GREY, FORGED_FILES)]))
    attacks = collection_forgeries(GREY, NUMBERS)
    assert repelled(attacks, read_all, bounded=True) > 60


FORGED_FILES = b"\x03" + b"\x05a\0b\0c" + b"\x01" + b"\x01\x01\0\0" + b"\0\x03"


def test_a_table_that_is_a_bomb() -> None:
    packed = zstandard.ZstdCompressor().compress(b"\xff" * (1 << 24))
    bombs = [("never ends", packed), ("claims much", claiming(1 << 40)), ("claims little", claiming(1 << 27))]
    assert repelled([(name, collection([], packed=table)) for name, table in bombs], read_all, bounded=True) == 3


@given(table=st.binary(max_size=60))
def test_noise_with_valid_checksums_is_refused_or_read(table: bytes) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(table)
    with pytest.raises(FormatError):
        read_contents(io.BytesIO(collection([], packed=packed)))


@pytest.mark.parametrize(
    ("paths", "match"),
    [
        (["../a"], "can't have the name"),
        (["a/../b"], "can't have the name"),
        (["/a"], "can't have the name"),
        (["a//b"], "can't have the name"),
        (["a/"], "can't have the name"),
        (["."], "can't have the name"),
        (["a\\b"], "can't have the name"),
        ([""], "can't have the name"),
        (["a", "b", "a"], "two files"),
        (["a", "a/b"], "a folder too"),
        (["\udc80"], "not Unicode"),
        (["numbers.npy"], "two files"),
        ([], "no files"),
    ],
)
def test_names_that_would_lead_elsewhere_are_not_written(paths: list[str], match: str) -> None:
    files = tuple(NamedFile(path, PNG) for path in paths)
    with pytest.raises(FormatError, match=match):
        written(("x", Role.FILES, GREY, files), ("numbers", Role.ARRAY, NUMBERS, ()))


def test_an_array_is_no_collection_and_a_collection_no_array() -> None:
    with pytest.raises(FormatError, match="an array, not a collection"):
        read_contents(io.BytesIO(GREY))
    with pytest.raises(FormatError, match="a collection of arrays, not one"):
        bbans.decompress(BOTH)
    with pytest.raises(FormatError, match="members"):
        written()
