"""What is stored through zstandard comes back bit for bit, and pictures take less so than as they are."""

from __future__ import annotations

import io

import numpy as np
import pytest
import zstandard
from attacks.test_attacks import repelled
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import bbans
from bbans.container import Method, read_directory
from bbans.errors import FormatError
from bbans.fallback import restore, store
from bbans.fields import varint
from bbans.planes import Planes, candidates, join, split

DTYPES = ["|b1", "|u1", "|i1", "<u2", ">u2", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


@given(array=arrays)
def test_every_way_is_undone(array: np.ndarray) -> None:
    """Bytes are compared: there are many kinds of NaN."""
    for planes in candidates(array.dtype, array.shape):
        back = join(split(array, planes), planes, array.dtype, array.shape)
        assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert Planes.of(planes.number, array.dtype, array.ndim) == planes


@given(array=arrays)
def test_what_is_stored_is_restored(array: np.ndarray) -> None:
    back = restore(store(array), array.dtype, array.shape)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_known_answer() -> None:
    """Of a slope the differences are the same everywhere."""
    slope = np.array([[1000, 1003], [1256, 1259]], "<u2")
    assert split(slope, Planes((), False)).hex(" ") == "e8 eb e8 eb 03 03 04 04"
    assert split(slope, Planes((0, 1), False)).hex(" ") == "e8 03 00 00 03 00 01 00"
    assert split(slope, Planes((0,), True)).hex(" ") == "e8 03 e8 03 03 00 04 00"
    assert split(slope.astype(">u2"), Planes((1,), False)) == split(slope, Planes((1,), False))


def scan(bits: int) -> np.ndarray:
    """Two smooth images with a little noise, on so many bits."""
    height, width = np.mgrid[:64, :64]
    light = 0.5 + 0.4 * np.sin(height / 9 + np.arange(2)[:, None, None]) * np.cos(width / 7)
    noise = np.random.default_rng(0).normal(0, 0.004, light.shape)
    return ((light + noise).clip(0, 1) * ((1 << bits) - 1)).astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_scans_take_less(bits: int) -> None:
    array = scan(bits)
    data = bbans.compress(array, model=None)
    assert {chunk.method for chunk in read_directory(io.BytesIO(data)).chunks} == {Method.PLANES}
    assert len(data) < 0.85 * len(zstandard.ZstdCompressor(level=19).compress(array.tobytes()))
    np.testing.assert_array_equal(bbans.decompress(data), array)


def test_what_is_no_picture_is_stored_as_it_is() -> None:
    """Of words that come again, and of types that have no integers of their size."""
    text = np.frombuffer(b"the same words again and again; " * 99, np.uint8)
    assert store(text)[0] is Method.ZSTANDARD
    assert store(np.arange(50) * 1j)[0] is Method.ZSTANDARD


def test_damaged_planes() -> None:
    array = scan(12)[:, :8, :8]
    method, payload = store(array)
    assert method is Method.PLANES
    shape = array.shape

    def use(data: bytes, dtype: str = "<u2", shape: tuple[int, ...] = shape) -> None:
        restore((Method.PLANES, data), np.dtype(dtype), shape)

    frame = payload[1:]
    numbers = [1, 16, 17, 255, 1 << 62]
    assert repelled([(f"number {number}", varint(number) + frame) for number in numbers], use, bounded=True) == 5
    repelled([("nothing", b""), ("no frame", payload[:1]), ("half a frame", payload[:40])], use)
    for dtype, wrong in (("<c8", shape), ("|u1", shape), ("<u2", (3, 8, 8)), ("<f8", shape), ("<f16", (8, 16))):
        with pytest.raises(FormatError):
            use(payload, dtype, wrong)
