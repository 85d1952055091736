"""Training of networks for images of any size: to the same result in pieces, from other models, from a folder."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import tiny_context_model, tiny_local_model
from PIL import Image

import bbans
from bbans.cli import main
from bbans.errors import ArrayError, RecipeError, TrainingPaused
from bbans.intervals.location_scale import PRECISION
from bbans.model import FILE_NAME, Model, save_model
from bbans.nets.local import LocalShape
from bbans.training.data import read_any_size
from bbans.training.local import Crops, build_local, learning_rate, run_local
from bbans.training.local_recipe import LocalRecipe, default_local_recipe, suits_local
from bbans.training.recipe import load_recipe
from bbans.training.thaw import CodedLikelihood

SHAPE = LocalShape(rows=2, columns=3, hidden=7, blocks=2, head=5)
RECIPE = LocalRecipe(
    "tiny", 3, steps=6, local=SHAPE, components=2, crop=8, crops=2, warmup=2, decay=3, held_out=2, report=2, seed=3
)


def waves(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Something to learn: smooth, with colours that go together."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:height, :width] * rng.uniform(0.1, 0.5, (2, 1, 1))
    image = 128 + 80 * np.sin(down + right)[..., None] + 10 * np.arange(channels) + rng.normal(0, 2, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8).reshape((height, width, channels)[: 3 if channels > 1 else 2])


IMAGES = [waves(20, 24, seed=0), waves(12, 9, seed=1), *(waves(6, 5, seed=seed) for seed in range(2, 6)), waves(9, 30)]


def saved(model: Model, folder: Path) -> str:
    folder.mkdir(parents=True)
    save_model(model, folder / FILE_NAME)
    return str(folder)


def test_pausing_changes_nothing(tmp_path: Path) -> None:
    """A run in pieces leaves the very same model and log; and the model is one that codes."""
    whole = run_local(RECIPE, IMAGES, tmp_path / "whole")
    for step in (2, 4):
        with pytest.raises(TrainingPaused, match=f"paused after {step} of 6 steps; the same command goes on"):
            run_local(RECIPE, IMAGES, tmp_path / "pieces", deadline=time.monotonic())
        with pytest.raises(RecipeError, match="another recipe"):
            run_local(dataclasses.replace(RECIPE, seed=4), IMAGES, tmp_path / "pieces")
    assert run_local(RECIPE, IMAGES, tmp_path / "pieces", deadline=time.monotonic()) == whole
    for name in (FILE_NAME, "network.safetensors", "log.jsonl"):
        assert (tmp_path / "pieces" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == sorted(
        [FILE_NAME, "network.safetensors", "log.jsonl"]
    )
    reports = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [2, 4, 6]
    assert whole.frozen == pytest.approx(whole.trained, rel=0.01)
    model = bbans.load_model(tmp_path / "whole")
    codec = bbans.Codec.of(model)
    np.testing.assert_array_equal(codec.decompress(codec.compress(IMAGES[0])), IMAGES[0])


def test_training_learns(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60, decay=20, report=60, learning_rate=5e-3)
    before = run_local(dataclasses.replace(recipe, steps=1), IMAGES, tmp_path / "before")
    assert run_local(recipe, IMAGES, tmp_path / "after").frozen < before.frozen - 0.05


def test_crops_are_a_function_of_the_step() -> None:
    crops = Crops.of(RECIPE, IMAGES)
    assert {image.shape for image in crops.large} == {(20, 24, 3), (12, 9, 3), (9, 30, 3)} and len(crops.small) == 4
    for step in range(4):
        batches = crops(step)
        assert len(batches) == 1 + step % 2 and batches[0].shape == (2, 3, 8, 8)
        assert all(torch.equal(a, b) for a, b in zip(batches, crops(step), strict=True))
    assert not torch.equal(crops(0)[0], crops(2)[0])
    halved = Crops.of(dataclasses.replace(RECIPE, halved=1.0), IMAGES[:1])(0)[0]
    assert halved.shape == (2, 3, 8, 8)
    with pytest.raises(RecipeError, match="no images to train on"):
        Crops.of(RECIPE, [])


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = dataclasses.replace(RECIPE, steps=100, warmup=10, decay=20)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[10:80] == [recipe.learning_rate] * 70
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[80:]) < 0).all() and rates[-1] > 0
    assert learning_rate(dataclasses.replace(recipe, warmup=0, decay=0), 0) == recipe.learning_rate


@torch.no_grad()
def test_starting_from_the_same(tmp_path: Path) -> None:
    """A network that starts from a frozen one says of images what that one does."""
    for channels in (1, 3):
        model = tiny_local_model(channels)
        start = saved(model, tmp_path / str(channels))
        network = build_local(dataclasses.replace(RECIPE, channels=channels, start=start))
        network.likelihood = CodedLikelihood(network.likelihood, PRECISION)
        image = waves(9, 8, channels)
        pixels = torch.from_numpy(image.reshape(9, 8, channels)).permute(2, 0, 1)[None].float()
        coder = bbans.Codec.of(model).fitted_to(image.shape).chunk_coder()
        bits = coder.bits_each(image.reshape(1, -1)).sum()  # type: ignore[union-attr]
        assert -float(network(pixels).sum()) / np.log(2) == pytest.approx(bits, rel=5e-3)


@torch.no_grad()
def test_starting_from_colours_for_grey(tmp_path: Path) -> None:
    """It says of a grey image what the one for colours says of the first channel where all are the same."""
    start = saved(tiny_local_model(3), tmp_path / "colours")
    colours = build_local(dataclasses.replace(RECIPE, start=start))
    grey = build_local(dataclasses.replace(RECIPE, channels=1, start=start))
    pixels = torch.from_numpy(waves(9, 8, 1)).float()[None, None]
    expected = colours(pixels.expand(1, 3, 9, 8))[..., 0]
    assert torch.allclose(grey(pixels)[..., 0], expected, atol=1e-3)


def test_starting_from_a_context_model(tmp_path: Path) -> None:
    """Of three components and point masses; a network of other sizes, or a model without neighbours, is refused."""
    context = tiny_context_model("logistic-mixture")
    start = saved(dataclasses.replace(context), tmp_path / "context")
    for shape, components in [
        (SHAPE, 2),
        (dataclasses.replace(SHAPE, rows=2, columns=2), 2),
        (LocalShape(2, 2, 7, 1, 5), 3),
        (LocalShape(2, 2, 9, 2, 5), 3),
    ]:
        with pytest.raises(RecipeError, match="other sizes"):
            build_local(dataclasses.replace(RECIPE, local=shape, components=components, start=start))
    with pytest.raises(RecipeError, match="other sizes"):
        build_local(dataclasses.replace(RECIPE, channels=1, start=start))
    with pytest.raises(RecipeError, match="no network with context"):
        build_local(dataclasses.replace(RECIPE, start="gg-mnist"))
    with pytest.raises(RecipeError, match="is for grey images"):
        build_local(dataclasses.replace(RECIPE, start=saved(tiny_local_model(1), tmp_path / "grey")))
    network = build_local(LocalRecipe("x", 3, 1, start="cifar10"))  # as the shipped recipe does
    image = torch.from_numpy(waves(12, 12)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        untrained = build_local(LocalRecipe("x", 3, 1))
        assert float(network(image).mean()) > float(untrained(image).mean())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("channels = 3", "missing"),
        ("name = 'x'\nchannels = 3\nsteps = 5\nepochs = 4", "unknown key 'epochs'"),
        ("name = 'x'\nchannels = 3\nsteps = 5\n[local]\ndepth = 4", "local: unknown key 'depth'"),
        ("name = 'x'\nchannels = 3\nsteps = 'many'", "steps is 'many'; expected a value of type int"),
        ("name = 'x'\nchannels = 2\nsteps = 5", "for 1 or 3 channels, not 2"),
        ("name = 'x'\nchannels = 3\nsteps = 0", "are positive"),
        ("name = 'x'\nchannels = 3\nsteps = 5\nlikelihood = 'bernoulli'", "is a logistic-mixture, not bernoulli"),
        ("name = 'x'\nchannels = 3\nsteps = 5\nlocal = 3", "local must be a table"),
        ("name = 'x'\nchannels = 3\nsteps = 5\n[local]\nrows = 0", "rows"),
        ("name = 'x'\nchannels = 3\nsteps = 5\ncomponents = 0", "components"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("network = 'local'\n" + text)
    with pytest.raises(RecipeError, match=match):
        load_recipe(path)


def test_images_that_do_not_fit_the_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds out 2 images, got 2"):
        run_local(RECIPE, IMAGES[:2], tmp_path)
    for wrong in (waves(9, 9, 1), waves(9, 9).astype(np.float32), np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(RecipeError, match=r"trains on uint8 images of shape \(height, width, 3\)"):
            run_local(RECIPE, [*IMAGES, wrong], tmp_path)


def test_what_is_trained_without_a_recipe() -> None:
    assert suits_local(IMAGES) and suits_local([waves(65, 5)] * 3) and not suits_local([waves(64, 64)] * 3)
    recipe = default_local_recipe("mine", IMAGES)
    assert (recipe.channels, recipe.start, recipe.crop, recipe.held_out) == (3, "photo", 8, 1)
    assert default_local_recipe("mine", [waves(200, 100, 1)] * 90).start == "photo-grey"


class TestReading:
    def test_a_folder_of_pictures_of_different_sizes(self, tmp_path: Path) -> None:
        for number, image in enumerate(IMAGES):
            Image.fromarray(image).save(tmp_path / f"{number}.png")
        found = read_any_size([tmp_path])
        assert all((a == b).all() for a, b in zip(found, IMAGES, strict=True))
        grey = read_any_size([tmp_path], channels=1)
        assert [image.shape for image in grey] == [image.shape[:2] for image in IMAGES]
        luma = IMAGES[0] @ np.array([0.299, 0.587, 0.114])
        assert np.abs(grey[0] - luma).max() <= 0.5001

    def test_several_files(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.stack(IMAGES[2:6]))
        Image.fromarray(IMAGES[0]).save(tmp_path / "b.png")
        assert len(read_any_size([tmp_path / "a.npy", tmp_path / "b.png"])) == 5
        (tmp_path / "empty").mkdir()
        with pytest.raises(ArrayError, match="holds no files"):
            read_any_size([tmp_path / "empty"])


def test_from_the_command_line(tmp_path: Path) -> None:
    """From a folder of pictures to a model that codes one; images of several sizes need no recipe."""
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number}.png")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "network = 'local'\nname = 'mine'\nchannels = 3\nsteps = 4\nreport = 2\ncomponents = 2\ncrop = 8\ncrops = 2\n"
        "held_out = 2\n[local]\nrows = 2\ncolumns = 2\nhidden = 6\nblocks = 1\nhead = 4\n"
    )
    arguments = ["train", tmp_path / "pictures", "--recipe", recipe, "-o", tmp_path / "mine"]
    paused = CliRunner().invoke(main, [*map(str, arguments), "-q", "--minutes", "1e-9"])
    assert paused.exit_code == 3 and "paused after 2 of 4 steps" in paused.stderr, paused.output
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "mine: " in result.stderr and "bits/dim on held-out images frozen" in result.stderr
    codec = bbans.Codec.of(bbans.load_model(tmp_path / "mine"))
    np.testing.assert_array_equal(codec.decompress(codec.compress(IMAGES[-1])), IMAGES[-1])
    plain = tmp_path / "plain.toml"
    plain.write_text(
        "name = 'x'\nimage_shape = [6, 5, 3]\nlikelihood = 'discretized-logistic'\nlatents = 2\nhidden = [4]\n"
        "latent_precision = 8\nepochs = 1\n"
    )
    refused = CliRunner().invoke(main, ["train", str(tmp_path / "pictures"), "--recipe", str(plain), "-o", "x"])
    assert refused.exit_code == 1 and "trains on images of one shape" in refused.stderr
