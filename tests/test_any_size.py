"""Models for images of any size, as users meet them: files, folders, other software, the command line."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_local_model
from PIL import Image
from test_cli import fail, succeed

import bbans
from bbans.codec import Codec
from bbans.container import Method, read_directory
from bbans.embedded import embed
from bbans.folders import compress_files, open_collection
from bbans.model import FILE_NAME, Model, load_model, save_model

GREY, COLOUR = tiny_local_model(1), tiny_local_model(3)


@pytest.fixture(autouse=True)
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained models make more of images than zstandard does; they are used all the same."""
    monkeypatch.setattr("bbans.codec.stored_if_smaller", lambda *_: None)
    monkeypatch.setattr(Codec, "_stored_if_smaller", lambda *_: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds both models."""
    monkeypatch.chdir(tmp_path)
    for name, model in (("grey", GREY), ("colour", COLOUR)):
        Path(name).mkdir()
        save_model(model, Path(name, FILE_NAME))
    return tmp_path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def methods(data: bytes) -> set[Method]:
    return {chunk.method for chunk in read_directory(io.BytesIO(data)).chunks}


def test_shapes_that_images_have() -> None:
    for model, shape, image_shape in [
        (COLOUR, (7, 8, 3), (7, 8, 3)),
        (COLOUR, (5, 7, 8, 3), (7, 8, 3)),
        (COLOUR, (2, 5, 7, 8, 3), (7, 8, 3)),
        (COLOUR, (7, 8, 4), (7, 8, 4)),
        (COLOUR, (7, 8), (0, 0, 3)),
        (COLOUR, (5, 7, 8, 2), (0, 0, 3)),
        (COLOUR, (0, 8, 3), (0, 0, 3)),
        (GREY, (7, 8), (7, 8)),
        (GREY, (5, 7, 8), (7, 8)),
        (GREY, (5, 7, 8, 2), (7, 8, 2)),
        (GREY, (7, 8, 1), (7, 8)),
        (GREY, (5, 7, 8, 1), (7, 8)),
        (GREY, (5,), (0, 0)),
        (GREY, (), (0, 0)),
    ]:
        fitted = model.fitted_to(shape)
        assert fitted.image_shape == image_shape
        assert fitted.identity("none") == model.identity("none")
        assert fitted.fitted_to(shape) is fitted and fitted.fitted_to(()).image_shape == model.image_shape
    binary = load_model("gg-mnist-binary")
    assert binary.fitted_to((7, 8)) is binary and not binary.any_size


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (COLOUR, (9, 8, 3)),
        (COLOUR, (3, 9, 8, 3)),
        (COLOUR, (2, 2, 9, 8, 3)),
        (COLOUR, (3, 9, 8, 4)),
        (COLOUR, (1, 1, 3)),
        (GREY, (9, 8)),
        (GREY, (3, 9, 8)),
        (GREY, (3, 9, 8, 1)),
        (GREY, (9, 8, 1)),
        (GREY, (3, 9, 8, 2)),
        (GREY, (9, 8, 2)),
        (GREY, (5, 9, 1)),
        (GREY, (5, 1, 9)),
    ],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else value.shape_text,
)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_files(model: Model, shape: tuple[int, ...], chunk_size: int | None) -> None:
    """At once and row by row, with the model in them or not."""
    array = noise(*shape)
    data = bbans.compress(array, model=model, chunk_size=chunk_size)
    assert methods(data) == {Method.BITS_BACK}
    with bbans.open(data, model=model) as compressed:
        assert compressed.shape == shape
        np.testing.assert_array_equal(compressed[:], array)
        np.testing.assert_array_equal(compressed[-1:], array[-1:])
        cost = bbans.bits_of_pixels(compressed)
        assert cost.pixels.shape == shape and (cost.latents == 0).all() and not np.isnan(cost.pixels).any()
    file = io.BytesIO()
    with bbans.Writer(file, model=model, chunk_size=chunk_size) as writer:
        for row in array:
            writer.append(row[None])
    assert methods(file.getvalue()) == {Method.BITS_BACK}
    np.testing.assert_array_equal(bbans.decompress(file.getvalue(), model=model), array)
    codec = Codec.of(model)
    chunk = codec.encode_chunk(array)
    assert chunk[0] == 1
    np.testing.assert_array_equal(codec.decode_chunk(chunk, shape, "u1"), array)


def test_what_does_not_fit_is_stored() -> None:
    for model, array in [(COLOUR, noise(9, 8)), (COLOUR, noise(9, 8, 2)), (GREY, noise(7)), (GREY, noise(9, 8) + 1.5)]:
        with pytest.warns(bbans.StoredWarning, match="model tiny-local does not fit"):
            data = bbans.compress(array, model=model)
        np.testing.assert_array_equal(bbans.decompress(data), array)
    empty = np.zeros((0, 9, 8), np.uint8)
    with pytest.warns(bbans.StoredWarning):
        data = bbans.compress(empty, model=GREY)
    assert bbans.decompress(data).shape == empty.shape


def test_threads_and_processes() -> None:
    array = noise(5, 20, 12, 3)
    codec = Codec.of(COLOUR, threads=1)
    data = codec.compress(array, 2)
    several = pickle.loads(pickle.dumps(Codec.of(COLOUR, threads=3)))
    assert several.compress(array, 2) == data
    np.testing.assert_array_equal(several.decompress(data), array)


@pytest.mark.parametrize("model", [GREY, COLOUR], ids=["grey", "colour"])
def test_saved_and_embedded(model: Model, tmp_path: Path) -> None:
    save_model(model.fitted_to((7, 8, 3)), tmp_path / FILE_NAME)
    again = load_model(tmp_path)
    assert again.identity("none") == model.identity("none") and again.image_shape == model.image_shape
    assert embed(again, "none") == embed(model.fitted_to((9, 9, 3)), "none")
    with pytest.raises(bbans.ModelError, match="no posterior 'amortized'"):
        embed(model, "amortized")
    array = noise(2, 9, 8, *model.image_shape[2:])
    data = bbans.compress(array, model=model, embed_model=True)
    assert methods(data) == {Method.BITS_BACK}
    np.testing.assert_array_equal(bbans.decompress(data), array)


def test_drawing_is_reproducible() -> None:
    for model in (GREY, COLOUR):
        fitted = model.fitted_to((9, 7, 3)[: len(model.image_shape)])
        drawn = bbans.sample_images(fitted, 3, seed=1)
        assert drawn.shape == (3, *fitted.image_shape) and drawn.dtype == np.uint8
        assert (drawn == bbans.sample_images(fitted, 3, seed=1)).all()
        assert (drawn != bbans.sample_images(fitted, 3, seed=2)).any() and (drawn[0] != drawn[1]).any()
    assert (bbans.sample_images(COLOUR.fitted_to((9, 7, 4)), 2)[..., 3] == 255).all()


def test_zarr(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    from bbans.integrations.zarr import BitsBack

    for number, (model, shape, chunks) in enumerate(
        [(COLOUR, (20, 17, 3), (8, 9, 3)), (GREY, (20, 17), (8, 9)), (GREY, (3, 20, 17), (1, 8, 9))]
    ):
        array = noise(*shape)
        zarr.create_array(
            tmp_path / str(number), data=array, chunks=chunks, serializer=BitsBack(model), compressors=None
        )
        found = zarr.open_array(tmp_path / str(number), mode="r")
        np.testing.assert_array_equal(found[:], array)
        np.testing.assert_array_equal(found[3:19:4], array[3:19:4])
    with pytest.raises(bbans.ArrayError, match=r"takes images of shape \(any, any, 3\)"):
        zarr.create_array(tmp_path / "no", data=noise(9, 8), serializer=BitsBack(COLOUR), compressors=None)


def test_numcodecs() -> None:
    numcodecs = pytest.importorskip("numcodecs")
    from bbans.integrations.numcodecs import BitsBack

    codec = BitsBack(COLOUR)
    for array in (noise(9, 8, 3), noise(2, 9, 8, 4), np.asfortranarray(noise(9, 8, 3)), noise(9, 8, 3).astype(">i2")):
        np.testing.assert_array_equal(codec.decode(codec.encode(array)), array)
    shipped = BitsBack("photo")
    config = json.loads(json.dumps(shipped.get_config()))
    assert config["posterior"] == "none" and numcodecs.get_codec(config) == shipped


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Of all kinds and several sizes, in two folders."""
    found = {
        "a.png": noise(9, 8, 3),
        "b.png": noise(16, 5, 3),
        "deep/a.png": noise(9, 8, 3)[::-1],
        "deep/opaque.png": noise(9, 8, 4),
        "deep/line.webp": noise(1, 9, 3),
        "grey.png": noise(9, 8),
        "grey.tif": noise(3, 8),
    }
    for name, pixels in found.items():
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **({"lossless": True} if name.endswith("webp") else {}))
    return found


def test_collections(folder: Path) -> None:
    found = pictures(folder)
    for name in ("grey.png", "grey.tif"):
        (folder / "pictures" / name).unlink()
        del found[name]
    compress_files("pictures", "pictures.bba", model=COLOUR, verify=True)
    with open_collection("pictures.bba", model=COLOUR) as collection:
        assert set(collection) == set(found)
        for name, pixels in found.items():
            np.testing.assert_array_equal(collection[name], pixels)
    with pytest.raises(bbans.ModelError, match="tiny-local"), open_collection("pictures.bba") as collection:
        collection["a.png"]


def test_the_command_line(folder: Path) -> None:
    """Pictures of different sizes there and back with their names; what a file is, and where its bits went."""
    found = pictures(folder)
    succeed("compress", "pictures", "-o", "pictures.bba", "-q", "--verify")  # whatever is shipped
    succeed("decompress", "pictures.bba", "-o", "back", "-q")
    for name, pixels in found.items():
        with Image.open(folder / "back" / name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)

    np.save("one.npy", noise(30, 40, 3))
    succeed("compress", "one.npy", "-q", "--model", "colour")
    assert "tiny-local" in succeed("info", "one.npy.bba").stdout
    facts = json.loads(succeed("info", "one.npy.bba", "--json").stdout)
    assert "none" in json.dumps(facts)
    succeed("show", "one.npy.bba", "--model", "colour")
    with Image.open("one.npy.bba.png") as sheet:
        assert sheet.width > 40
    succeed("decompress", "one.npy.bba", "-o", "again.npy", "-q", "--model", "colour")
    np.testing.assert_array_equal(np.load("again.npy"), np.load("one.npy"))
    assert "keep" in fail("compress", "one.npy", "--unordered", "--model", "colour", "-o", "set.bba")
    assert "2 steps" in fail("compress", "one.npy", "--steps", 2, "--model", "colour", "-o", "steps.bba")


def test_damaged_files_are_refused(folder: Path) -> None:
    data = bbans.compress(noise(9, 8, 4), model=COLOUR)
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 4
        with pytest.raises(bbans.BbansError):
            bbans.decompress(bytes(damaged), model=COLOUR)


def test_models_and_samples_from_the_command_line(folder: Path) -> None:
    listed = succeed("models").stdout
    assert listed.count("any size") == 2
    rows = {row["name"]: row for row in json.loads(succeed("models", "--json").stdout)}
    assert rows["photo"]["image_shape"] == [0, 0, 3] and list(rows["photo"]["posteriors"]) == ["none"]
    assert "say which with --size" in fail("sample", "colour", "-o", "drawn.npy")
    succeed("sample", "colour", "--size", 4, 7, "-n", 2, "-o", "drawn.npy")
    assert np.load("drawn.npy").shape == (2, 4, 7, 3)


def test_small_and_odd_arrays_are_left_to_others() -> None:
    """What suits an array best is no model for photographs where nothing is a photograph."""
    for array in (noise(3, 9, 9), noise(4, 15, 200), noise(200, 15, 3)):
        chosen = bbans.choose_model(array)
        assert chosen is None or not chosen.any_size
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 48, 3))
    chosen = bbans.choose_model(np.ascontiguousarray(smooth))
    assert chosen is not None and chosen.name == "photo"
    chosen = bbans.choose_model(np.ascontiguousarray(smooth[..., 0]))
    assert chosen is not None and chosen.name == "photo-grey"
