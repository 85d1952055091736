"""Compiled code: layers at the edge of what 32 bits hold, and when it is taken."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from conftest import random_images, tiny_context_model
from hypothesis import given
from hypothesis import strategies as st

import bbans
from bbans.errors import CoreError, FormatError
from bbans.portable.convolution import Line
from bbans.portable.engine import Call, in_turn
from bbans.portable.engines import engine_named
from bbans.portable.layout import NO_MARGIN, Layout, Map, Margin, Place, Run, Scratch, Stored, Values
from bbans.portable.network import Linear, Network

pytest.importorskip("numba")

from bbans.portable.numba_dense import DenseNetwork
from bbans.portable.numba_engine import NumbaEngine, PairLayout, fits
from bbans.portable.numpy_engine import NumpyEngine


@given(
    channels=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    outputs=st.integers(1, 19),
    images=st.integers(1, 70),
    largest=st.sampled_from([1, 300, 32767]),
    wide=st.booleans(),
    adding=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_products_are_exact(
    channels: list[int], outputs: int, images: int, largest: int, wide: bool, adding: bool, seed: int
) -> None:
    """Against Python's integers, with sums close to 2**31."""
    rng = np.random.default_rng(seed)
    inputs = sum(channels)
    magnitude = min(32767, ((1 << 31) - 1 - (1 << 20)) // (largest * inputs))
    weight = rng.choice([-largest, largest, largest // 2], (outputs, inputs)).astype(np.int16)
    bias = rng.integers(-(1 << 20), 1 << 20, outputs)
    maximum = 1 << 24 if wide else 32767
    layer = Linear(weight, bias, int(rng.integers(0, 18)), -maximum, maximum)
    assert fits(layer, magnitude)
    parts = [
        rng.choice([-magnitude, magnitude, 0, 7 % (magnitude + 1)], (2, 3, width, images)).astype(np.float32)
        for width in channels
    ]
    added = rng.integers(0, 32767, (2, 3, outputs, images)).astype(np.float32) if adding and not wide else None

    engine = NumbaEngine()
    product = engine.load_product(layer, magnitude, channels, added_maximum=30000)
    stored = [_positions(engine.layout, part) for part in parts]
    more = None if added is None else _positions(engine.layout, added)
    found = product.read(product(stored, more), images)

    x = np.concatenate(parts, axis=2).astype(object).reshape(6, inputs, images)
    expected = np.array([(weight.astype(object) @ position + bias.astype(object)[:, None]) for position in x])
    expected = np.clip(expected // (1 << layer.shift), -maximum, maximum)
    if added is not None:
        expected = np.clip(expected + added.reshape(6, outputs, images).astype(object), 0, 30000)
    assert (found == expected.astype(np.float32)).all()


@given(
    widths=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    images=st.integers(1, 70),
    magnitude=st.sampled_from([1, 255, 32767, 65535]),
    seed=st.integers(0, 1 << 32),
)
def test_dense_networks_are_exact(widths: list[int], images: int, magnitude: int, seed: int) -> None:
    """Against Python's integers, with activations of up to 16 bits, and sums close to 2**39."""
    rng = np.random.default_rng(seed)
    layers, magnitudes = [], [magnitude]
    for inputs, outputs in itertools.pairwise(widths):
        largest = min(32767, (1 << 23) // inputs - 1)
        weight = rng.choice([-largest, largest, largest // 2, 1], (outputs, inputs)).astype(np.int16)
        bias = rng.integers(-(1 << 40), 1 << 40, outputs)
        maximum = int(rng.choice([255, 32767, 65535]))
        layers.append(Linear(weight, bias, int(rng.integers(15, 30)), int(rng.choice([0, -32767])), maximum))
        magnitudes.append(maximum)
    network = Network(magnitude, tuple(layers))
    evaluate = DenseNetwork.of(network)
    assert evaluate is not None
    x = rng.choice([0, magnitude, magnitude // 2, -min(magnitude, 32767)], (images, widths[0])).astype(np.int64)
    expected = x.astype(object)
    for layer in layers:
        sums = expected @ layer.weight.astype(object).T + layer.bias.astype(object)
        expected = np.clip(sums // (1 << layer.shift), layer.minimum, layer.maximum)
    assert (evaluate(x) == expected).all()


def test_dense_networks_that_may_leave_32_bits_go_to_numpy() -> None:
    def network(weight: int, magnitude: int, maximum: int) -> Network:
        layers = [
            Linear(np.full((2, width), weight, np.int16), np.zeros(2, np.int64), 8, 0, maximum) for width in (300, 2)
        ]
        return Network(magnitude, tuple(layers))

    assert DenseNetwork.of(network(25000, 65535, 65535)) is not None
    for too_large in (network(32767, 65535, 65535), network(100, 65536, 65535), network(100, 255, 65536)):
        assert DenseNetwork.of(too_large) is None
        x = np.full((1, 300), too_large.input_magnitude, np.int64)
        assert (NumbaEngine().load(too_large)(x) == NumpyEngine().load(too_large)(x)).all()


def _map(layout: Layout, values: Values, margin: Margin = NO_MARGIN) -> Map:
    height, width, channels, images = values.shape
    found = Map.empty(layout, images, (height, width), layout.groups(channels), margin)
    layout.store(values, found.inside)
    return found


def _positions(layout: Layout, values: Values) -> Stored:
    stored = _map(layout, values).stored
    return stored.reshape(len(stored), -1, *stored.shape[-2:])


@given(channels=st.integers(1, 5), images=st.integers(1, 70), channel=st.integers(0, 4), seed=st.integers(0, 1 << 32))
def test_channels_are_written_one_by_one(channels: int, images: int, channel: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout, channel = PairLayout(), channel % channels
    values = rng.integers(-32768, 32768, (2, 3, channels, images)).astype(np.float32)
    new = rng.integers(-32768, 32768, (3, images)).astype(np.float32)
    stored = _map(layout, values).stored
    layout.write(stored[:, 1], channel, new)
    values[1, :, channel] = new
    assert (stored == _map(layout, values).stored).all()


@pytest.mark.parametrize("engine", [NumbaEngine(), NumpyEngine()], ids=lambda engine: engine.name)
def test_calls_are_products_in_turn(engine: NumbaEngine | NumpyEngine) -> None:
    """Along a diagonal, with a run that reaches into the margin, a scratch between two layers, and a sum."""
    rng = np.random.default_rng(0)
    first = Linear(rng.integers(-50, 50, (5, 9)).astype(np.int16), rng.integers(-99, 99, 5), 4, 0, 2047)
    second = Linear(rng.integers(-50, 50, (3, 5)).astype(np.int16), rng.integers(-99, 99, 3), 4, -2047, 2047)
    values = rng.integers(-200, 200, (4, 4, 3, 40)).astype(np.float32)
    products = [
        engine.load_product(first, 200, [3, 3, 3]),
        engine.load_product(second, 2047, [5], added_maximum=2000),
    ]
    source = _map(engine.layout, values, Margin(1, 1, 1, 1))
    results = []
    for load in (engine.load_calls, in_turn):
        out = _map(engine.layout, np.zeros_like(values))
        between = Scratch(
            np.empty((len(source.stored), 4, products[0].groups, source.stored.shape[-1]), source.stored.dtype)
        )
        calls = [
            Call(products[0], (Place(source, Run(-1, -1, 3)),), Place(between)),
            Call(products[1], (Place(between),), Place(out), Place(source)),
        ]
        load(calls)(Line(0, 3, 1, -1, 4))
        results.append(out.stored)
    assert (results[0] == results[1]).all() and results[0].any()


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic-mixture"])
@pytest.mark.parametrize("channels", [1, 3])
def test_engines_and_cores_can_be_mixed(likelihood: str, channels: int) -> None:
    """More images than a tile holds, and lanes that grow: each writes the same, and reads what others wrote."""
    model = tiny_context_model(likelihood, (4, 5, channels))
    images = random_images(model, 300)
    codecs = [
        bbans.Codec.of(model, engine=engine, ans=ans) for engine in ("numpy", "numba") for ans in ("numpy", "numba")
    ]
    coders = [codec.chunk_coder() for codec in codecs]
    x = images.reshape(len(images), -1).astype(np.int64)
    payloads = [coder.encode(x) for coder in coders]
    assert len(set(payloads)) == 1
    assert all((coder.decode(payloads[0], len(x)) == x).all() for coder in coders)


def test_a_payload_without_end_is_refused() -> None:
    model = tiny_context_model("bernoulli")
    coder = bbans.Codec.of(model, engine="numba").chunk_coder()
    payload = coder.encode(np.zeros((60, model.pixels), np.int64))
    with pytest.raises(FormatError, match="damaged"):
        coder.decode(payload[:40], 60)


def test_layers_that_may_leave_32_bits_go_to_numpy() -> None:
    layer = Linear(np.full((2, 4), 32767, np.int16), np.zeros(2, np.int64), 8, 0, 2047)
    engine = NumbaEngine()
    assert engine.suited([(layer, 100)]) is engine
    assert isinstance(engine.suited([(layer, 100), (layer, 16385)]), NumpyEngine)
    assert isinstance(engine.suited([(layer, 40000)]), NumpyEngine)


def test_compiled_code_is_taken_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_named().name == engine_named(multiply_adds=1 << 40).name == "numba"
    assert engine_named(multiply_adds=1000).name == "numpy"
    mnist, dense = (bbans.load_model(name).multiply_adds(1000 * 784) for name in ("mnist", "gg-mnist"))
    assert 1e9 < dense < 3e9 < 2e10 < mnist < 5e10, "as many as its layers have weights, where they are used"
    codec = bbans.Codec.of(tiny_context_model("bernoulli"))
    assert type(codec.core).__name__ == "NumbaCore"
    monkeypatch.setitem(sys.modules, "bbans.portable.numba_engine", None)
    assert engine_named().name == "numpy"
    with pytest.raises(CoreError, match="needs numba"):
        engine_named("numba")
    with pytest.raises(CoreError, match="CPU only"):
        engine_named("numpy", "cuda")


def test_the_package_does_without_numba() -> None:
    """Nothing imports it before it is asked for."""
    code = """
import sys
sys.modules["numba"] = None
import numpy as np, bbans, bbans.cli
images = np.zeros((3, 28, 28), np.uint8)
codec = bbans.Codec.of(bbans.load_model("mnist-binary"), engine="numpy")
assert (codec.decompress(codec.compress(images)) == images).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
