"""Arrays to bytes and back, through the library."""

from __future__ import annotations

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zstandard
from conftest import random_images, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import bbans
from bbans import fallback
from bbans.codec import Codec
from bbans.container import read_directory
from bbans.model import Model, save_model
from bbans.portable.numpy_engine import NumpyEngine

NUMERIC = ["?", "i1", "<u2", ">i4", "<u8", "<f2", ">f4", "<f8", "<c8", ">c16"]


def assert_same(back: np.ndarray, array: np.ndarray) -> None:
    assert back.shape == array.shape
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


@given(
    array=st.sampled_from(NUMERIC).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
    )
)
def test_any_numeric_array_round_trips(array: np.ndarray) -> None:
    data = bbans.compress(array, model=None)
    assert_same(bbans.decompress(data), array)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 300])
def test_images_round_trip(model: Model, count: int) -> None:
    images = bbans.sample_images(model, max(count, 1))[:count]
    codec = Codec.of(model)
    data = codec.compress(images)
    assert_same(codec.decompress(data), images)
    assert read_directory(io.BytesIO(data)).header.model == (codec.reference if count else None)


@pytest.mark.parametrize("shape", [(30, 20), (30, 1, 5, 4), (5, 6, 5, 4), (5, 4), (20,), (1, 5, 4)])
def test_images_may_be_shaped_in_many_ways(binary_model: Model, shape: tuple[int, ...]) -> None:
    images = bbans.sample_images(binary_model, 30).ravel()[: int(np.prod(shape))].reshape(shape)
    codec = Codec.of(binary_model)
    for dtype, scale in (("bool", 1), ("u1", 255), (">f4", 1), ("<i8", 255)):
        array = (images.astype(np.int64) * scale).astype(dtype)
        assert_same(codec.decompress(codec.compress(array)), array)


def test_memory_layout_does_not_matter(binary_model: Model) -> None:
    codec = Codec.of(binary_model)
    images = bbans.sample_images(binary_model, 40)
    data = codec.compress(images)
    assert codec.compress(np.asfortranarray(images)) == data
    assert codec.compress(np.repeat(images, 2, axis=0)[::2]) == data
    readonly = images.copy()
    readonly.flags.writeable = False
    assert codec.compress(readonly) == data


def test_bytes_do_not_depend_on_threads_and_batches(model: Model) -> None:
    images = bbans.sample_images(model, 200)
    data = {
        Codec.of(model, threads=threads, engine=NumpyEngine(block)).compress(images, chunk_size=30)
        for threads, block in ((1, 512), (2, 7), (5, 1))
    }
    assert len(data) == 1


def test_a_codec_may_be_shared_by_threads(binary_model: Model) -> None:
    codec = Codec.of(binary_model, threads=2)
    sets = [bbans.sample_images(binary_model, 50, seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for images, back in zip(sets, pool.map(lambda x: codec.decompress(codec.compress(x, 20)), sets), strict=True):
            assert_same(back, images)


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_a_codec_may_be_sent_to_processes(model: Model, start: str) -> None:
    """While this process has used it from several threads."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    parts = np.split(bbans.sample_images(model, 8), 2)
    codec = Codec.of(model, engine="numpy", threads=1)
    with ThreadPoolExecutor(2) as threads:
        expected = list(threads.map(codec.compress, parts))
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(2, context) as processes:
        assert list(processes.map(codec.compress, parts)) == expected
        for back, part in zip(processes.map(codec.decompress, expected), parts, strict=True):
            assert_same(back, part)


def test_what_a_model_would_expand_is_stored() -> None:
    """The same image many times: zstandard sees that, the model can't."""
    model = tiny_model("discretized-logistic")
    images = np.repeat(random_images(model, 1), 500, axis=0)
    codec = Codec.of(model, thorough=True)
    written = codec.write(io.BytesIO(), images)
    data = codec.compress(images)
    assert len(data) < len(bbans.compress(images, model=None)) + 100
    assert written.note is not None and "500 of 500 rows are smaller through zstandard" in written.note
    assert_same(codec.decompress(data), images)


def test_how_thoroughly_zstandard_is_tried() -> None:
    """Between what levels 3 and 19 make of it: who names a model gets it, who leaves the choice gets less."""
    images = bbans.sample_images(bbans.load_model("gg-mnist"), 60)
    quick = fallback.quick_size(images)
    full = fallback.store(images)
    assert len(full[1]) < quick
    for size in (len(full[1]) + 1, quick - 1):
        assert fallback.stored_if_smaller(images, size, thorough=True) == full
        assert fallback.stored_if_smaller(images, size, thorough=False) is None
    assert fallback.stored_if_smaller(images, quick, thorough=False) == full
    assert fallback.stored_if_smaller(images, len(full[1]), thorough=True) is None


def test_storing_costs_no_more_than_zstandard_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that are better off stored are stored together, so that zstandard sees what they share."""
    monkeypatch.setattr("bbans.codec.CHUNK_PIXELS", 20 * 50)
    model = tiny_model("discretized-logistic")
    images = np.tile(random_images(model, 100), (10, 1, 1))
    codec = Codec.of(model, thorough=True)
    data = codec.compress(images)
    assert len(data) <= len(zstandard.ZstdCompressor(level=19).compress(images.tobytes())) + 80
    assert_same(codec.decompress(data), images)


def test_the_user_is_told_when_a_model_does_not_fit(binary_model: Model) -> None:
    with pytest.warns(bbans.StoredWarning, match="model tiny does not fit"):
        data = bbans.compress(np.zeros((3, 9, 9)), model=binary_model)
    assert bbans.decompress(data).shape == (3, 9, 9)
    with pytest.warns(bbans.StoredWarning, match="no model fits"):
        bbans.compress(np.zeros((3, 9, 9)) + 0.5)


def test_incompressible_data_costs_a_few_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    assert len(bbans.compress(noise, model=None)) < 100_080


class TestOpen:
    """Reading parts of an array."""

    images = bbans.sample_images(tiny_model("bernoulli"), 100)

    @pytest.fixture
    def opened(self, binary_model: Model, tmp_path: Path) -> bbans.CompressedArray:
        path = tmp_path / "images.bba"
        path.write_bytes(Codec.of(binary_model).compress(self.images, chunk_size=13))
        with bbans.open(path, model=binary_model) as compressed:
            yield compressed  # type: ignore[misc]

    def test_attributes(self, opened: bbans.CompressedArray) -> None:
        assert (len(opened), opened.shape, opened.dtype) == (100, (100, 5, 4), np.uint8)

    @pytest.mark.parametrize(
        "key",
        [
            0, 99, -1, -100, np.int64(50), slice(None), slice(10, 20), slice(-5, None), slice(90, 200), slice(20, 10),
            slice(5, 80, 7), slice(None, None, -1), slice(80, 5, -7), slice(3, None, -1), (4, 2), (slice(2, 9), 1, 2),
            (slice(None, None, -3), slice(1, 3)), Ellipsis, (Ellipsis, 1), [3, 1, 2], slice(0, 0, -1), slice(5, 5),
        ],
    )  # fmt: skip
    def test_indexing_is_that_of_the_array(self, opened: bbans.CompressedArray, key: object) -> None:
        np.testing.assert_array_equal(opened[key], self.images[key])  # type: ignore[index]

    @pytest.mark.parametrize("key", [100, -101, 10**30])
    def test_rows_that_are_not_there(self, opened: bbans.CompressedArray, key: int) -> None:
        with pytest.raises(IndexError):
            opened[key]

    def test_iteration(self, opened: bbans.CompressedArray) -> None:
        np.testing.assert_array_equal(np.stack(list(opened)), self.images)

    def test_a_slice_reads_only_its_chunks(self, binary_model: Model, tmp_path: Path) -> None:
        data = bytearray(Codec.of(binary_model).compress(self.images, chunk_size=10))
        directory = read_directory(io.BytesIO(data))
        data[directory.chunks[0].offset] ^= 1
        with bbans.open(bytes(data), model=binary_model) as compressed:
            np.testing.assert_array_equal(compressed[10:], self.images[10:])
            with pytest.raises(bbans.FormatError, match="chunk 0 is damaged"):
                compressed[9:11]

    def test_a_row_may_be_changed_without_harm(self, opened: bbans.CompressedArray) -> None:
        opened[3][:] = 1
        np.testing.assert_array_equal(opened[3], self.images[3])


def test_a_file_needs_its_own_model(binary_model: Model, tmp_path: Path) -> None:
    data = Codec.of(binary_model).compress(bbans.sample_images(binary_model, 5))
    with pytest.raises(bbans.ModelError, match="the file needs model tiny: there is no model 'tiny'"):
        bbans.decompress(data)
    with pytest.raises(bbans.ModelError, match=r"written with model tiny.* what is loaded is tiny"):
        bbans.decompress(data, model=tiny_model("discretized-logistic"))
    save_model(binary_model, tmp_path / "model.safetensors")
    assert bbans.decompress(data, model=tmp_path).shape == (5, 5, 4)


@pytest.mark.parametrize("kind", ["bernoulli", "discretized-logistic"])
def test_every_damaged_byte_is_found(kind: str) -> None:
    """Flips and truncations of a whole file, stored chunks too, never end in other pixels."""
    model = tiny_model(kind)
    codec = Codec.of(model, threads=1)
    for array in (bbans.sample_images(model, 9), np.arange(40.0)):
        data = codec.compress(array)
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << position % 8
            with pytest.raises(bbans.BbansError):
                codec.decompress(bytes(damaged))
            with pytest.raises(bbans.BbansError):
                codec.decompress(data[:position])
