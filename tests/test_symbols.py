"""Which arrays fit a model: shapes and values, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from bbans.errors import ArrayError
from bbans.symbols import check_numeric, count_images, find_scale, from_symbols, to_symbols

BITS = np.random.default_rng(0).integers(0, 2, (7, 5, 4))
LEVELS = np.random.default_rng(0).integers(0, 256, (7, 5, 4))


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        ((7, 5, 4), 7), ((5, 4), 1), ((7, 20), 7), ((20,), 1), ((7, 1, 5, 4), 7), ((7, 5, 4, 1), 7), ((2, 3, 5, 4), 6),
        ((0, 5, 4), 0), ((7, 4, 5), None), ((7, 5, 5), None), ((7, 2, 10), None), ((), None), ((7, 5), None),
    ],
)  # fmt: skip
def test_count_images(shape: tuple[int, ...], images: int | None) -> None:
    assert count_images(shape, (5, 4)) == images


@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "<i2", ">i4", "i8", "u8", "f2", "<f4", ">f8"])
@pytest.mark.parametrize("scale", [1, 255])
def test_binary_images_come_in_any_type(dtype: str, scale: int) -> None:
    if scale == 255 and dtype in ("bool", "i1"):
        return  # 255 does not exist there
    array = (BITS * scale).astype(dtype)
    assert find_scale(array, 2) == scale
    symbols = to_symbols(array, scale)
    assert (symbols == BITS).all()
    assert from_symbols(symbols, scale, array.dtype).tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "i8", "u8", "f2", "<f4", ">f8"])
def test_grey_images_come_in_any_type(dtype: str) -> None:
    assert find_scale(LEVELS.astype(dtype), 256) == 1


@pytest.mark.parametrize("value", [-1, 2, 254, 256, 257, 511, 65281, 0.5, -0.0, np.nan, np.inf, -np.inf, 1e300])
def test_what_would_not_come_back_bit_for_bit_does_not_fit(value: float) -> None:
    array = BITS.astype(np.float64)
    array[3, 2, 1] = value
    assert find_scale(array, 2) is None
    if float(value).is_integer() and value != 0:
        assert find_scale(array.astype(np.int64) if abs(value) < 1e18 else array, 2) is None


def test_zeros_and_255_mixed_with_ones_do_not_fit() -> None:
    assert find_scale(np.array([0, 1, 255], np.uint8), 2) is None
    assert find_scale(np.array([0, 0], np.uint8), 2) == 1
    assert find_scale(np.array([0j, 1j]), 2) is None


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}], object), np.zeros(3, "U5"), np.zeros(3, "S5"), np.zeros(3, "M8[s]"),
        np.zeros(3, [("a", "i4")]), [1, 2, 3], "text", None,
    ],
)  # fmt: skip
def test_what_holds_no_numbers_is_refused(array: object) -> None:
    with pytest.raises(ArrayError, match="expected a NumPy array"):
        check_numeric(array)  # type: ignore[arg-type]
