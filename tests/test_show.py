"""Where the bits went, and the picture of it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ENGINES, SHAPE, random_images, tiny_context_model
from PIL import Image
from test_cli import fail, succeed

import bbans
from bbans.codec import Codec
from bbans.container import Header, Method, write
from bbans.fallback import store
from bbans.model import Model
from bbans.portable.engine import Engine
from bbans.reader import CompressedArray
from bbans.show import draw_sheet, shown_of


def opened(codec: Codec, images: np.ndarray, chunk_size: int | None = None) -> CompressedArray:
    return CompressedArray(io.BytesIO(codec.compress(images, chunk_size)), codec)


def test_bits_are_those_of_the_file(model: Model) -> None:
    """For every kind of model, pixels and latents make up the payload, but for its overhead."""
    codec = Codec.of(model, engine="numpy", threads=1)
    images = bbans.sample_images(model, 6)
    with opened(codec, images, chunk_size=2) as compressed:
        cost = bbans.bits_of_pixels(compressed)
        chunks = compressed.directory.chunks
        assert {chunk.method for chunk in chunks} == {Method.BITS_BACK}
        assert cost.pixels.shape == images.shape and cost.latents.shape == (6,)
        assert (cost.pixels >= 0).all()
        for number, chunk in enumerate(chunks):
            rows = slice(2 * number, 2 * number + 2)
            total = cost.pixels[rows].sum() + cost.latents[rows].sum()
            assert 0 < 8 * chunk.length - total < 300
        part = bbans.bits_of_pixels(compressed, 1, 5)
        np.testing.assert_array_equal(part.pixels, cost.pixels[1:5])
        np.testing.assert_array_equal(part.latents, cost.latents[1:5])


@pytest.mark.parametrize("engine", ENGINES[1:], ids=lambda engine: engine.name)
def test_all_engines_say_the_same(engine: Engine) -> None:
    model = tiny_context_model("bernoulli")
    images = bbans.sample_images(model, 5)
    found = []
    for own in (ENGINES[0], engine):
        with opened(Codec.of(model, engine=own, threads=1), images) as compressed:
            found.append(bbans.bits_of_pixels(compressed))
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)
    np.testing.assert_array_equal(found[0].latents, found[1].latents)


def test_unlikely_pixels_cost_more(binary_model: Model) -> None:
    codec = Codec.of(binary_model, engine="numpy", threads=1)
    with (
        opened(codec, bbans.sample_images(binary_model, 50)) as own,
        opened(codec, random_images(binary_model, 50)) as no,
    ):
        assert bbans.bits_of_pixels(own).pixels.mean() < bbans.bits_of_pixels(no).pixels.mean()


def test_what_is_stored_has_no_bits_of_its_own(binary_model: Model) -> None:
    codec = Codec.of(binary_model, engine="numpy", threads=1)
    images = np.concatenate([np.repeat(random_images(binary_model, 1), 400, axis=0), random_images(binary_model, 1)])
    parts = [images[:400], images[400:]]
    with opened(codec, parts[0]) as stored, opened(codec, parts[1]) as coded:
        assert np.isnan(bbans.bits_of_pixels(stored).pixels).all()
        assert not np.isnan(bbans.bits_of_pixels(coded).pixels).any()
        assert "zstandard" in shown_of(stored, 1)[0].caption and "bits" in shown_of(coded, 1)[0].caption
    file = io.BytesIO()
    chunks = [(400, *store(parts[0])), (1, Method.BITS_BACK, codec.chunk_coder().encode(parts[1].reshape(1, -1)))]
    write(file, Header("|u1", 3, SHAPE, 1, codec.reference), chunks)
    with CompressedArray(file, codec) as compressed:
        cost = bbans.bits_of_pixels(compressed)
        assert np.isnan(cost.pixels[:400]).all() and np.isnan(cost.latents[:400]).all()
        assert not np.isnan(cost.pixels[400:]).any() and not np.isnan(cost.latents[400:]).any()
        assert "zstandard" in shown_of(compressed, 1)[0].caption


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5), (6, 5, 3), (6, 5, 4), (6, 5, 2), (600, 7)])
@pytest.mark.parametrize("dtype", ["|b1", "|u1", "<u2", "<f4"])
def test_all_kinds_of_images_are_drawn(shape: tuple[int, ...], dtype: str) -> None:
    images = np.random.default_rng(0).integers(0, 200, (3, *shape)).astype(dtype)
    with bbans.open(bbans.compress(images, model=None)) as compressed:
        sheet = draw_sheet(shown_of(compressed, 2))
    assert sheet.mode == "RGB" and len(set(sheet.tobytes())) > 2


def test_the_command(tmp_path: Path, model_folder: Path, binary_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", bbans.sample_images(binary_model, 60))
    succeed("compress", "images.npy", "-q", "--model", model_folder)
    succeed("show", "images.npy.bba", "--model", model_folder, "--images", 5)
    with Image.open("images.npy.bba.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 100
    assert "exists" in fail("show", "images.npy.bba", "--model", model_folder)
    np.save("numbers.npy", np.arange(5))
    succeed("compress", "images.npy", "numbers.npy", "-q", "--model", model_folder, "-o", "both.bba")
    succeed("show", "both.bba", "--model", model_folder, "-o", "both.png")
    succeed("compress", "numbers.npy", "-q", "--model", "none")
    assert "expected rows that are images" in fail("show", "numbers.npy.bba")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "bbans[images]" in fail("show", "images.npy.bba", "--model", model_folder, "-o", "x.png")
