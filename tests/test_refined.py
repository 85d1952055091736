"""K steps: the right gradient, the same on every engine, and a lower rate."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_images

import bbans
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.inference.refined import BLOCK_MINIMUM, STEPS_MAXIMUM, Climb, LogProbGradient, natural_gradient
from bbans.intervals import Distribution, bernoulli, logistic
from bbans.model import Model
from bbans.nets import likelihood_named
from bbans.portable.engine import Engine
from bbans.portable.numpy_engine import NumpyEngine
from bbans.portable.torch_engine import TorchEngine


def flat(model: Model, count: int) -> np.ndarray:
    return random_images(model, count).reshape(count, -1).astype(np.int64)


def test_gradient_is_that_of_the_decoder(model: Model) -> None:
    """Against automatic differentiation of the same integers taken for real numbers."""
    x = flat(model, 40)
    refine = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=1).refine
    assert refine is not None
    z = np.random.default_rng(0).integers(-8000, 8000, (40, 3))
    found = refine.differentiate(z, refine.log_prob_gradient(x.astype(np.float32)))

    inputs = torch.tensor(z.astype(np.float64), requires_grad=True)
    y = inputs
    for layer in model.decoder.layers:
        weight, bias = (torch.tensor(tensor.astype(np.float64)) for tensor in (layer.weight, layer.bias))
        y = ((y @ weight.t() + bias) / 2**layer.shift).clamp(layer.minimum, layer.maximum)
    log_prob = likelihood_named(model.likelihood).log_prob(y / 65536, torch.tensor(x.astype(np.float64)))
    (expected,) = torch.autograd.grad(log_prob.sum(), inputs)
    assert np.abs(found - expected.numpy()).max() < 0.05 * np.abs(expected.numpy()).max()


@pytest.mark.parametrize(
    ("likelihood", "gradient"),
    [("bernoulli", bernoulli.log_prob_gradient), ("discretized-logistic", logistic.log_prob_gradient)],
)
def test_gradients_of_likelihoods(likelihood: str, gradient: LogProbGradient) -> None:
    """Tables against automatic differentiation, first and last level and values far out included."""
    rng = np.random.default_rng(0)
    named = likelihood_named(likelihood)
    x = rng.integers(0, named.symbols, (50, 40)).astype(np.float32)
    x[:10], x[10:20] = 0, named.symbols - 1
    outputs = rng.normal(0, 1.5, (50, 40 * named.outputs_per_pixel)).clip(-3.9, 3.9).astype(np.float32)
    tensor = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(named.log_prob(tensor, torch.tensor(x, dtype=torch.float64)).sum(), tensor)
    tolerance = np.full(outputs.shape, 0.03)
    if likelihood == "discretized-logistic":
        tolerance[:, :40] *= 128 * np.exp(-outputs[:, 40:])  # means are in 128 levels
    error = np.abs(gradient(x)(outputs) - expected.numpy())
    assert (error <= tolerance + 0.03 * np.abs(expected.numpy())).all()


def test_engines_agree_on_gradients(model: Model) -> None:
    z = np.random.default_rng(0).integers(-8000, 8000, (40, 3))
    noise = np.random.default_rng(1).normal(0, 1, (40, model.decoder.outputs)).astype(np.float32)
    noise[0] = 0

    def gradient(engine: Engine, rows: slice) -> np.ndarray:
        return engine.load_gradient(model.decoder)(z[rows], lambda results: noise[rows] * results)

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
        total += information(evaluated.likelihood(z.reshape(len(x), -1)), x.ravel())
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


def test_the_posterior_does_not_depend_on_the_batch(model: Model) -> None:
    x = flat(model, 30)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=3)
    together = evaluated.posterior(x)
    alone = [evaluated.posterior(image[None]) for image in x]
    assert (together.mean == np.concatenate([q.mean for q in alone])).all()
    assert (together.inverse_deviation == np.concatenate([q.inverse_deviation for q in alone])).all()


def test_the_posterior_does_not_depend_on_the_number_of_threads(binary_model: Model) -> None:
    x = flat(binary_model, 2 * BLOCK_MINIMUM + 3)
    evaluated = EvaluatedModel.of(binary_model, "amortized", NumpyEngine(), steps=2)
    one, three = evaluated.posterior(x), evaluated.on_threads(3).posterior(x)
    assert (one.mean == three.mean).all()


def test_files_with_steps_round_trip(model: Model) -> None:
    images = bbans.sample_images(model, 60)
    codec = bbans.Codec.of(model, steps=4)
    data = codec.compress(images, chunk_size=25)
    with bbans.open(data, model=model) as compressed:
        assert compressed.header.model is not None and compressed.header.model.steps == 4
        assert (compressed.read() == images).all()
    with pytest.raises(ModelError, match="4 steps"):
        bbans.Codec.of(model).decompress(data)


def test_absurd_numbers_of_steps_are_refused(model: Model) -> None:
    for steps in (-1, STEPS_MAXIMUM + 1):
        with pytest.raises(ModelError, match="0 to 1000 steps"):
            bbans.Codec.of(model, steps=steps)


def test_steps_that_go_astray_are_not_used(binary_model: Model) -> None:
    """Where the steps make a sample larger, the file is the one that K = 0 writes."""
    images = bbans.sample_images(binary_model, 300)
    codec = bbans.Codec.of(binary_model, steps=2)
    assert codec.evaluated is not None and codec.evaluated.refine is not None
    refine = replace(codec.evaluated.refine, climb=lambda slope, mean, log_deviation, steps: (mean + 3, log_deviation))
    astray = replace(codec, evaluated=replace(codec.evaluated, refine=refine))
    file = io.BytesIO()
    written = astray.write(file, images)
    assert written.steps == 0 and written.model is not None
    assert file.getvalue() == bbans.Codec.of(binary_model).compress(images)
    assert (astray.decompress(file.getvalue()) == images).all()
