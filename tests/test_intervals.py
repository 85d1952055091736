"""Distributions: intervals tile the range, searching finds them, and they agree with what training sees."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bbans import nets
from bbans.ans import core_named
from bbans.errors import ImpossibleSymbol
from bbans.intervals import (
    Bernoulli,
    ChannelLinearLogistic,
    DiscretizedLogistic,
    Distribution,
    GaussianBins,
    LogisticMixture,
    Maker,
    NumpyMaker,
    PriorBins,
    Uniform,
    pop,
    push,
)
from bbans.intervals.tensors import TensorMaker
from bbans.portable import elementary
from bbans.portable.torch_device import Device

OUTPUTS = st.integers(-(1 << 24), 1 << 24)
"""What a network can put out: multiples of 2**-16 up to 256."""
BITS = 7


def network_outputs(count: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int64, count, elements=OUTPUTS)


MAKERS: dict[str, Maker] = {"": NumpyMaker(), "device ": TensorMaker(Device("cpu"))}
if find_spec("numba"):
    from bbans.intervals.compiled import CompiledMaker

    MAKERS["compiled "] = CompiledMaker()
OF_PIXELS = ["uniform", *[f"{maker}{kind}" for maker in MAKERS for kind in ("bernoulli", "logistic", "mixture")]]
KINDS = [*OF_PIXELS, *[f"{maker}gaussian" for maker in MAKERS]]


def make(kind: str, first: np.ndarray, second: np.ndarray) -> tuple[Distribution, int]:
    """A distribution from raw network outputs, and how many symbols it has."""
    if kind == "uniform":
        return Uniform(len(first), BITS), 1 << BITS
    name, _, kind = kind.rpartition(" ")
    maker = MAKERS[f"{name} " if name else ""]
    if kind == "bernoulli":
        return maker.bernoulli(first[None, None]), 2
    if kind == "mixture":
        # As many parameters as it takes, all from the two.
        outputs = np.stack([np.roll(part, index) // (index + 1) for index in range(6) for part in (first, second)])
        return maker.mixture(outputs[None], 3, (0, 7, 255)), 256
    outputs = np.stack([first, second])[None]
    return (
        (maker.logistic(outputs), 256)
        if kind == "logistic"
        else (maker.gaussian(PriorBins.of(BITS), outputs), 1 << BITS)
    )


@pytest.mark.parametrize("maker", list(MAKERS)[1:])
@pytest.mark.parametrize("kind", ["bernoulli", "logistic", "mixture", "gaussian"])
@given(first=network_outputs(9), second=network_outputs(9), seed=st.integers(0, 1 << 32), first_kept=st.integers(0, 8))
def test_all_makers_find_the_same(
    maker: str, kind: str, first: np.ndarray, second: np.ndarray, seed: int, first_kept: int
) -> None:
    numpy, _ = make(kind, first, second)
    other, _ = make(maker + kind, first, second)
    kept = slice(first_kept, None)
    assert len(other) == len(numpy) == 9 and len(other[kept]) == len(numpy[kept])
    values = np.random.default_rng(seed).integers(0, 1 << numpy.precision, 9 - first_kept).astype(np.uint64)
    for expected, found in zip(numpy[kept].locate(values), other[kept].locate(values), strict=True):
        assert (expected == found).all() and expected.dtype == found.dtype


def test_outputs_come_group_after_group() -> None:
    """The members of a group lie beside each other, its kinds of parameters after each other."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(-(1 << 18), 1 << 18, (5, 12, 7))
    flat = np.ascontiguousarray(outputs.swapaxes(0, 1)).reshape(1, 12, 35)
    values = rng.integers(0, 1 << 24, 35).astype(np.uint64)
    expected = LogisticMixture.from_outputs(flat[0], 3, (0, 7, 255)).locate(values)
    for maker in MAKERS.values():
        for given_as in (outputs, flat, outputs.astype(np.float32)):
            found = maker.mixture(given_as, 3, (0, 7, 255)).locate(values)
            assert all((first == second).all() for first, second in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", OF_PIXELS)
@given(first=network_outputs(1), second=network_outputs(1))
def test_intervals_tile_the_range(kind: str, first: np.ndarray, second: np.ndarray) -> None:
    distribution, symbols = make(kind, np.repeat(first, 256), np.repeat(second, 256))
    start, frequency = distribution[:symbols].interval(np.arange(symbols))
    assert start[0] == 0
    assert (frequency >= 1).all()
    assert (start[1:] == start[:-1] + frequency[:-1]).all()
    assert start[-1] + frequency[-1] == 1 << distribution.precision


@pytest.mark.parametrize("kind", KINDS)
@given(first=network_outputs(9), second=network_outputs(9), seed=st.integers(0, 1 << 32))
def test_every_value_is_located_in_its_interval(kind: str, first: np.ndarray, second: np.ndarray, seed: int) -> None:
    distribution, symbols = make(kind, first, second)
    values = np.random.default_rng(seed).integers(0, 1 << distribution.precision, 9).astype(np.uint64)
    values[0], values[1] = 0, (1 << distribution.precision) - 1
    located, start, frequency = distribution.locate(values)
    assert (located >= 0).all() and (located < symbols).all()
    assert (start <= values).all() and (values < start + frequency).all()
    again = distribution.interval(located)
    assert (again[0] == start).all() and (again[1] == frequency).all()


@pytest.mark.parametrize("kind", KINDS)
@given(first=network_outputs(23), second=network_outputs(23), lanes=st.integers(1, 30), seed=st.integers(0, 1 << 32))
def test_pop_and_push_are_inverse(kind: str, first: np.ndarray, second: np.ndarray, lanes: int, seed: int) -> None:
    distribution, _ = make(kind, first, second)
    words = np.random.default_rng(seed).integers(0, 1 << 32, 200, dtype=np.uint32)
    words[:lanes] = HIGH_WORD
    stack = core_named().from_words(words, lanes)
    symbols = pop(stack, distribution)
    push(stack, distribution, symbols)
    assert (stack.to_words() == words).all()
    push(stack, distribution, symbols)
    assert (pop(stack, distribution) == symbols).all()
    assert (stack.to_words() == words).all()


HIGH_WORD = 0x40000000


def test_bernoulli_agrees_with_training() -> None:
    logits = np.linspace(-9, 9, 1001)
    pixels = np.arange(1001) % 2
    frequency = Bernoulli.from_logits(np.rint(logits * 65536).astype(np.int64)).interval(pixels)[1]
    trained = nets.Bernoulli().log_prob(torch.tensor(logits[None]), torch.tensor(pixels[None]).double())[0].numpy()
    np.testing.assert_allclose(np.log(frequency / 2.0**20), trained, atol=0.01)


def test_logistic_agrees_with_training() -> None:
    rng = np.random.default_rng(0)
    mean, log_scale = rng.uniform(-0.2, 2.2, 5000), rng.uniform(-2, 4, 5000)
    scale = np.exp(log_scale)
    pixels = np.clip(np.rint(128 * mean + scale * rng.logistic(size=5000)), 0, 255)
    coded = DiscretizedLogistic.from_outputs(
        np.rint(mean * 65536).astype(np.int64), np.rint(log_scale * 65536).astype(np.int64)
    )
    frequency = coded.interval(pixels.astype(np.int64))[1]
    outputs = torch.tensor(np.concatenate([mean, log_scale])[None])
    trained = nets.DiscretizedLogistic().log_prob(outputs, torch.tensor(pixels[None]))[0].numpy()
    np.testing.assert_allclose(np.log(frequency / 2.0**24), trained, atol=0.02)


def test_channel_linear_logistic_agrees_with_training() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(1, 0.1, (3, 500)), rng.uniform(2, 4, (3, 500)), rng.normal(0.5, 0.5, (3, 500))
    outputs = [np.rint(part * 65536).astype(np.int64) for part in kinds]
    pixels = ChannelLinearLogistic.from_outputs(*outputs)
    x = rng.integers(90, 170, (3, 500))
    ours = []
    for channel in range(3):
        _, frequency = pixels.channel(list(x[:channel])).interval(x[channel])
        ours.append(np.log(frequency / 2**24))
    likelihood = nets.ChannelLinearLogistic()
    theirs = likelihood.log_prob(
        torch.tensor(np.concatenate([part / 65536 for part in outputs]).reshape(1, -1)), torch.tensor(x.reshape(1, -1))
    )
    likely = theirs.numpy().ravel() > -10  # below, the 1 that every level gets counts
    assert likely.mean() > 0.4
    np.testing.assert_allclose(np.concatenate(ours)[likely], theirs.numpy().ravel()[likely], atol=0.02)


def test_later_channels_expect_what_earlier_ones_show() -> None:
    """Worked out by hand: means 100, 120 and 140; red 8 above, green 20 above its mean."""
    levels = np.array([[100.0], [120.0], [140.0]])
    pixels = ChannelLinearLogistic.from_outputs(
        np.rint(levels * 512).astype(np.int64),
        np.zeros((3, 1), np.int64),
        np.rint(np.array([[1.5], [-0.25], [0.5]]) * 65536).astype(np.int64),
    )
    red, green = np.array([108]), np.array([140])
    assert pixels.channel([]).mean.tolist() == [100 * 512]
    assert pixels.channel([red]).mean.tolist() == [(120 + 12) * 512]
    assert pixels.channel([red, green]).mean.tolist() == [(140 - 2 + 10) * 512]


@given(outputs=network_outputs(9), seed=st.integers(0, 99))
def test_channels_have_a_distribution_whatever_the_network_says(outputs: np.ndarray, seed: int) -> None:
    pixels = ChannelLinearLogistic.from_outputs(*outputs.reshape(3, 3, 1))
    rng = np.random.default_rng(seed)
    for channel in range(3):
        distribution = pixels.channel(list(rng.choice([0, 1, 128, 255], (channel, 1))))
        _, frequency = DiscretizedLogistic(
            np.repeat(distribution.mean, 256), np.repeat(distribution.inverse_scale, 256)
        ).interval(np.arange(256))
        assert (frequency >= 1).all() and frequency.sum() == 1 << 24


def test_mixture_agrees_with_training() -> None:
    """Point masses, first and last level, and everything between; the floor under frequencies costs next to nothing."""
    rng = np.random.default_rng(0)
    masses = (0, 200, 255)
    named = nets.LogisticMixture(4, masses)
    outputs = rng.normal(0, 1, (named.outputs_per_pixel, 512))
    outputs[-4:] += 2.0
    levels = np.tile(np.arange(256), 2)
    integers = np.rint(outputs * 65536).astype(np.int64)
    frequency = LogisticMixture.from_outputs(integers, 4, masses).interval(levels)[1]
    kinds = torch.tensor(integers / 65536)[None].flatten(1)
    expected = named.log_prob(kinds, torch.tensor(levels, dtype=torch.float64)[None]).exp()[0].numpy()
    assert np.abs(frequency / 2**24 - expected).max() < 0.02 * expected.max()
    assert np.abs(frequency / 2**24 / expected - 1)[expected > 1e-3].max() < 0.03


def test_gaussian_bins_agree_with_the_normal_distribution() -> None:
    bins = PriorBins.of(8)
    mean, deviation = 0.4, 0.3
    distribution = GaussianBins.from_outputs(
        bins, np.full(256, round(mean * 65536)), np.full(256, round(np.log(deviation) * 65536))
    )
    edges = elementary.normal_quantile(np.arange(1, 256) / 256)
    cumulative = elementary.normal_cdf((edges - mean) / deviation)
    mass = np.diff(cumulative, prepend=0.0, append=1.0)
    likely = np.flatnonzero(mass > 1e-4)
    frequency = distribution[likely].interval(likely)[1]  # type: ignore[index]
    np.testing.assert_allclose(frequency / 2.0**24, mass[likely], rtol=0.02)


def test_prior_bins_have_equal_mass() -> None:
    bins = PriorBins.of(10)
    inner = bins.edges[1:-1] / 65536
    np.testing.assert_allclose(elementary.normal_cdf(inner), np.arange(1, 1024) / 1024, atol=1e-5)
    assert (bins.centres == -bins.centres[::-1]).all()


def test_a_bin_without_frequency_is_refused() -> None:
    """Only a damaged file asks for one; dividing by its frequency would not end well."""
    narrow = GaussianBins.from_outputs(PriorBins.of(8), np.array([0]), np.array([-5 << 16]))
    with pytest.raises(ImpossibleSymbol):
        narrow.interval(np.array([255]))
