"""Compiled code: layers at the edge of what 32 bits hold, and when it is taken."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import tiny_context_model
from hypothesis import given
from hypothesis import strategies as st

import bbans
from bbans.errors import CoreError
from bbans.portable.convolution import Line
from bbans.portable.engine import Call, in_turn
from bbans.portable.engines import engine_named
from bbans.portable.layout import Map, Place, Run, Scratch
from bbans.portable.network import Linear

pytest.importorskip("numba")

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
    stored = [engine.layout.store(part).reshape(-1, 6, *engine.layout.store(part).shape[-2:]) for part in parts]
    more = None if added is None else engine.layout.store(added).reshape(len(stored[0]), 6, -1, stored[0].shape[-1])
    found = product.read(product(stored, more), images)

    x = np.concatenate(parts, axis=2).astype(object).reshape(6, inputs, images)
    expected = np.array([(weight.astype(object) @ position + bias.astype(object)[:, None]) for position in x])
    expected = np.clip(expected // (1 << layer.shift), -maximum, maximum)
    if added is not None:
        expected = np.clip(expected + added.reshape(6, outputs, images).astype(object), 0, 30000)
    assert (found == expected.astype(np.float32)).all()


@given(channels=st.integers(1, 5), images=st.integers(1, 70), channel=st.integers(0, 4), seed=st.integers(0, 1 << 32))
def test_channels_are_written_one_by_one(channels: int, images: int, channel: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout, channel = PairLayout(), channel % channels
    values = rng.integers(-32768, 32768, (2, 3, channels, images)).astype(np.float32)
    new = rng.integers(-32768, 32768, (3, images)).astype(np.float32)
    stored = layout.store(values)
    layout.write(stored[:, 1], channel, new)
    values[1, :, channel] = new
    assert (stored == layout.store(values)).all()


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
    source = Map.of(engine.layout.store(values), 1, 1, 1, 1)
    results = []
    for load in (engine.load_calls, in_turn):
        out = Map.of(engine.layout.store(np.zeros_like(values)), 0, 0, 0, 0)
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


def test_layers_that_may_leave_32_bits_go_to_numpy() -> None:
    layer = Linear(np.full((2, 4), 32767, np.int16), np.zeros(2, np.int64), 8, 0, 2047)
    engine = NumbaEngine()
    assert engine.suited([(layer, 100)]) is engine
    assert isinstance(engine.suited([(layer, 100), (layer, 16385)]), NumpyEngine)
    assert isinstance(engine.suited([(layer, 40000)]), NumpyEngine)


def test_compiled_code_is_taken_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_named().name == engine_named(pixels=1 << 20).name == "numba"
    assert engine_named(pixels=1000).name == "numpy"
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
