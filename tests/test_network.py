"""Portable networks: exact on every engine, close to the network they were frozen from, refused if not provable."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from bbans.errors import CoreError, ModelError
from bbans.nets import multilayer_perceptron
from bbans.portable.engine import Engine
from bbans.portable.engines import engine_named
from bbans.portable.freeze import freeze
from bbans.portable.network import FLOAT32_EXACT, Linear, Network
from bbans.portable.numpy_engine import NumpyEngine
from bbans.portable.torch_engine import TorchEngine

ENGINES = [NumpyEngine(), NumpyEngine(block=1), NumpyEngine(block=7), TorchEngine("cpu"), TorchEngine("cpu", block=3)]
if torch.cuda.is_available():
    ENGINES.append(TorchEngine("cuda"))


def random_network(seed: int, magnitude: int = 255) -> Network:
    """Layers with the largest weights that a bound of 2**53 allows."""
    rng = np.random.default_rng(seed)
    widths = [20, 30, 11]
    layers = []
    for index, (before, after) in enumerate(pairwise(widths)):
        weight = rng.integers(-32767, 32768, (after, before)).astype(np.int16)
        bias = rng.integers(-(1 << 40), 1 << 40, after)
        minimum, maximum = (0, 65535) if index == 0 else (-(1 << 24), 1 << 24)
        layers.append(Linear(weight, bias, 20 - 10 * index, minimum, maximum))
    return Network(magnitude, tuple(layers))


def evaluate_in_python(network: Network, inputs: np.ndarray) -> np.ndarray:
    """The definition of a network, on Python's own integers."""
    rows = []
    for x in inputs.tolist():
        for layer in network.layers:
            sums = [
                sum(w * v for w, v in zip(row, x, strict=True)) + b
                for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            ]
            x = [min(max(value >> layer.shift, layer.minimum), layer.maximum) for value in sums]
        rows.append(x)
    return np.array(rows)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: f"{engine.name}-{engine.block}")
@pytest.mark.parametrize("seed", range(3))
def test_engines_compute_the_definition(engine: Engine, seed: int) -> None:
    network = random_network(seed)
    inputs = np.random.default_rng(seed).integers(-255, 256, (17, 20))
    assert (engine.load(network)(inputs) == evaluate_in_python(network, inputs)).all()


def test_a_layer_within_24_bits_is_evaluated_in_float32_and_still_exact() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-3000, 3001, (40, 500)).astype(np.int16)
    network = Network(8, (Linear(weight, np.arange(40), 3, -(1 << 24), 1 << 24),))
    assert network.bounds()[0] < FLOAT32_EXACT
    inputs = rng.integers(-8, 9, (50, 500))
    assert (NumpyEngine().load(network)(inputs) == evaluate_in_python(network, inputs)).all()


def test_empty_batch() -> None:
    for engine in ENGINES:
        assert engine.load(random_network(0))(np.empty((0, 20), np.int64)).shape == (0, 11)


def test_frozen_network_is_close_to_the_trained_one() -> None:
    torch.manual_seed(0)
    network = multilayer_perceptron(30, [50, 40], 7)
    inputs = torch.randint(0, 256, (300, 30)).float()
    frozen = freeze(network, inputs / 255, 1 / 255, 255)
    exact = network(inputs / 255).detach().numpy()
    integers = NumpyEngine().load(frozen)(inputs.long().numpy())
    np.testing.assert_allclose(integers / 65536, exact, atol=2e-4)


def test_bound_is_reached_and_not_exceeded() -> None:
    """The bound is the sum for the worst input."""
    layer = random_network(1).layers[0]
    worst = 255 * np.sign(layer.weight.astype(np.int64))
    sums = (layer.weight.astype(np.int64) * worst).sum(1) + np.abs(layer.bias)
    assert layer.bound(255) == sums.max()


def test_a_layer_that_could_be_inexact_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 0: sums can reach \d+, over 2\*\*53"):
        random_network(0, magnitude=1 << 38)


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (Linear(np.ones((3, 9), np.int16), np.zeros(3, np.int64), 1, 0, 5), "expected 11 inputs"),
        (Linear(np.ones((3, 11), np.int16), np.zeros(4, np.int64), 1, 0, 5), "biases of shape"),
        (Linear(np.ones((3, 11), np.int16), np.zeros(3, np.int64), -1, 0, 5), "make no sense"),
        (Linear(np.ones((3, 11), np.int16), np.zeros(3, np.int64), 1, 6, 5), "make no sense"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layer: Linear, match: str) -> None:
    with pytest.raises(ModelError, match=match):
        Network(255, (*random_network(0).layers, layer))


def test_unknown_engines_and_devices_are_refused() -> None:
    with pytest.raises(CoreError, match="no engine named 'abacus'"):
        engine_named("abacus")
    with pytest.raises(CoreError, match="runs on the CPU only"):
        engine_named("numpy", "cuda")
    with pytest.raises(CoreError, match="no device 'tpu'"):
        TorchEngine("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(CoreError, match="no CUDA device"):
            engine_named("torch", "cuda")
