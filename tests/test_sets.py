"""Sets: rows come back sorted, and their order costs nothing."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import random_images, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

import bbans
from bbans import codec as codec_module
from bbans import fallback, sets
from bbans.ans.stack import Stack
from bbans.canonical import SortedBytes, canonical_order, first_of_equals, order_bits, row_bytes
from bbans.chunk import start_stack
from bbans.cli import main
from bbans.codec import Codec
from bbans.container import CODED, read_directory, read_payload
from bbans.intervals import UniformBelow, pop, push
from bbans.intervals.distribution import Distribution, Symbols
from bbans.lehmer import draws_of_places, places_of_draws, smaller_before
from bbans.model import Model, save_model
from bbans.portable.numpy_engine import NumpyEngine

GREY = tiny_model("discretized-logistic")


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stored through zstandard."""
    for module in (codec_module, fallback):
        monkeypatch.setattr(module, "quick_size", lambda data: 1 << 40)


@pytest.fixture
def small_chunks(coded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 30 images of 20 pixels, which are coded."""
    monkeypatch.setattr(codec_module, "CHUNK_PIXELS", 600)


def in_order(array: NDArray[np.generic]) -> list[bytes]:
    """The rows as bytes, sorted as the documentation says, without the library."""
    big = array.astype(array.dtype.newbyteorder(">"))
    order = sorted(range(len(array)), key=lambda row: big[row : row + 1].tobytes())
    return [array[row].tobytes() for row in order]


def assert_sorted(back: NDArray[np.generic], array: NDArray[np.generic]) -> None:
    assert back.dtype == array.dtype and back.shape == array.shape
    assert [row.tobytes() for row in back] == in_order(array)


def repeated(model: Model, count: int) -> NDArray[np.uint8]:
    """Images of which some are there several times, one of them very often."""
    images = bbans.sample_images(model, count)
    rng = np.random.default_rng(5)
    images[rng.integers(0, count, count // 3)] = images[0]
    images[rng.integers(0, count, count // 3)] = images[rng.integers(0, count, count // 3)]
    return images


@given(st.integers(0, 200).flatmap(lambda rows: st.permutations(range(rows))), st.integers(0, 200))
def test_draws_are_places_in_what_is_left(order: list[int], drawn: int) -> None:
    places = np.array(order[:drawn], np.int64)
    left = sorted(order)
    draws = draws_of_places(places)
    assert [left.pop(draw) for draw in draws.tolist()] == places.tolist()
    assert (places_of_draws(draws) == places).all()


@given(arrays(np.int64, st.integers(0, 150), elements=st.integers(0, 40)))
def test_smaller_before(values: NDArray[np.int64]) -> None:
    expected = [sum(earlier < value for earlier in values[:number]) for number, value in enumerate(values)]
    assert smaller_before(values).tolist() == expected


@given(total=st.integers(1, (1 << 31) - 1), data=st.data())
def test_intervals_of_any_number_of_symbols_lie_side_by_side(total: int, data: st.DataObject) -> None:
    symbol = data.draw(st.integers(0, total - 1))
    uniform = UniformBelow(np.full(2, total))
    start, frequency = uniform.interval(np.array([symbol, min(symbol + 1, total - 1)]))
    assert frequency.min() >= 1 and (symbol > 0 or start[0] == 0)
    assert start[1] == start[0] + frequency[0] if symbol + 1 < total else start[0] + frequency[0] == 1 << 31
    for value in (start[0], start[0] + frequency[0] - np.uint64(1)):
        assert uniform.locate(np.full(2, value))[0].tolist() == [symbol, symbol]


@given(rows=arrays(np.uint8, st.tuples(st.integers(1, 30), st.just(2)), elements=st.integers(0, 2)), data=st.data())
def test_rows_are_sorted_in(rows: NDArray[np.uint8], data: st.DataObject) -> None:
    """In any parts, with the places and the numbers of equals that a plain count gives."""
    held = SortedBytes(len(rows), 2)
    while len(held) < len(rows):
        count = data.draw(st.integers(1, len(rows) - len(held)))
        stop = len(held) + count
        held.room(count)[:] = new = rows[len(held) : stop]
        start, alike = held.add(count)
        known = [row.tobytes() for row in rows[:stop]]
        assert start.tolist() == [sum(other < row.tobytes() for other in known) for row in new]
        assert alike.tolist() == [known.count(row.tobytes()) for row in new]
    assert [row.tobytes() for block in held.blocks() for row in block] == in_order(rows)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [1, 2, 29, 31, 150])
def test_what_the_order_costs_is_the_closed_form(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """log2 of n! / (m1! m2! ...), to a millionth of a bit a row, however the set is cut into chunks."""
    images = repeated(GREY, count)
    bits = 0.0

    def information(distribution: Distribution) -> float:
        return float(np.log2(distribution.totals).sum()) if isinstance(distribution, UniformBelow) else 0

    def counted_pop(stack: Stack, distribution: Distribution) -> Symbols:
        nonlocal bits
        bits += information(distribution)
        return pop(stack, distribution)

    def counted_push(stack: Stack, distribution: Distribution, symbols: Symbols) -> None:
        nonlocal bits
        bits -= information(distribution)
        push(stack, distribution, symbols)

    def counted_start(*arguments: Any) -> Stack:
        nonlocal bits
        bits = 0.0
        return start_stack(*arguments)

    monkeypatch.setattr(sets, "start_stack", counted_start)
    monkeypatch.setattr(sets, "pop", counted_pop)
    monkeypatch.setattr(sets, "push", counted_push)
    file = io.BytesIO()
    written = Codec.of(GREY).write(file, images, ordered=False)
    assert len(read_directory(file).chunks) == math.ceil(count / 30)
    multiplicities = Counter(image.tobytes() for image in images).values()
    expected = math.log2(math.factorial(count) / math.prod(map(math.factorial, multiplicities)))
    assert bits == pytest.approx(expected, abs=1e-6 * count)
    assert written.order_bits == pytest.approx(expected, abs=1e-6)


@pytest.mark.usefixtures("coded")
@pytest.mark.parametrize("chunk_pixels", [1 << 22, 784 * 350])
def test_files_are_smaller_by_what_the_order_costs(chunk_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "CHUNK_PIXELS", chunk_pixels)
    model = bbans.load_model("gg-mnist-binary")
    images = bbans.sample_images(model, 1400)
    codec = Codec.of(model)
    saved = 8 * (len(codec.compress(images)) - len(codec.compress(images, ordered=False)))
    assert saved == pytest.approx(order_bits(np.arange(1400)), rel=0.03)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [1, 2, 31, 100])
def test_sets_round_trip(model: Model, count: int) -> None:
    images = repeated(model, count)
    codec = Codec.of(model)
    data = codec.compress(images, ordered=False)
    assert not read_directory(io.BytesIO(data)).header.ordered
    assert_sorted(codec.decompress(data), images)


@given(
    array=st.sampled_from(["?", "i1", "<u2", ">i4", "<f2", "<f8", "<c8"]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    )
)
def test_what_no_model_fits_is_stored_in_order(array: NDArray[np.generic]) -> None:
    back = bbans.decompress(bbans.compress(array, model=None, ordered=False))
    if array.ndim:
        assert_sorted(back, array)
    else:
        assert back.tobytes() == array.tobytes() and back.shape == ()


@pytest.mark.parametrize("dtype", ["bool", "<i2", ">f4", "<f8"])
def test_rows_may_have_any_type_that_fits(binary_model: Model, dtype: str) -> None:
    images = bbans.sample_images(binary_model, 50).astype(dtype)
    codec = Codec.of(binary_model)
    assert_sorted(codec.decompress(codec.compress(images, ordered=False)), images)


@pytest.mark.usefixtures("small_chunks")
def test_rows_of_several_images_stay_together() -> None:
    images = repeated(GREY, 280).reshape(70, 4, 5, 4)
    images[10:20] = images[3]
    codec = Codec.of(GREY)
    data = codec.compress(images, ordered=False)
    assert len(read_directory(io.BytesIO(data)).chunks) == 10
    assert_sorted(codec.decompress(data), images)


@pytest.mark.parametrize("shape", [(5, 4), (20,), (5, 4, 1)])
def test_the_lines_of_one_image_are_no_set(shape: tuple[int, ...]) -> None:
    with pytest.raises(bbans.ArrayError, match="is one image"):
        Codec.of(GREY).compress(random_images(GREY, 1).reshape(shape), ordered=False)


@pytest.mark.usefixtures("small_chunks")
def test_the_same_set_makes_the_same_bytes() -> None:
    """In whatever order it comes, with any engine, core and number of threads."""
    images = repeated(GREY, 100)
    data = set()
    for seed, threads, block in ((0, 1, 512), (1, 2, 7), (2, 5, 1)):
        shuffled = np.random.default_rng(seed).permutation(images)
        codec = Codec.of(GREY, threads=threads, engine=NumpyEngine(block))
        data.add(codec.compress(shuffled, ordered=False))
    compiled = Codec.of(GREY, engine="torch", ans="numpy", device="cpu")
    data.add(compiled.compress(images, ordered=False))
    assert len(data) == 1


@pytest.mark.usefixtures("small_chunks")
def test_compiled_code_makes_the_same_bytes() -> None:
    pytest.importorskip("numba")
    images = repeated(GREY, 100)
    numba, numpy = Codec.of(GREY, engine="numba"), Codec.of(GREY, engine="numpy")
    data = numba.compress(images, ordered=False)
    assert data == numpy.compress(images, ordered=False)
    assert_sorted(numba.decompress(data), images)


@pytest.mark.usefixtures("small_chunks")
def test_equal_images_cost_next_to_nothing(binary_model: Model) -> None:
    """More of them than the images' own bits could pay for."""
    images = np.repeat(bbans.sample_images(binary_model, 2), [400, 1], axis=0)
    codec = Codec.of(binary_model)
    written = codec.write(io.BytesIO(), images, ordered=False)
    assert written.order_bits == pytest.approx(math.log2(401))


@pytest.mark.usefixtures("coded")
def test_cheap_images_are_not_counted_on() -> None:
    """Images that cost far less than those that the model was made of: a plan that counted on more would borrow words
    that are then stored.
    """
    images = np.zeros((300, 5, 4), np.uint8)
    images[np.arange(300), 0, np.arange(300) % 4] = np.arange(300) // 4
    codec = Codec.of(GREY)
    data = codec.compress(images, ordered=False)
    assert_sorted(codec.decompress(data), images)
    file = io.BytesIO(data)
    assert read_payload(file, read_directory(file), 0)[0] < sets.SHARES[0]
    assert len(data) + order_bits(np.arange(300)) / 8 < len(codec.compress(images))


@pytest.mark.usefixtures("small_chunks")
def test_sets_of_given_size_are_parts_of_the_order() -> None:
    images = repeated(GREY, 130)
    codec = Codec.of(GREY)
    file = io.BytesIO(codec.compress(images, chunk_size=50, ordered=False))
    directory = read_directory(file)
    assert [len(block) for block in directory.blocks] == [2, 2, 2]
    expected = images[canonical_order(row_bytes(images))]
    with bbans.open(file, model=GREY) as compressed:
        assert (compressed[40:100:3] == expected[40:100:3]).all()
        assert (compressed[::-1] == expected[::-1]).all()
        assert (compressed[77] == expected[77]).all() and (compressed[-1, 2] == expected[-1, 2]).all()
        assert (np.stack(list(compressed)) == expected).all()
        assert (np.concatenate(list(compressed.blocks(10, 60))) == expected[10:60]).all()


def test_what_zstandard_makes_less_of_is_stored() -> None:
    images = np.repeat(random_images(GREY, 3), 200, axis=0)
    images[:, 0, 0] = np.arange(600) % 256
    codec = Codec.of(GREY, thorough=True)
    data = codec.compress(images, ordered=False)
    assert not {chunk.method for chunk in read_directory(io.BytesIO(data)).chunks} & set(CODED)
    assert_sorted(codec.decompress(data), images)


@pytest.mark.usefixtures("coded")
def test_the_model_travels_in_a_set_too(binary_model: Model) -> None:
    images = bbans.sample_images(binary_model, 400)
    data = bbans.compress(images, model=binary_model, ordered=False, embed_model=True, chunk_size=150)
    header = read_directory(io.BytesIO(data)).header
    assert header.embedded is not None and not header.ordered
    assert (bbans.decompress(data) == images[canonical_order(row_bytes(images))]).all()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("damaged", [0, 2])
def test_damage_costs_a_chunk_and_what_depends_on_it(damaged: int) -> None:
    images = bbans.sample_images(GREY, 100)
    data = bytearray(Codec.of(GREY).compress(images, chunk_size=50, ordered=False))
    directory = read_directory(io.BytesIO(bytes(data)))
    data[directory.chunks[damaged].offset] ^= 1
    expected = images[canonical_order(row_bytes(images))]
    with bbans.open(bytes(data), model=GREY) as compressed:
        outcomes = list(compressed.salvage())
        with pytest.raises(bbans.FormatError, match=f"chunk {damaged} is damaged"):
            compressed.read()
    assert [outcome.rows for outcome in outcomes] == [range(50), range(50, 100)]
    lost, whole = outcomes if damaged == 0 else outcomes[::-1]
    assert whole.error is None and (whole.found == expected[whole.rows.start : whole.rows.stop]).all()
    assert isinstance(lost.error, bbans.FormatError)
    other = sets.plan(25, 1, GREY.image_bits, GREY.latent_bits, 50)[-1].rows
    assert len(lost.found) == other > 10
    theirs = in_order(expected[lost.rows.start : lost.rows.stop])
    assert all(row.tobytes() in theirs for row in lost.found)
    assert [row.tobytes() for row in lost.found] == in_order(lost.found)


@pytest.mark.usefixtures("coded")
def test_memory_is_bounded() -> None:
    data = Codec.of(GREY).compress(bbans.sample_images(GREY, 100), ordered=False)
    with bbans.open(data, model=GREY, max_memory=10_000) as compressed, pytest.raises(bbans.LimitError):
        compressed.read()


@pytest.mark.usefixtures("small_chunks")
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    save_model(GREY, tmp_path / "tiny" / "model.safetensors")
    images = repeated(GREY, 100)
    np.save("images.npy", images)

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exit_code == status, result.output
        return result.output

    model = ("--model", "tiny")
    assert "bytes saved" in run("compress", "images.npy", *model, "--unordered", "--verify")
    run("decompress", "images.npy.bba", *model, "-o", "back.npy")
    assert_sorted(np.load("back.npy"), images)
    run("decompress", "images.npy.bba", *model, "-o", "part.npy", "--select", "20:30")
    assert (np.load("part.npy") == np.load("back.npy")[20:30]).all()
    facts = json.loads(run("info", "images.npy.bba", "--json"))
    assert facts["ordered"] is False and facts["order_bits"] == pytest.approx(math.log2(math.factorial(100)))

    data = bytearray(Path("images.npy.bba").read_bytes())
    data[read_directory(io.BytesIO(bytes(data))).chunks[1].offset] ^= 1
    Path("damaged.bba").write_bytes(bytes(data))
    assert "1 of 1 sets are damaged: the set of chunks 0:4 (rows 0:100)" in run("test", "damaged.bba", *model, status=1)
    assert "lost " in run("decompress", "damaged.bba", *model, "-o", "rest.npy", "--recover", status=2)
    rest = np.load("rest.npy")
    assert 0 < len(rest) < 100 and {row.tobytes() for row in rest} <= {row.tobytes() for row in images}


def test_equal_rows_are_counted_across_blocks() -> None:
    rows = np.repeat(np.arange(5, dtype=np.uint8), [3, 1, 4, 1, 5])[:, None].repeat(1 << 21, axis=1)
    assert first_of_equals(rows, np.arange(14)).tolist() == [0, 0, 0, 3, 4, 4, 4, 4, 8, 9, 9, 9, 9, 9]


def pairs(images: NDArray[np.generic], *others: NDArray[np.generic]) -> list[tuple[bytes, ...]]:
    return sorted(tuple(part[row : row + 1].tobytes() for part in (images, *others)) for row in range(len(images)))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("ordered", [True, False])
def test_companions_stay_with_their_images(ordered: bool) -> None:
    images = repeated(GREY, 100)
    labels, boxes = np.arange(100) % 7, np.random.default_rng(0).normal(size=(100, 2, 2)).astype(">f4")
    companions = {"labels": labels, "boxes": boxes}
    data = bbans.compress(images, model=GREY, ordered=ordered, companions=companions)
    with bbans.open_collection(data, model=GREY) as collection:
        back = [collection[f"{name}.npy"] for name in ("images", "labels", "boxes")]
    assert pairs(*back) == pairs(images, labels, boxes)
    assert ordered == all((found == given).all() for found, given in zip(back, (images, labels, boxes), strict=True))
    shuffled = np.random.default_rng(1).permutation(100)
    again = bbans.compress(
        images[shuffled], model=GREY, ordered=ordered, companions={"labels": labels[shuffled], "boxes": boxes[shuffled]}
    )
    assert (again == data) is not ordered


@pytest.mark.parametrize(
    ("companions", "match"),
    [
        ({"labels": np.arange(4)}, "it needs a row for each"),
        ({"labels": np.array(3)}, "it needs a row for each"),
        ({"images": np.arange(5)}, "give it one of its own"),
        ({"a/b": np.arange(5)}, "give it one of its own"),
        ({"names": np.array(list("abcde"))}, "expected a NumPy array"),
    ],
)
def test_companions_must_go_with_the_images(companions: dict[str, NDArray[np.generic]], match: str) -> None:
    with pytest.raises(bbans.ArrayError, match=match):
        bbans.compress(random_images(GREY, 5), model=GREY, companions=companions)


def test_companions_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.arange(60, dtype="<f8").reshape(20, 3)[::-1] % 17, np.arange(20)
    np.save("images.npy", images)
    np.save("labels.npy", labels)

    def run(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(main, list(arguments))
        assert result.exit_code == status, result.output
        return result.output

    compress = ("compress", "images.npy", "--with", "labels.npy", "--model", "none", "--unordered", "-o", "both.bba")
    run(*compress, "--rm")
    assert not Path("images.npy").exists() and not Path("labels.npy").exists()
    run("test", "both.bba")
    assert "a set" in run("info", "both.bba")
    run("decompress", "both.bba", "-o", "both")
    back = np.load("both/images.npy"), np.load("both/labels.npy")
    assert_sorted(back[0], images)
    assert pairs(*back) == pairs(images, labels)
    np.save("few.npy", np.arange(3))
    assert "a row for each" in run("compress", "both/images.npy", "--with", "few.npy", "-o", "no.bba", status=1)
    assert "have names" in run("compress", "both", "--unordered", "-o", "no.bba", status=2)
    assert not Path("no.bba").exists()


@pytest.mark.usefixtures("small_chunks")
def test_damaged_payloads_are_refused() -> None:
    """Where checksums of the file would not have told."""
    rows = repeated(GREY, 40).reshape(40, -1)
    rows = rows[canonical_order(rows)]
    coder = Codec.of(GREY, threads=1, engine="numpy").set_coder(GREY.pixels, 2)
    sizes = [20, 20]
    payloads = coder.encode(lambda places: rows[places], first_of_equals(rows, np.arange(40)), sizes)
    assert np.concatenate(list(coder.decode(payloads, sizes).blocks())).tolist() == rows.tolist()
    for chunk, position in [(0, 0), (1, 0), *((chunk, 1 + 37 * step) for chunk in (0, 1) for step in range(8))]:
        damaged = [bytearray(payload) for payload in payloads]
        damaged[chunk][position] ^= 4
        with pytest.raises(bbans.FormatError):
            coder.decode([bytes(payload) for payload in damaged], sizes)
    for wrong in ([payloads[1], payloads[0]], [payloads[0], payloads[0]], [payloads[0], b""], [payloads[0], b"\x08"]):
        with pytest.raises(bbans.FormatError):
            coder.decode(wrong, sizes)
