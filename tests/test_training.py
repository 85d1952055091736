"""Recipes and the training loop, on data made here."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import bbans
from bbans.cli import main
from bbans.errors import RecipeError
from bbans.nets import VAE
from bbans.training.augment import deform
from bbans.training.export import export
from bbans.training.loop import bits_per_dimension, build, fit, fit_posterior, learning_rate, to_symbols, train
from bbans.training.objectives import joint, sleep
from bbans.training.recipe import PosteriorRecipe, Recipe, load_recipe
from bbans.training.run import run

RECIPE = Recipe(
    "blobs", (8, 8), "bernoulli", latents=2, hidden=(32,), latent_precision=10, epochs=8, batch_size=50,
    learning_rate=5e-3, averaging=0.9, validation_images=200, annealing_epochs=2, augmented_share=0.2,
)  # fmt: skip
MODELS = Path(__file__).parent.parent / "models"


def blobs(count: int, seed: int) -> np.ndarray:
    """Grey images of one bright square each, anywhere."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 8, 8), np.uint8)
    for image, row, column in zip(images, rng.integers(0, 6, count), rng.integers(0, 6, count), strict=True):
        image[row : row + 3, column : column + 3] = rng.integers(140, 256)
    return images


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized-logistic"])
def test_a_trained_model_compresses_new_images(likelihood: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, likelihood=likelihood)
    log = tmp_path / "log.jsonl"
    network = train(recipe, blobs(2000, seed=0), log, quiet=True)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 8 and lines[-1]["held_out"] < 0.8 * lines[0]["held_out"]

    grey = blobs(1000, seed=1)
    pixels = to_symbols(recipe, torch.from_numpy(grey).float())
    model = export(network, recipe, pixels)
    coder = bbans.Codec.of(model).coder
    assert coder is not None
    payload = coder.encode(pixels.numpy().astype(np.int64))
    assert (coder.decode(payload, 1000) == pixels.numpy()).all()
    assert 8 * len(payload) / pixels.numel() == pytest.approx(bits_per_dimension(network, pixels), rel=0.05)


def test_training_is_reproducible() -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2)
    first, second = (train(recipe, blobs(500, seed=0), quiet=True) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


OBJECTIVES = ["wake", "sleep", "reverse-sleep", "reverse-half-asleep"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_encoder_is_fitted_to_a_frozen_decoder(objective: str) -> None:
    """From a fresh encoder each objective finds a posterior that is far better than none, and leaves p alone."""
    trained = train(RECIPE, blobs(2000, seed=0), quiet=True)
    fresh = copy.deepcopy(trained)
    fresh.encoder = build(dataclasses.replace(RECIPE, seed=9)).encoder
    posterior = PosteriorRecipe(objective, epochs=8, learning_rate=5e-3)
    fitted = fit_posterior(fresh, posterior, RECIPE, blobs(2000, seed=0), quiet=True)
    for kept, before in zip(fitted.decoder.parameters(), trained.decoder.parameters(), strict=True):
        assert torch.equal(kept, before)
    pixels = to_symbols(RECIPE, torch.from_numpy(blobs(500, seed=2)).float())
    rates = [bits_per_dimension(network, pixels) for network in (trained, fitted, fresh)]
    assert rates[1] < rates[0] + 0.3 * (rates[2] - rates[0]), rates


def test_sleep_recovers_the_posterior_of_a_known_model() -> None:
    """X = z + noise is known in closed form: p(z given x) = N(x / 2, 1 / 2), and GG 13 has its minimum there."""
    network = KnownModel()
    noise = torch.Generator().manual_seed(0)
    at_truth = float(sleep(network, torch.zeros(200_000, 1), 0, noise).mean())  # type: ignore[arg-type]
    assert at_truth == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.5), abs=0.01)
    for slope, variance in ((0.4, 0.5), (0.6, 0.5), (0.5, 0.4), (0.5, 0.7)):
        network.slope, network.variance = slope, variance
        assert float(sleep(network, torch.zeros(200_000, 1), 0, noise).mean()) > at_truth  # type: ignore[arg-type]


class KnownModel:
    """p(z) = N(0, 1), p(x given z) = N(z, 1), and a linear Gaussian q."""

    slope, variance = 0.5, 0.5

    def sample(self, images: int, noise: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.randn(images, 1, generator=noise)
        return z, z + torch.randn(images, 1, generator=noise)

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.slope * x, torch.full_like(x, 0.5 * math.log(self.variance))


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=4)
    images = blobs(600, seed=0)
    whole = train(recipe, images, quiet=True)
    checkpoint = tmp_path / "checkpoint.safetensors"
    network = build(recipe)
    objective = joint(recipe.annealing_epochs)

    def interrupted(network: VAE, x: torch.Tensor, epoch: int, noise: torch.Generator) -> torch.Tensor:
        if epoch == 2:
            raise KeyboardInterrupt
        return objective(network, x, epoch, noise)

    with pytest.raises(KeyboardInterrupt):
        fit(network, list(network.parameters()), interrupted, recipe, images, quiet=True, checkpoint=checkpoint)
    resumed = train(recipe, images, quiet=True, checkpoint=checkpoint)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RecipeError, match="another recipe"):
        train(dataclasses.replace(recipe, seed=5), images, quiet=True, checkpoint=checkpoint)
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(RecipeError, match="not a checkpoint"):
        train(recipe, images, quiet=True, checkpoint=checkpoint)


def test_deforming_keeps_images_recognizable() -> None:
    images = torch.from_numpy(blobs(50, seed=0)).float()
    deformed = deform(images, torch.Generator().manual_seed(0))
    assert deformed.shape == images.shape
    assert not torch.equal(deformed, images)
    same = torch.nn.functional.cosine_similarity(deformed.flatten(1), images.flatten(1))
    assert float(same.mean()) > 0.7


def test_schedule_rises_and_falls() -> None:
    rates = [learning_rate(RECIPE, progress / 1000) for progress in range(1001)]
    assert rates[0] == 0 and rates[-1] == pytest.approx(0, abs=1e-9)
    assert max(rates) == pytest.approx(RECIPE.learning_rate)


@pytest.mark.parametrize("name", ["gg-mnist", "gg-mnist-binary"])
def test_recipes_of_shipped_models_are_those_of_the_paper(name: str) -> None:
    recipe = load_recipe(MODELS / name / "recipe.toml")
    assert recipe.name == name
    assert (recipe.latents, recipe.hidden) == (10, (500, 500, 500))
    model = bbans.load_model(name)
    assert model.latents == recipe.latents and model.likelihood == recipe.likelihood


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = ", "cannot read the recipe"),
        ("nmae = 'x'", "unknown key 'nmae'"),
        ("name = 'x'", "missing"),
        ("posteriors = 3", "posteriors must be tables"),
        ("[posteriors.x]\nalpha = 0.5", "x: .*missing"),
        ("latents = 'ten'", "latents is 'ten'; expected a value of type int"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=match):
        load_recipe(path)


def test_train_from_the_command_line(tmp_path: Path) -> None:
    """One command makes a model that codes; the rates it prints are those of the frozen model."""
    (tmp_path / "recipe.toml").write_text(
        "name = 'blobs'\nimage_shape = [8, 8]\nlikelihood = 'bernoulli'\nlatents = 2\nhidden = [16]\n"
        "latent_precision = 10\nepochs = 2\nvalidation_images = 100\n"
        "[posteriors.half-asleep]\nobjective = 'reverse-half-asleep'\nepochs = 1\n"
    )
    np.save(tmp_path / "images.npy", blobs(400, seed=0))
    arguments = ["train", tmp_path / "images.npy", "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "out"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    for name in ("amortized", "half-asleep"):
        assert re.search(rf"out, {name}: 0\.\d{{4}} bits/dim on held-out .* 0\.\d{{4}} before\n", result.stderr)
    model = bbans.load_model(tmp_path / "out")
    assert list(model.encoders) == ["amortized", "half-asleep"]
    images = bbans.sample_images(model, 30)
    for name in model.encoders:
        codec = bbans.Codec.of(model, posterior=name)
        assert (codec.decompress(codec.compress(images)) == images).all()


def test_a_new_decoder_starts_its_further_encoders_anew(tmp_path: Path) -> None:
    """A checkpoint of an encoder that was fitted to another decoder must not be taken up."""
    posteriors = {"half-asleep": PosteriorRecipe("reverse-half-asleep", epochs=1)}
    recipe = dataclasses.replace(RECIPE, epochs=1, posteriors=posteriors)
    stale = tmp_path / "checkpoint-half-asleep.safetensors"
    stale.write_bytes(b"of another run")
    run(recipe, blobs(400, seed=0), tmp_path, quiet=True)
    assert not list(tmp_path.glob("checkpoint-*"))
    assert list(bbans.load_model(tmp_path).encoders) == ["amortized", "half-asleep"]


def test_data_of_another_shape_is_refused() -> None:
    with pytest.raises(RecipeError, match="holds out 200 images, got 10 in all"):
        train(RECIPE, blobs(10, seed=0), quiet=True)
    with pytest.raises(RecipeError, match=r"trains on uint8 images of shape \(8, 8\), got .* \(5, 4, 4\)"):
        train(RECIPE, np.zeros((5, 4, 4), np.uint8), quiet=True)
