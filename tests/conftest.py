"""Small models, made here, that every test can afford, and what must hold of any."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

import bbans
from bbans.evaluated import EvaluatedModel
from bbans.intervals.gaussian import CENTRE_FRACTION
from bbans.model import Model, save_model
from bbans.nets import VAE, ContextShape, ResidualShape
from bbans.nets.likelihoods import LogisticMixture
from bbans.nets.local import LocalNetwork, LocalShape
from bbans.portable.engine import Engine
from bbans.portable.engines import engine_named
from bbans.portable.numpy_engine import NumpyEngine
from bbans.training.export import export
from bbans.training.freeze_local import freeze_local
from bbans.training.loop import build
from bbans.training.recipe import Recipe

settings.register_profile("bbans", deadline=None, max_examples=50)
settings.load_profile("bbans")

SHAPE = (5, 4)
ENGINES: list[Engine] = [engine_named("numpy"), engine_named("torch", "cpu")]
if find_spec("numba"):
    ENGINES.append(engine_named("numba"))


def tiny_model(likelihood: str) -> Model:
    """An untrained model of 5 x 4 pixels and 3 latents."""
    recipe = Recipe("tiny", SHAPE, likelihood, latents=3, hidden=(12, 9), latent_precision=8, epochs=1, seed=7)
    network = build(recipe)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, network.likelihood.symbols, (200, 20), generator=generator).float()
    return export(network, recipe, pixels)


def tiny_context_model(likelihood: str, image_shape: tuple[int, ...] = (*SHAPE, 3)) -> Model:
    """An untrained model whose likelihood sees the pixels before each."""
    shape = ContextShape(1, (4, 6), (6, 4), features=3, rows=2, columns=2, hidden=7, blocks=2, head=5)
    recipe = Recipe(
        "tiny-context",
        image_shape,
        likelihood,
        latent_precision=5,
        epochs=1,
        network="context",
        context=shape,
        components=3,
        masses=(0, 254, 255),
        seed=7,
    )
    network = build(recipe)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, network.likelihood.symbols, (50, network.pixels), generator=generator).float()
    return export(network, recipe, pixels)


def tiny_residual_model(likelihood: str, image_shape: tuple[int, ...] = (*SHAPE, 3)) -> Model:
    """An untrained residual model."""
    shape = ResidualShape(1, (4, 6), 2, (6, 5, 4), 2, hidden=3)
    recipe = Recipe(
        "tiny-residual",
        image_shape,
        likelihood,
        latent_precision=6,
        epochs=1,
        network="residual",
        residual=shape,
        components=3,
        masses=(0, 255),
        centre=0 if likelihood == "bernoulli" else 128,
        seed=7,
    )
    network = build(recipe)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, network.likelihood.symbols, (50, network.pixels), generator=generator).float()
    return export(network, recipe, pixels)


def tiny_local_network(channels: int, blocks: int = 2) -> LocalNetwork:
    """An untrained network for images of any size, whose distributions depend on all that they may."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        shape = LocalShape(rows=2, columns=3, hidden=7, blocks=blocks, head=5)
        network = LocalNetwork(channels, shape, LogisticMixture(2, ()))
        for output in network.outputs:
            output.weight += 0.03 * torch.randn(output.weight.shape)  # type: ignore[operator]
    return network


def tiny_local_model(channels: int, blocks: int = 2) -> Model:
    """The same, frozen."""
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(0, 256, (4, channels, 12, 10), generator=generator).float()
    pixels[2:] = pixels[2:].cumsum(2) / 40 % 256 // 1
    frozen = freeze_local(tiny_local_network(channels, blocks), pixels)
    colours = (channels,) if channels > 1 else ()
    return Model("tiny-local", (0, 0, *colours), "logistic-mixture", 0, 0, 8192, 0, frozen, {}, components=2)


@pytest.fixture(scope="session", params=[1, 3], ids=["grey", "colour"])
def local_model(request: pytest.FixtureRequest) -> Model:
    """A small model for images of any size."""
    return tiny_local_model(request.param)


@pytest.fixture(scope="session", params=["bernoulli", "discretized-logistic"])
def fully_connected_model(request: pytest.FixtureRequest) -> Model:
    """The small model without context, once for each of its likelihoods."""
    return tiny_model(request.param)


@pytest.fixture(
    scope="session",
    params=[
        "bernoulli",
        "discretized-logistic",
        "context+bernoulli",
        "context+logistic-mixture",
        "residual+channel-linear-logistic",
    ],
)
def model(request: pytest.FixtureRequest) -> Model:
    """A small model of every kind."""
    network, _, likelihood = request.param.rpartition("+")
    return {"": tiny_model, "context": tiny_context_model, "residual": tiny_residual_model}[network](likelihood)


@pytest.fixture(scope="session")
def binary_model() -> Model:
    return tiny_model("bernoulli")


@pytest.fixture(scope="session")
def model_folder(binary_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small binary model, saved."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    save_model(binary_model, folder / "model.safetensors")
    return folder


def random_images(model: Model, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise: nothing that any model likes."""
    return np.random.default_rng(seed).integers(0, model.symbols, (count, *model.image_shape), dtype=np.uint8)


@torch.no_grad()
def assert_frozen_agrees(network: VAE, recipe: Recipe, pixels: torch.Tensor, tolerance: float) -> None:
    """The frozen model says of pixels ``(images, pixels)`` what the trained network does: encoder outputs to a
    tolerance, and what images cost.
    """
    model = export(network, recipe, pixels)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine())
    x = pixels.numpy().astype(np.int64)

    q = network.posterior(pixels)
    outputs = evaluated.evaluate_encoder(x) / 65536
    assert np.abs(outputs - torch.cat([q.mean, q.log_deviation], 1).numpy()).max() < tolerance

    z = np.random.default_rng(0).integers(0, 1 << 8, (len(x), model.latents))
    latents = torch.tensor(evaluated.bins.centres[z] / 2**CENTRE_FRACTION, dtype=torch.float32)
    expected = -float(network.log_likelihood(pixels, latents).sum()) / math.log(2)
    assert evaluated.likelihood(z).bits(x) == pytest.approx(expected, rel=2e-3)


def many_images(model: Model) -> np.ndarray:
    """Enough, and in a type wide enough, for a small untrained model to be worth its bytes."""
    return bbans.sample_images(model, 20_000).astype("<f8")
