"""K steps: the right gradient, the same on every engine, and a lower rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_images

import bbans
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.inference.refined import PAPER, STEPS_MAXIMUM, Optimizer, noise_table
from bbans.intervals import Distribution
from bbans.model import Model
from bbans.nets import likelihood_named
from bbans.portable.network import BackwardPass
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
    found = refine.differentiate(z, lambda outputs, part: refine.likelihood_gradient(outputs, x[part]))

    inputs = torch.tensor(z.astype(np.float64), requires_grad=True)
    y = inputs
    for layer in model.decoder.layers:
        weight, bias = (torch.tensor(tensor.astype(np.float64)) for tensor in (layer.weight, layer.bias))
        y = ((y @ weight.t() + bias) / 2**layer.shift).clamp(layer.minimum, layer.maximum)
    log_prob = likelihood_named(model.likelihood).log_prob(y / 65536, torch.tensor(x.astype(np.float64)))
    (expected,) = torch.autograd.grad(log_prob.sum(), inputs)
    error = found * refine.gradient_unit / 4096 - expected.numpy()
    assert np.abs(error).max() < 0.05 * np.abs(expected.numpy()).max()


def test_engines_agree_on_gradients(model: Model) -> None:
    backward = BackwardPass.of(model.decoder)
    z = np.random.default_rng(0).integers(-8000, 8000, (40, 3))
    gradient = np.random.default_rng(1).integers(-(1 << 26), 1 << 26, (40, model.decoder.outputs))
    results = [
        engine.load_gradient(model.decoder, backward)(z, lambda outputs, part: gradient[part] + outputs % 7)
        for engine in (NumpyEngine(), NumpyEngine(1), NumpyEngine(7), TorchEngine("cpu"), TorchEngine("cpu", 3))
    ]
    for result in results[1:]:
        assert (result == results[0]).all()


def information(distribution: Distribution, symbols: np.ndarray) -> float:
    return float(np.sum(distribution.precision - np.log2(distribution.interval(symbols)[1].astype(float))))


def cost(model: Model, images: np.ndarray, steps: int, optimizer: Optimizer | None = None) -> float:
    """Negative ELBO in bits, averaged over a few samples."""
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps, optimizer)
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
    assert costs[2] < cost(model, images, 10, PAPER) < costs[0]


def test_the_posterior_does_not_depend_on_the_batch(model: Model) -> None:
    x = flat(model, 30)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=3)
    together = evaluated.posterior(x)
    alone = [evaluated.posterior(image[None]) for image in x]
    assert (together.mean == np.concatenate([q.mean for q in alone])).all()
    assert (together.inverse_deviation == np.concatenate([q.inverse_deviation for q in alone])).all()


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


def test_noise_is_normal_antithetic_and_fixed() -> None:
    table = noise_table(10, 2)
    assert table.shape == (STEPS_MAXIMUM, 2, 10)
    assert (table[:, 0] == -table[:, 1]).all()
    assert abs(table[:, 0].mean()) < 0.03 and abs(table[:, 0].std() - 1) < 0.03
    assert noise_table(10, 1)[0, 0, :3].tolist() == table[0, 0, :3].tolist()
