"""K steps: the right gradient, the same on every engine, and a lower rate."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import random_images

import bbans
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.inference.refined import BLOCK_MINIMUM, STEPS_MAXIMUM, Climb, Look, View, natural_gradient
from bbans.intervals import Distribution, bernoulli, logistic
from bbans.intervals.log_prob import Floats32, LogProb
from bbans.model import Model
from bbans.nets import Bernoulli, DiscretizedLogistic, Likelihood
from bbans.portable.engine import Engine
from bbans.portable.network import Linear, Network
from bbans.portable.numpy_engine import NumpyEngine
from bbans.portable.torch_engine import TorchEngine

LIKELIHOODS: dict[str, Likelihood] = {"bernoulli": Bernoulli(), "discretized-logistic": DiscretizedLogistic()}


def flat(model: Model, count: int) -> np.ndarray:
    return random_images(model, count).reshape(count, -1).astype(np.int64)


def test_gradient_is_that_of_the_decoder(fully_connected_model: Model) -> None:
    """Against automatic differentiation of the same integers taken for real numbers."""
    model = fully_connected_model
    x = flat(model, 40)
    refine = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=1).refine
    assert refine is not None
    z = np.random.default_rng(0).integers(-8000, 8000, (40, 3))
    outputs, pull_back = refine.linearize(z)
    _, gradient = refine.log_prob(x.astype(np.float32))(outputs)
    found = pull_back(gradient(), slice(None))

    inputs = torch.tensor(z.astype(np.float64), requires_grad=True)
    y = inputs
    for layer in model.decoder.layers:
        weight, bias = (torch.tensor(tensor.astype(np.float64)) for tensor in (layer.weight, layer.bias))
        y = ((y @ weight.t() + bias) / 2**layer.shift).clamp(layer.minimum, layer.maximum)
    log_prob = LIKELIHOODS[model.likelihood].log_prob(y / 65536, torch.tensor(x.astype(np.float64)))
    (expected,) = torch.autograd.grad(log_prob.sum(), inputs)
    assert np.abs(found - expected.numpy()).max() < 0.05 * np.abs(expected.numpy()).max()


@pytest.mark.parametrize(
    ("likelihood", "log_prob"),
    [("bernoulli", bernoulli.log_prob), ("discretized-logistic", logistic.log_prob)],
)
def test_log_probabilities_and_their_gradients(likelihood: str, log_prob: Callable[[Floats32], LogProb]) -> None:
    """Tables against automatic differentiation, first and last level and values far out included."""
    rng = np.random.default_rng(0)
    named = LIKELIHOODS[likelihood]
    x = rng.integers(0, named.symbols, (50, 40)).astype(np.float32)
    x[:10], x[10:20] = 0, named.symbols - 1
    outputs = rng.normal(0, 1.5, (50, 40 * named.outputs_per_pixel)).clip(-3.9, 3.9).astype(np.float32)
    tensor = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    exact = named.log_prob(tensor, torch.tensor(x, dtype=torch.float64))
    (expected,) = torch.autograd.grad(exact.sum(), tensor)
    sums, gradient = log_prob(x)(outputs)
    parts = np.split(outputs, named.outputs_per_pixel, axis=1)
    single = log_prob(x.reshape(-1, 1))(np.stack([part.ravel() for part in parts], axis=1))[0].reshape(x.shape)
    assert (single.sum(axis=1) == sums).all()
    possible = exact.detach().numpy().reshape(x.shape).clip(min=-13)  # what is less likely, coding doesn't know
    assert (np.abs(single.clip(min=-13) - possible) < 0.01 - 0.004 * possible).all()
    tolerance = np.full(outputs.shape, 0.03)
    if likelihood == "discretized-logistic":
        tolerance[:, :40] *= 128 * np.exp(-outputs[:, 40:])  # means are in 128 levels
    error = np.abs(gradient() - expected.numpy())
    assert (error <= tolerance + 0.03 * np.abs(expected.numpy())).all()


def test_engines_agree_on_gradients(fully_connected_model: Model) -> None:
    model = fully_connected_model
    z = np.random.default_rng(0).integers(-8000, 8000, (40, 3))
    noise = np.random.default_rng(1).normal(0, 1, (40, model.decoder.outputs)).astype(np.float32)
    noise[0] = 0

    def gradient(engine: Engine, rows: slice) -> np.ndarray:
        results, pull_back = engine.load_gradient(model.decoder)(z[rows])
        return pull_back(noise[rows] * results, slice(None))

    everything = slice(None)
    results = [gradient(NumpyEngine(), everything), gradient(TorchEngine("cpu"), everything)]
    for size in (1, 7):
        parts = [gradient(NumpyEngine(), slice(first, first + size)) for first in range(0, 40, size)]
        results.append(np.concatenate(parts))
    assert (results[0][0] == 0).all() and (results[0][1:] != 0).any()
    for result in results[1:]:
        assert (result == results[0]).all()


def information(distribution: Distribution, symbols: np.ndarray) -> float:
    return float(np.sum(distribution.precision - np.log2(distribution.interval(symbols)[1].astype(float))))


def cost(model: Model, images: np.ndarray, steps: int, climb: Climb = natural_gradient) -> float:
    """Negative ELBO in bits, averaged over a few samples."""
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps, climb)
    x = images.reshape(len(images), -1).astype(np.int64)
    q = evaluated.posterior(x)
    total = 0.0
    for seed in range(8):
        z = q.locate(np.random.default_rng(seed).integers(0, 1 << q.precision, len(q)).astype(np.uint64))[0]
        total += evaluated.likelihood(z.reshape(len(x), -1)).bits(x)
        total += information(evaluated.prior(len(x)), z) - information(q, z)
    return total / 8


@pytest.mark.parametrize("name", ["gg-mnist-binary", "gg-mnist"])
def test_steps_lower_the_rate_faster_than_the_papers(name: str) -> None:
    """Images that the encoder was not made for leave room for optimization."""
    model = bbans.load_model(name)
    images = np.roll(bbans.sample_images(model, 30), 3, axis=2)
    costs = [cost(model, images, steps) for steps in (0, 1, 5, 10)]
    assert costs[0] > costs[1] > costs[2] > costs[3]
    assert costs[1] < cost(model, images, 5, adam) < costs[0]


@pytest.mark.parametrize("name", ["gg-mnist-binary", "gg-mnist"])
def test_steps_don_t_go_astray_on_strange_images(name: str) -> None:
    """Where the encoder knows nothing, its deviations are no measure of how far to go; the steps gain all the same."""
    model = bbans.load_model(name)
    drawn = bbans.sample_images(model, 20)
    noise = np.random.default_rng(0).integers(0, model.symbols, drawn.shape).astype(np.uint8)
    for images in (model.symbols - 1 - drawn, noise, drawn[:, ::-1]):
        costs = [cost(model, images, steps) for steps in (0, 1, 2, 4, 8, 30)]
        assert max(costs[1:]) < costs[0]


def narrow_model(log_scale: float, log_deviation: float) -> Model:
    """A decoder whose pixels are far narrower than an encoder, which gives the same posterior for all images, knows."""
    rng = np.random.default_rng(0)
    pixels, latents = 36, 4
    weight = np.concatenate([rng.integers(-20000, 20000, (pixels, latents)), np.zeros((pixels, latents))])
    bias = np.concatenate([np.full(pixels, 1 << 16), np.full(pixels, round(log_scale * 65536))])
    decoder = Network(1 << 15, (Linear(weight.astype(np.int16), bias.astype(np.int64) << 12, 12, -(1 << 20), 1 << 20),))
    constant = np.array([0] * latents + [round(log_deviation * 65536)] * latents)
    encoder = Network(255, (Linear(np.zeros((2 * latents, pixels), np.int16), constant, 0, -(1 << 20), 1 << 20),))
    return Model("narrow", (6, 6), "discretized-logistic", latents, 12, 200, 40, decoder, {"amortized": encoder})


@pytest.mark.parametrize("log_scale", [-4.0, -1.0, 2.0])
@pytest.mark.parametrize("log_deviation", [-3.0, -1.5, 0.0])
def test_steps_never_lose_where_the_likelihood_is_narrow(log_scale: float, log_deviation: float) -> None:
    """The encoder's deviations send the first step far over the mark."""
    model = narrow_model(log_scale, log_deviation)
    images = bbans.sample_images(model, 40)
    costs = [cost(model, images, steps) for steps in (0, 1, 2, 3, 5, 10, 50)]
    assert max(costs[1:]) <= costs[0]


def test_log_prob_never_falls_and_images_that_have_arrived_rest(fully_connected_model: Model) -> None:
    model = fully_connected_model
    heights = []

    def recorded(look: Look, mean: np.ndarray, log_deviation: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        looks = []

        def counted(z: np.ndarray, rows: np.ndarray) -> View:
            looks.append(len(rows))
            return look(z, rows)

        refined = natural_gradient(counted, mean, log_deviation, steps)
        assert looks == sorted(looks, reverse=True) and len(looks) <= steps + 1
        assert len(looks) < STEPS_MAXIMUM
        heights.append(look(refined[0], np.arange(len(mean))).height)
        return refined

    x = flat(model, 30)
    for steps in (1, 2, 3, 5, 10, 20, STEPS_MAXIMUM):
        EvaluatedModel.of(model, "amortized", NumpyEngine(), steps, recorded).posterior(x)
    for fewer, more in pairwise(heights):
        assert (more >= fewer).all()


def test_the_posterior_does_not_depend_on_the_batch_or_the_engine(fully_connected_model: Model) -> None:
    model = fully_connected_model
    x = flat(model, 30)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=20)
    together = evaluated.posterior(x)
    alone = [evaluated.posterior(image[None]) for image in x]
    assert (together.mean == np.concatenate([q.mean for q in alone])).all()
    assert (together.inverse_deviation == np.concatenate([q.inverse_deviation for q in alone])).all()
    with_torch = EvaluatedModel.of(model, "amortized", TorchEngine("cpu"), steps=20).posterior(x)
    assert (together.mean == with_torch.mean).all()


def test_the_posterior_does_not_depend_on_the_number_of_threads(binary_model: Model) -> None:
    x = flat(binary_model, 2 * BLOCK_MINIMUM + 3)
    evaluated = EvaluatedModel.of(binary_model, "amortized", NumpyEngine(), steps=2)
    one, three = evaluated.posterior(x), evaluated.on_threads(3).posterior(x)
    assert (one.mean == three.mean).all()


def test_files_with_steps_round_trip(fully_connected_model: Model) -> None:
    model = fully_connected_model
    images = bbans.sample_images(model, 60)
    codec = bbans.Codec.of(model, steps=4)
    data = codec.compress(images, chunk_size=25)
    with bbans.open(data, model=model) as compressed:
        assert compressed.header.model is not None and compressed.header.model.steps == 4
        assert (compressed.read() == images).all()
    with pytest.raises(ModelError, match="4 steps"):
        bbans.Codec.of(model).decompress(data)


def test_absurd_numbers_of_steps_are_refused(fully_connected_model: Model) -> None:
    model = fully_connected_model
    for steps in (-1, STEPS_MAXIMUM + 1):
        with pytest.raises(ModelError, match="0 to 1000 steps"):
            bbans.Codec.of(model, steps=steps)
