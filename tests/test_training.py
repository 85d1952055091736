"""Recipes and the training loop, on data made here."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import bbans
from bbans.cli import main
from bbans.errors import RecipeError
from bbans.nets import VAE, ContextShape, DiagonalGaussian, ResidualShape, ResidualVAE
from bbans.training.augment import deform
from bbans.training.batches import batches, to_symbols
from bbans.training.export import export
from bbans.training.local import build_local
from bbans.training.local_recipe import LocalRecipe
from bbans.training.loop import (
    Journal,
    bits_per_dimension,
    build,
    fit,
    fit_posterior,
    learning_rate,
    model_objective,
    train,
)
from bbans.training.objectives import (
    denoising,
    entropy_annealing,
    free_bits,
    from_aggregate_posterior,
    from_bank,
    sleep,
    wake,
)
from bbans.training.recipe import CHOICES, PosteriorRecipe, Recipe, default_recipe, load_recipe
from bbans.training.run import run
from bbans.training.workers import ALONE

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


COLOR = "name = 'x'\nlikelihood = 'channel-linear-logistic'\nlatent_precision = 8\nepochs = 1"
RESIDUAL = {"network": "residual", "residual": ResidualShape(2, (8,), 1, (8, 8), 1, hidden=6)}
CONTEXT = {"network": "context", "context": ContextShape(1, (8, 8), (8, 8), hidden=16, head=8), "components": 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "discretized-logistic"},
        {"likelihood": "bernoulli", **CONTEXT},
        {"likelihood": "logistic-mixture", "masses": (0,), **CONTEXT},
        {"likelihood": "discretized-logistic", **RESIDUAL},
    ],
)
def test_a_trained_model_compresses_new_images(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, **changes)
    log = tmp_path / "log.jsonl"
    network = train(recipe, blobs(2000, seed=0), Journal(log))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 8 and lines[-1]["held_out"] < 0.8 * lines[0]["held_out"]

    grey = blobs(1000, seed=1)
    pixels = to_symbols(recipe, torch.from_numpy(grey).float())
    model = export(network, recipe, pixels)
    coder = bbans.Codec.of(model).chunk_coder()
    payload = coder.encode(pixels.numpy().astype(np.int64))
    assert (coder.decode(payload, 1000) == pixels.numpy()).all()
    assert 8 * len(payload) / pixels.numel() == pytest.approx(bits_per_dimension(network, pixels), rel=0.05)


def test_training_is_reproducible() -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2)
    first, second = (train(recipe, blobs(500, seed=0)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("objective", CHOICES["objective"])
def test_an_encoder_is_fitted_to_a_frozen_decoder(objective: str) -> None:
    """From a fresh encoder each objective finds a posterior that is far better than none, and leaves p alone."""
    trained = train(RECIPE, blobs(2000, seed=0))
    fresh = copy.deepcopy(trained)
    fresh.encoder = build(dataclasses.replace(RECIPE, seed=9)).encoder
    posterior = PosteriorRecipe(objective, epochs=8, learning_rate=5e-3)
    fitted = fit_posterior(fresh, posterior, RECIPE, blobs(2000, seed=0))
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

    def prior_sample(self, images: int, noise: torch.Generator) -> torch.Tensor:
        return torch.randn(images, 1, generator=noise)

    def dream(self, z: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
        return z + torch.randn(len(z), 1, generator=noise)

    def posterior(self, x: torch.Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.slope * x, torch.full_like(x, 0.5 * math.log(self.variance)))


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=4)
    images = blobs(600, seed=0)
    whole = train(recipe, images)
    checkpoint = tmp_path / "checkpoint.safetensors"
    network = build(recipe)
    objective = model_objective(recipe)

    def interrupted(network: VAE, x: torch.Tensor, epoch: int, noise: torch.Generator) -> torch.Tensor:
        if epoch == 2:
            raise KeyboardInterrupt
        return objective(network, x, epoch, noise)

    with pytest.raises(KeyboardInterrupt):
        fit(network, list(network.parameters()), interrupted, recipe, images, Journal(checkpoint=checkpoint))
    resumed = train(recipe, images, Journal(checkpoint=checkpoint))
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RecipeError, match="another recipe"):
        train(dataclasses.replace(recipe, seed=5), images, Journal(checkpoint=checkpoint))
    checkpoint.write_bytes(b"damaged")
    with pytest.raises(RecipeError, match="not a checkpoint"):
        train(recipe, images, Journal(checkpoint=checkpoint))


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


@pytest.mark.parametrize(
    "path", sorted(MODELS.glob("*/recipe*.toml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_recipes_of_shipped_models_can_be_trained(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.parent.name
    if isinstance(recipe, LocalRecipe):
        (-build_local(recipe)(torch.full((1, recipe.channels, 5, 6), 100.0)).sum()).backward()
        return
    network = build(recipe)
    x = torch.randint(0, network.likelihood.symbols, (2, network.pixels)).float()
    model_objective(recipe)(network, x, 0, torch.Generator().manual_seed(0)).mean().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name", ["gg-mnist", "gg-mnist-binary"])
def test_recipes_of_shipped_models_are_those_of_the_paper(name: str) -> None:
    recipe = load_recipe(MODELS / name / "recipe.toml")
    assert recipe.name == name
    assert (recipe.latents, recipe.hidden) == (10, (500, 500, 500))
    model = bbans.load_model(name)
    assert model.latents == recipe.latents and model.likelihood == recipe.likelihood


def test_the_recipe_for_cifar_10_is_that_of_the_paper() -> None:
    network = build(load_recipe(MODELS / "gg-cifar10" / "recipe.toml"))
    assert isinstance(network, ResidualVAE)
    assert network.latent_shape == (4, 8, 8) and network.latents == 256 and network.pixels == 3072


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name = ", "cannot read the recipe"),
        ("nmae = 'x'", "unknown key 'nmae'"),
        ("name = 'x'", "missing"),
        ("posteriors = 3", "posteriors must be tables"),
        ("[posteriors.x]\nalpha = 0.5", "x: .*missing"),
        ("schedule = 'linear'", "schedule is 'linear'; expected one of: cosine, constant"),
        ("latents = 'ten'", "latents is 'ten'; expected a value of type int"),
        ("[residual]\nencoder_channels = [8, 8, 8]", "residual: a decoder needs channels for every size"),
        (f"{COLOR}\nimage_shape = [32, 32, 3]", "for images of three channels and a residual network"),
        (f"{COLOR}\nimage_shape = [32, 32]\nnetwork = 'residual'", "for images of three channels"),
        (f"{COLOR}\nimage_shape = [784]\nnetwork = 'residual'", "for height, width and perhaps channels"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=match):
        load_recipe(path)


def train_blobs(tmp_path: Path, *options: str) -> Result:
    """Of two epochs, and one for a second encoder."""
    (tmp_path / "recipe.toml").write_text(
        "name = 'blobs'\nimage_shape = [8, 8]\nlikelihood = 'bernoulli'\nlatents = 2\nhidden = [16]\n"
        "latent_precision = 10\nepochs = 2\nvalidation_images = 100\n"
        "[posteriors.half-asleep]\nobjective = 'reverse-half-asleep'\nepochs = 1\n"
    )
    np.save(tmp_path / "images.npy", blobs(400, seed=0))
    arguments = ["train", tmp_path / "images.npy", "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "out"]
    return CliRunner().invoke(main, [*(str(argument) for argument in arguments), *options])


def test_a_run_pauses_in_time_and_goes_on(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    train_blobs(whole)
    paused = train_blobs(pieces, "--minutes", "1e-9")
    assert paused.exit_code == 3
    assert "paused after 1 of 2 epochs; the same command goes on" in paused.stderr
    assert train_blobs(pieces, "--minutes", "1e-9").exit_code == 0
    for posterior in ("amortized", "half-asleep"):
        found, expected = (bbans.load_model(folder / "out").identity(posterior) for folder in (pieces, whole))
        assert found == expected


def test_train_from_the_command_line(tmp_path: Path) -> None:
    """One command makes a model that codes; the rates it prints are those of the frozen model."""
    result = train_blobs(tmp_path)
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
    run(recipe, blobs(400, seed=0), tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))
    assert list(bbans.load_model(tmp_path).encoders) == ["amortized", "half-asleep"]


def test_data_of_another_shape_is_refused() -> None:
    with pytest.raises(RecipeError, match="holds out 200 images, got 10 in all"):
        train(RECIPE, blobs(10, seed=0))
    with pytest.raises(RecipeError, match=r"trains on uint8 images of shape \(8, 8\), got .* \(5, 4, 4\)"):
        train(RECIPE, np.zeros((5, 4, 4), np.uint8))


def test_denoising_without_noise_is_the_wake_objective() -> None:
    """GG 18 with a deviation of 0 is a weighted sum of two draws of the same ELBO."""
    network = build(RECIPE)
    x = to_symbols(RECIPE, torch.from_numpy(blobs(400, seed=0)).float())
    quiet, loud = (
        float(denoising(0.5, deviation)(network, x, 0, torch.Generator().manual_seed(0)).detach().mean())
        for deviation in (0.0, 5.0)
    )
    expected = float(wake(network, x, 0, torch.Generator().manual_seed(1)).detach().mean())
    assert quiet == pytest.approx(expected, rel=0.01)
    assert abs(loud - expected) > 0.05 * expected


def test_entropy_annealing_ends_in_the_elbo() -> None:
    """IS-6: with lambda = 0 the entropy of q counts nothing, with lambda = 1 what is left is the negative ELBO."""
    network = build(RECIPE)
    x = to_symbols(RECIPE, torch.from_numpy(blobs(50, seed=0)).float())
    start, middle, end = (
        entropy_annealing(4)(network, x, epoch, torch.Generator().manual_seed(0)).detach() for epoch in (0, 2, 9)
    )
    entropy = network.posterior(x).entropy().detach()
    assert torch.allclose(end, wake(network, x, 0, torch.Generator().manual_seed(0)).detach())
    assert torch.allclose(start - end, entropy, atol=1e-3) and torch.allclose(middle - end, entropy / 2, atol=1e-3)


def test_dreams_of_the_aggregate_posterior_look_like_the_data() -> None:
    network = train(RECIPE, blobs(2000, seed=0))
    x = to_symbols(RECIPE, torch.from_numpy(blobs(500, seed=2)).float())
    dreams = from_aggregate_posterior(network, x, torch.Generator().manual_seed(0))
    assert dreams.shape == x.shape
    assert float((dreams.mean(0) - x.mean(0)).abs().max()) < 0.15


def test_training_stops_when_it_gets_no_better(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=30, patience=2, learning_rate=0.5)
    log = tmp_path / "log.jsonl"
    train(recipe, blobs(500, seed=0), Journal(log))
    held_out = [json.loads(line)["held_out"] for line in log.read_text().splitlines()]
    assert len(held_out) == held_out.index(min(held_out)) + 3 < 30


def test_the_last_epoch_is_kept_if_the_recipe_says_so() -> None:
    seen: list[VAE] = []
    recipe = dataclasses.replace(RECIPE, epochs=3, learning_rate=0.5, schedule="constant", keep="last", averaging=0.0)
    kept = train(recipe, blobs(500, seed=0), Journal(after_epoch=lambda epoch, network: seen.append(network)))
    for a, b in zip(kept.parameters(), seen[-1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_processes_train_together(tmp_path: Path) -> None:
    """Two processes under torchrun make one model, written once, that has learned what one alone learns."""
    (tmp_path / "recipe.toml").write_text(
        "name = 'blobs'\nimage_shape = [8, 8]\nlikelihood = 'bernoulli'\nlatents = 2\nhidden = [32]\n"
        "latent_precision = 10\nepochs = 6\nbatch_size = 50\nlearning_rate = 5e-3\naveraging = 0.9\n"
        "validation_images = 200\n[posteriors.half-asleep]\nobjective = 'reverse-half-asleep'\nepochs = 1\n"
    )
    np.save(tmp_path / "images.npy", blobs(1000, seed=0))
    arguments = ["images.npy", "--recipe", "recipe.toml", "--device", "cpu", "-o"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    free = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rates = []
    for start, folder in (([*torchrun, *free], "two"), ([sys.executable], "one")):
        command = [*start, "-m", "bbans", "train", *arguments, folder]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed = re.findall(r", amortized: (\S+) bits/dim", done.stderr)
        assert len(printed) == 1
        rates.append(float(printed[0]))
    assert rates[0] == pytest.approx(rates[1], rel=0.1)
    assert len((tmp_path / "two" / "log-amortized.jsonl").read_text().splitlines()) == 6
    assert list(bbans.load_model(tmp_path / "two").encoders) == ["amortized", "half-asleep"]


def test_a_run_leaves_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run(dataclasses.replace(RECIPE, epochs=2), blobs(400, seed=0), tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("one", [1, 255])
def test_binary_images_train_without_a_recipe(tmp_path: Path, one: int) -> None:
    """Whether a one is written as 1 or 255, the default recipe finds a Bernoulli model that learns."""
    images = (blobs(300, seed=0) > 0).astype(np.uint8) * one
    recipe = dataclasses.replace(default_recipe("blobs", images), epochs=6)
    assert (recipe.likelihood, recipe.image_shape, recipe.validation_images) == ("bernoulli", (8, 8), 30)
    measured = run(recipe, images, tmp_path)
    assert measured is not None and measured.frozen["amortized"] < 0.6


def test_grey_images_get_grey_levels_and_their_background_a_point_mass() -> None:
    recipe = default_recipe("blobs", blobs(300, seed=0))
    assert (recipe.network, recipe.likelihood) == ("context", "logistic-mixture")
    assert recipe.masses[0] == 0 and recipe.centre == 0


@pytest.mark.parametrize("shape", [(40, 5, 3, 3), (40, 1, 30), (40, 9, 11, 1)])
def test_images_of_any_shape_train_without_a_recipe(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(100, 3, shape).astype(np.uint8)
    recipe = dataclasses.replace(default_recipe("noise", images), epochs=2, batch_size=8)
    measured = run(recipe, images, tmp_path)
    assert measured is not None and measured.frozen["amortized"] == pytest.approx(
        measured.trained["amortized"], rel=0.05
    )
    model = bbans.load_model(tmp_path)
    x = images.reshape(40, -1).astype(np.int64)
    coder = bbans.Codec.of(model).chunk_coder()
    np.testing.assert_array_equal(coder.decode(coder.encode(x), 40), x)


def test_encoders_of_models_with_context_dream_from_a_bank(tmp_path: Path) -> None:
    posterior = PosteriorRecipe("reverse-half-asleep", epochs=1, bank=64)
    recipe = dataclasses.replace(RECIPE, epochs=1, posteriors={"half-asleep": posterior}, **CONTEXT)
    measured = run(recipe, blobs(400, seed=0), tmp_path)
    assert measured is not None and list(measured.frozen) == ["amortized", "half-asleep"]
    model = bbans.load_model(tmp_path)
    x = (blobs(50, seed=1) > 0).reshape(50, -1).astype(np.int64)
    coder = bbans.Codec.of(model, posterior="half-asleep").chunk_coder()
    np.testing.assert_array_equal(coder.decode(coder.encode(x), 50), x)


def test_a_bank_is_drawn_from_at_random() -> None:
    bank = torch.arange(8.0)[:, None].expand(8, 64)
    noise = torch.Generator().manual_seed(0)
    dreams = from_bank(bank)(build(RECIPE), torch.zeros(500, 64), noise)
    assert set(dreams[:, 0].tolist()) == set(range(8)) and (dreams == dreams[:, :1]).all()


def test_mirrored_images() -> None:
    recipe = dataclasses.replace(RECIPE, flips=True, batch_size=200, augmented_share=0.0)
    images = torch.tensor(np.tile(np.arange(8, dtype=np.uint8) * 30, (200, 8, 1)))
    (batch,) = batches(recipe, images, 0, ALONE)
    first = batch.reshape(200, 8, 8)[:, 0]
    mirrored = (first == to_symbols(recipe, images[:1].float())[0, :8].flip(0)).all(1)
    assert 60 < int(mirrored.sum()) < 140
    assert torch.equal(first[~mirrored], to_symbols(recipe, images[: int((~mirrored).sum())].float())[:, :8])


def test_free_bits_are_free() -> None:
    """A posterior below the free bits has no reason to move to the prior."""
    network = build(RECIPE)
    x = to_symbols(RECIPE, torch.from_numpy(blobs(50, seed=0)).float())
    noise = torch.Generator().manual_seed(0)
    free = free_bits(1e3)(network, x, 0, noise)
    noise = torch.Generator().manual_seed(0)
    paid = wake(network, x, 0, noise)
    kl = network.posterior(x).kl_to_prior()
    assert torch.allclose(free, paid - kl.sum(1) + 1e3 * network.latents, rtol=1e-4)


def test_training_needs_more_images_than_it_holds_out(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", blobs(1, seed=0))
    arguments = ["train", str(tmp_path / "one.npy"), "-o", str(tmp_path / "model")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "holds out 1 images, got 1 in all" in result.stderr
