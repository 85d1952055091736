"""Files from batches of rows, buffers and tensors in and out, rows that lie elsewhere."""

from __future__ import annotations

import io
import mmap
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import many_images, random_images, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

import bbans
from bbans.api import choose_model_for
from bbans.codec import Codec
from bbans.model import Model
from bbans.npy import NpyFiles
from bbans.rows import Rows

BINARY, GREY = tiny_model("bernoulli"), tiny_model("discretized-logistic")
coded = partial(bbans.Writer, engine="numpy", threads=2)


def appended(batches: list[np.ndarray], **options: Any) -> bytes:
    file = io.BytesIO()
    with coded(file, **options) as writer:
        for batch in batches:
            writer.append(batch)
    assert writer.written is not None and writer.written.size == len(file.getvalue())
    return file.getvalue()


def compressed(array: np.ndarray, model: Model | None, chunk_size: int | None = None, **options: Any) -> bytes:
    return Codec.of(model, engine="numpy", **options).compress(array, chunk_size)


@given(
    sizes=st.lists(st.integers(0, 17), min_size=1, max_size=6),
    chunk_size=st.sampled_from([None, 1, 4, 10]),
    kind=st.sampled_from(["u1", "?", "255", "blank first", "stored", "no model", "flat"]),
)
@settings(max_examples=8)
def test_the_same_file_as_of_all_rows(sizes: list[int], chunk_size: int | None, kind: str) -> None:
    rows = bbans.sample_images(BINARY, max(1, sum(sizes)))[: sum(sizes)]
    model: Model | None = BINARY
    if kind == "255":
        rows = rows * np.uint8(255)
    elif kind == "blank first":
        rows = np.concatenate([np.zeros((11, 5, 4), "u1"), rows * np.uint8(255)])
    elif kind == "stored":
        rows = np.zeros((len(rows), 9), "<f4")
    elif kind == "no model":
        model = None
    elif kind == "flat":
        rows = rows.reshape(-1, 20).astype("<i8")
    else:
        rows = rows.astype(kind)
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    expected = compressed(rows, model, chunk_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bbans.StoredWarning)
        assert appended(batches, model=model, chunk_size=chunk_size, rows=len(rows)) == expected
        unknown = appended(batches, model=model, chunk_size=chunk_size)
    whole = chunk_size is None or len(rows) <= chunk_size or len(rows) % chunk_size == 0
    assert not whole or unknown == expected
    np.testing.assert_array_equal(bbans.decompress(unknown, model=BINARY), rows)


@pytest.mark.filterwarnings("ignore::bbans.StoredWarning")
def test_groups_of_chunks_are_stored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbans.codec.CHUNK_PIXELS", 20 * 50)
    monkeypatch.setattr("bbans.codec.STORED_CHUNK_BYTES", 8 * 20 * 200)
    images = np.concatenate([np.tile(random_images(GREY, 50), (8, 1, 1)), bbans.sample_images(GREY, 370)]).astype("<f8")
    for total in (600, 770):
        rows = images[:total]
        data = appended(np.split(rows, [3, 77, 500]), model=GREY, rows=total)
        assert data == compressed(rows, GREY)
    assert appended(np.split(images[:600], [3, 77, 500]), model=GREY) == compressed(images[:600], GREY)


def test_chunks_that_do_not_fit_are_stored() -> None:
    images = bbans.sample_images(BINARY, 30)
    images[12] = 7
    with pytest.warns(bbans.StoredWarning, match="10 of 30 rows were stored through zstandard"):
        data = appended([images], model=BINARY, chunk_size=10)
    with bbans.open(data, model=BINARY) as opened:
        assert [chunk.method for chunk in opened.directory.chunks] == [1, 0, 1]
        np.testing.assert_array_equal(opened[:], images)


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer to choose from, which are quick."""
    few = {name: path for name, path in bbans.shipped_models().items() if name.startswith("gg-mnist")}
    monkeypatch.setattr("bbans.api.shipped_models", lambda: few)


@pytest.mark.usefixtures("two_models")
def test_the_model_is_chosen_by_the_first_batch() -> None:
    images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 4)
    assert appended([images[:2], images[2:]]) == bbans.compress(images, engine="numpy")


def test_a_model_may_be_embedded() -> None:
    images = bbans.sample_images(BINARY, 20)
    data = appended([images], model=BINARY, embed_model=True)
    np.testing.assert_array_equal(bbans.decompress(data), images)


def test_the_memory_of_a_batch_may_be_used_again() -> None:
    images = bbans.sample_images(BINARY, 20)
    file, batch = io.BytesIO(), images[:7].copy()
    with coded(file, model=BINARY) as writer:
        writer.append(batch)
        batch[:] = 9
        writer.append(images[7:])
    assert file.getvalue() == compressed(images, BINARY)


@pytest.mark.parametrize(
    ("batches", "rows", "message"),
    [
        ([], None, "nothing was appended"),
        ([np.zeros((3, 5, 4)), np.zeros((3, 5, 4), "u1")], None, "expected rows of float64"),
        ([np.zeros((3, 5, 4)), np.zeros((3, 4, 5))], None, "expected rows of float64"),
        ([np.zeros((3, 5, 4))], 2, "expected 2 rows in all, got 3"),
        ([np.zeros((3, 5, 4))], 4, "expected 4 rows in all, got 3"),
        ([np.float64(3.0)], None, "expected a NumPy array"),
        ([np.array(3.0)], None, "at least one axis"),
    ],
)
def test_what_can_not_be_appended(tmp_path: Path, batches: list[Any], rows: int | None, message: str) -> None:
    def write() -> None:
        with coded(tmp_path / "a.bba", model=BINARY, rows=rows) as writer:
            for batch in batches:
                writer.append(batch)

    with pytest.raises(bbans.ArrayError, match=message):
        write()
    assert not list(tmp_path.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    images = bbans.sample_images(BINARY, 20)
    writer = coded(tmp_path / "a.bba", model=BINARY, chunk_size=5)
    writer.append(images)
    assert not (tmp_path / "a.bba").exists()
    writer.close()
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bba"]
    np.testing.assert_array_equal(bbans.decompress(tmp_path / "a.bba", model=BINARY), images)
    with pytest.raises(bbans.ArrayError, match="complete"):
        writer.append(images)


class TestBuffers:
    """What `.bba` bytes may lie in, and where arrays may go."""

    images = bbans.sample_images(BINARY, 40)
    data = compressed(images, BINARY, 7)

    @pytest.mark.parametrize(
        "holder", [bytes, bytearray, memoryview, io.BytesIO, lambda data: np.frombuffer(data, "u1"), torch.frombuffer]
    )
    def test_bytes_in_anything(self, holder: Callable[[bytes], Any]) -> None:
        held = torch.frombuffer(bytearray(self.data), dtype=torch.uint8).numpy() if holder is torch.frombuffer else None
        source = holder(self.data) if held is None else held
        np.testing.assert_array_equal(bbans.decompress(source, model=BINARY), self.images)
        with bbans.open(source, model=BINARY) as opened:
            np.testing.assert_array_equal(opened[5:9], self.images[5:9])

    def test_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.bba").write_bytes(self.data)
        with open(tmp_path / "a.bba", "rb") as file:
            for _ in range(2):
                np.testing.assert_array_equal(bbans.decompress(file, model=BINARY), self.images)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                np.testing.assert_array_equal(bbans.decompress(mapped, model=BINARY), self.images)
            assert not file.closed

    def test_a_stream_that_can_not_be_searched(self) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

            def seek(self, *arguments: int) -> int:
                raise io.UnsupportedOperation("seek")

        np.testing.assert_array_equal(bbans.decompress(Pipe(self.data), model=BINARY), self.images)

    @pytest.mark.parametrize("source", [3, None, memoryview(b"abcdef")[::2], np.zeros((4, 4), "u1")[:, ::2]])
    def test_what_holds_no_bytes(self, source: Any) -> None:
        with pytest.raises(bbans.ArrayError, match="expected bytes"):
            bbans.decompress(source)

    def test_out(self) -> None:
        larger = np.full((50, 5, 4), 9, np.uint8)
        assert bbans.decompress(self.data, model=BINARY, out=larger[3:43]).base is larger
        np.testing.assert_array_equal(larger[3:43], self.images)
        assert (larger[:3] == 9).all() and (larger[43:] == 9).all()
        tensor = torch.zeros(40, 4, 5, dtype=torch.uint8).transpose(1, 2)
        Codec.of(BINARY, engine="numpy").decompress(self.data, out=tensor.numpy())
        assert torch.equal(tensor, torch.from_numpy(self.images))
        with bbans.open(self.data, model=BINARY) as opened:
            assert opened.read(5, 9, out=larger[:4]) is not None
            np.testing.assert_array_equal(larger[:4], self.images[5:9])
        single = np.zeros((), "<f8")
        bbans.decompress(bbans.compress(np.array(3.5), model=None), out=single)
        assert single == 3.5

    @pytest.mark.parametrize(
        "out",
        [
            np.empty((40, 5, 4), "i1"),
            np.empty((41, 5, 4), "u1"),
            bytearray(800),
            np.broadcast_to(np.uint8(0), (40, 5, 4)),
        ],
    )
    def test_out_that_does_not_fit(self, out: Any) -> None:
        with pytest.raises(bbans.ArrayError, match=r"out= must be a writeable NumPy array, uint8 \(40, 5, 4\)"):
            bbans.decompress(self.data, model=BINARY, out=out)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.int64])
    def test_tensors(self, dtype: torch.dtype) -> None:
        tensor = torch.from_numpy(self.images).to(dtype)
        data = bbans.compress(tensor, model=BINARY, engine="numpy")
        assert data == bbans.compress(tensor.numpy(), model=BINARY, engine="numpy")
        assert torch.equal(torch.from_numpy(bbans.decompress(data, model=BINARY)), tensor)
        assert appended([tensor[:9], tensor[9:]], model=BINARY) == data
        assert Codec.of(BINARY).encode_chunk(tensor) == Codec.of(BINARY).encode_chunk(tensor.numpy())

    @pytest.mark.parametrize("tensor", [torch.zeros(3, requires_grad=True), torch.zeros(3, dtype=torch.bfloat16)])
    def test_tensors_that_are_no_arrays(self, tensor: torch.Tensor) -> None:
        with pytest.raises(bbans.ArrayError, match="a Tensor must lie in the machine's memory"):
            bbans.compress(tensor)

    def test_an_array_that_was_opened_may_be_sent_to_processes(self, tmp_path: Path) -> None:
        (tmp_path / "a.bba").write_bytes(self.data)
        with bbans.open(tmp_path / "a.bba", model=BINARY, engine="numpy") as opened:
            assert (opened.ndim, opened.size) == (3, 800)
            assert opened.chunks == ((6, 7, 7, 6, 7, 7), (5,), (4,)) and sum(opened.chunks[0]) == 40
            with pickle.loads(pickle.dumps(opened)) as again:
                np.testing.assert_array_equal(again[3:9], self.images[3:9])
        with bbans.open(self.data, model=BINARY) as opened, pytest.raises(TypeError, match="by its path"):
            pickle.dumps(opened)


def elsewhere(function: Any, arguments: list[Any]) -> Iterator[Any]:
    """A ``map`` whose function goes through pickle, as to another process."""
    return map(pickle.loads(pickle.dumps(function)), pickle.loads(pickle.dumps(arguments)))


class TestRows:
    """Rows in files, coded elsewhere: the same bytes as of one array."""

    @staticmethod
    def files(folder: Path, array: np.ndarray, cuts: list[int]) -> Rows:
        for number, part in enumerate(np.split(array, cuts)):
            np.save(folder / f"{number}.npy", part)
        return NpyFiles(tuple(sorted(folder.glob("*.npy"))))

    @pytest.mark.parametrize("chunk_size", [None, 7])
    @pytest.mark.parametrize("kind", ["u1", "255", "one image", "stored", "embedded", "no model"])
    def test_the_same_file(self, tmp_path: Path, kind: str, chunk_size: int | None, monkeypatch: Any) -> None:
        monkeypatch.setattr("bbans.codec.CHUNK_PIXELS", 20 * 10)
        monkeypatch.setattr("bbans.codec.STORED_CHUNK_BYTES", 20 * 40)
        array = bbans.sample_images(BINARY, 90)
        if kind == "255":
            array = array * np.uint8(255)
            array[:50] = 0
        elif kind == "embedded":
            array = many_images(BINARY)[:300]
            chunk_size = chunk_size and 50
        elif kind == "stored":
            array[77] = 3
        elif kind == "one image":
            array = array[0]
        codec = Codec.of(None if kind == "no model" else BINARY, engine="numpy", embed_model=kind == "embedded")
        expected, found = io.BytesIO(), io.BytesIO()
        written = codec.write(expected, array, chunk_size)
        rows = self.files(tmp_path, array, [2, 2, 4])
        assert codec.write_rows(found, rows, elsewhere, chunk_size) == written
        assert found.getvalue() == expected.getvalue()

    @pytest.mark.usefixtures("two_models")
    def test_the_same_model_is_chosen(self, tmp_path: Path) -> None:
        images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 30)
        for shaped in (images.reshape(3, 10, 28, 28), images[0]):
            chosen = choose_model_for(self.files(tmp_path, shaped, [1, 4]), elsewhere)
            assert chosen is not None and chosen.name == bbans.choose_model(shaped).name  # type: ignore[union-attr]

    def test_files_as_one_array(self, tmp_path: Path) -> None:
        array = np.arange(60).reshape(20, 3)
        rows = self.files(tmp_path, array, [5, 5, 6, 20])
        assert (rows.shape, rows.dtype) == (array.shape, array.dtype)
        for start in range(21):
            for stop in range(21):
                np.testing.assert_array_equal(rows[start:stop], array[start:stop])
        np.save(tmp_path / "5.npy", np.zeros((3, 4), np.int64))
        with pytest.raises(bbans.ArrayError, match=r"5.npy holds int64 \(3, 4\)"):
            NpyFiles(tuple(sorted(tmp_path.glob("*.npy"))))
