"""K steps: the right gradient, the same on every engine, and a lower rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import random_images, tiny_context_model
from hypothesis import given
from hypothesis import strategies as st

import bbans
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.inference.antithetic import COPIES, antithetic_gradient, signs
from bbans.inference.refined import STEPS_MAXIMUM, Climb, Look, View, natural_gradient
from bbans.intervals import Distribution, bernoulli, channel_linear, logistic, mixture_log_prob
from bbans.intervals.log_prob import Floats32, LogProb
from bbans.model import Model
from bbans.nets import Bernoulli, ChannelLinearLogistic, DiscretizedLogistic, Likelihood, LogisticMixture
from bbans.portable import elementary
from bbans.portable.backward import BackwardLayer, coarse, convolve
from bbans.portable.context import BLOCK, NEAR, ConvolutionalDecoder
from bbans.portable.convolution import halved, patches, places
from bbans.portable.descent import FIRST_LIMIT
from bbans.portable.engine import Engine
from bbans.portable.network import FLOAT32_EXACT, Linear, Network
from bbans.portable.numpy_engine import NumpyEngine
from bbans.portable.torch_engine import TorchEngine

LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Bernoulli(),
    "channel-linear-logistic": ChannelLinearLogistic(),
    "discretized-logistic": DiscretizedLogistic(),
    "logistic-mixture": LogisticMixture(3, (0, 254, 255)),
}
LOG_PROBS: dict[str, Callable[[Floats32], LogProb]] = {
    "bernoulli": bernoulli.log_prob,
    "discretized-logistic": logistic.log_prob,
    "logistic-mixture": partial(mixture_log_prob.log_prob, 3, (0, 254, 255)),
}


def flat(model: Model, count: int) -> np.ndarray:
    return random_images(model, count).reshape(count, -1).astype(np.int64)


def likely(model: Model, count: int) -> np.ndarray:
    """Images whose pixels coding gives more than the least that it gives to every pixel."""
    return bbans.sample_images(model, count).reshape(count, -1).astype(np.int64)


def latents(model: Model, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, (count, model.latents))


def views(
    model: Model, x: np.ndarray, z: np.ndarray, size: int | None = None, engine: Engine | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log p(x given z), and its gradient, for so many images at once."""
    refine = EvaluatedModel.of(model, "amortized", engine or NumpyEngine(), steps=1).refine
    assert refine is not None
    at = refine.landscape.log_likelihood(x)
    found = []
    for rows in np.split(np.arange(len(x)), range(size or len(x), len(x), size or len(x))):
        value, gradient = at(z[rows], rows)
        found.append((value, gradient(slice(None)).copy()))
    value, gradient = at(z, np.arange(len(x)))
    some = np.arange(1, len(x), 3)
    assert (gradient(some) == np.concatenate([part for _, part in found])[some]).all()
    return np.concatenate([part for part, _ in found]), np.concatenate([part for _, part in found])


def in_real_numbers(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """A layer on ``(inputs, positions, images)`` that rounds, with the derivatives of one that doesn't."""
    weight, bias = (torch.tensor(tensor.astype(np.float64)) for tensor in (layer.weight, layer.bias))
    y = (torch.tensordot(weight, x, 1) + bias[:, None, None]) / 2**layer.shift
    y = y + (y.floor() - y).detach()
    return torch.where(y > layer.minimum, y, float(layer.minimum)).clamp(max=layer.maximum)


def looking_at(x: torch.Tensor, index: np.ndarray) -> torch.Tensor:
    x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    return x[:, torch.tensor(index)].reshape(-1, index.shape[1], x.shape[2])


def parameters(model: Model, z: torch.Tensor, x: np.ndarray) -> list[torch.Tensor]:
    """For each channel of a pixel ``(outputs, positions, images)``."""
    if isinstance(model.decoder, Network):
        y = z.t()[:, None]
        for layer in model.decoder.layers:
            y = in_real_numbers(layer, y)
        return [y.reshape(model.outputs_per_pixel, model.pixels, -1) / 65536]
    upward = model.decoder.upward
    h, added = z.t().reshape(upward.inputs, -1, len(z)), torch.zeros(())
    for before, after, convolution in zip(upward.sizes, upward.sizes[1:], upward.layers, strict=False):
        found = in_real_numbers(convolution.product, looking_at(h, patches(before, after, convolution.kernel)))
        if convolution.residual:
            found = torch.relu(found + added).clamp(max=convolution.product.maximum)
        added, h = h, found
    if isinstance(model.decoder, ConvolutionalDecoder):
        kinds = h.reshape(model.outputs_per_pixel, model.channels, -1, len(z)) / 65536
        return list(kinds.unbind(1))
    network = model.decoder.context
    size, channels = upward.sizes[-1], len(network.heads)
    seen = network.pixel_input(x.T.reshape(-1, channels, len(x)).astype(np.float32)).swapaxes(0, 1)
    seen = np.concatenate([seen, np.full_like(seen[:1], network.pixel_input.unit)])
    pixels = torch.tensor(seen.astype(np.float64))
    window = looking_at(pixels, places(size, size, network.window_offsets))
    h = in_real_numbers(network.window, torch.cat([window, h]))
    for block in network.blocks:
        mixed = in_real_numbers(block.mix, looking_at(h, places(size, size, BLOCK)))
        h = torch.relu(h + in_real_numbers(block.project, mixed)).clamp(max=network.hidden_maximum)
    near = torch.cat([looking_at(pixels[:channels], places(size, size, (offset,))) for offset in NEAR])
    found = []
    for channel, head in enumerate(network.heads):
        hidden = in_real_numbers(head.hidden, torch.cat([h, pixels[:channel]]))
        found.append(in_real_numbers(head.output, torch.cat([hidden, near, pixels[:channel]])) / 65536)
    return found


def test_gradient_is_that_of_the_decoder(model: Model) -> None:
    """Against automatic differentiation of the same integers taken for real numbers."""
    x, z = likely(model, 40), latents(model, 40)
    value, gradient = views(model, x, z)
    inputs = torch.tensor(z.astype(np.float64), requires_grad=True)
    outputs = torch.stack(parameters(model, inputs, x), 1)  # kinds, channels, positions, images
    pixels = torch.tensor(x.astype(np.float64)).reshape(40, -1, outputs.shape[1]).swapaxes(1, 2)
    likelihood = LIKELIHOODS[model.likelihood]
    expected = likelihood.log_prob(outputs.permute(3, 0, 1, 2).flatten(1), pixels.flatten(1)).sum(1)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), inputs)
    assert value == pytest.approx(expected.detach().numpy(), abs=0.002 * model.pixels)
    assert np.abs(gradient - expected_gradient.numpy()).max() < 0.05 * np.abs(expected_gradient.numpy()).max()


def test_what_is_climbed_is_what_is_coded(model: Model) -> None:
    x = likely(model, 10)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine())
    z = np.random.default_rng(0).integers(0, 1 << model.latent_precision, (10, model.latents))
    value, _ = views(model, x, evaluated.bins.centres[z])
    assert -value.sum() / math.log(2) == pytest.approx(evaluated.likelihood(z).bits(x), abs=0.005 * x.size)


@pytest.mark.parametrize("likelihood", LOG_PROBS)
def test_log_probabilities_and_their_gradients(likelihood: str) -> None:
    """Tables against automatic differentiation, levels that are special and values far out included."""
    rng = np.random.default_rng(0)
    named, log_prob = LIKELIHOODS[likelihood], LOG_PROBS[likelihood]
    kinds = named.outputs_per_pixel
    x = rng.integers(0, named.symbols, (50, 40)).astype(np.float32)
    x[:10], x[10:20] = 0, named.symbols - 1
    outputs = rng.normal(0, 1.5, (50, 40 * kinds)).clip(-3.9, 3.9).astype(np.float32)
    tensor = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    exact = named.log_prob(tensor, torch.tensor(x, dtype=torch.float64))
    (expected,) = torch.autograd.grad(exact.sum(), tensor)
    sums, gradient = log_prob(x)(outputs)
    parts = np.split(outputs, kinds, axis=1)
    single = log_prob(x.reshape(-1, 1))(np.stack([part.ravel() for part in parts], axis=1))[0].reshape(x.shape)
    assert (single.sum(axis=1) == sums).all() and (np.rint(single * 65536) == single * 65536).all()
    possible = exact.detach().numpy().reshape(x.shape).clip(min=-13)  # what is less likely, coding doesn't know
    assert (np.abs(single.clip(min=-13) - possible) < 0.01 - 0.004 * possible).all()
    scales = {"bernoulli": 0, "discretized-logistic": 1, "logistic-mixture": 3}[likelihood]
    shape = (50, kinds, 40)
    found, wanted, outputs = gradient().reshape(shape), expected.numpy().reshape(shape), outputs.reshape(shape)
    tolerance = np.full(shape, 0.03)
    if scales:  # means are in 128 levels
        tolerance[:, kinds - 2 * scales : kinds - scales] *= 128 * np.exp(-outputs[:, kinds - scales :])
    known = possible > (-10 if likelihood == "logistic-mixture" else -14)
    assert known.mean() > 0.4
    assert ((np.abs(found - wanted) <= tolerance + 0.03 * np.abs(wanted)) | ~known[:, None]).all()
    some = np.arange(3, 50, 4)
    again, gradient = log_prob(x)(outputs[some].reshape(len(some), -1), some)
    assert (again == sums[some]).all() and (gradient().reshape(-1, *shape[1:]) == found[some]).all()


def test_log_probabilities_of_channels_that_depend_on_each_other() -> None:
    """Against automatic differentiation, with pixels a few scales from where they are expected."""
    rng = np.random.default_rng(0)
    likelihood = ChannelLinearLogistic()
    kinds = (
        rng.normal(0, 1, (60, 3, 3, 14)) * np.array([0.5, 0.2, 0.6])[:, None, None]
        + np.array([0, 2.5, 0])[:, None, None]
    )
    kinds[:5, 2] = rng.choice([-20.0, 20.0], (5, 3, 14))  # limited to 16
    outputs = kinds.reshape(60, -1).astype(np.float32)
    limited = np.concatenate([outputs[:, :84], outputs[:, 84:].clip(-16, 16)], axis=1)
    generator = torch.Generator().manual_seed(0)
    x = likelihood.sample(torch.tensor(limited), generator).numpy().astype(np.float32)
    tensor = torch.tensor(limited, dtype=torch.float64, requires_grad=True)
    exact = likelihood.log_prob(tensor, torch.tensor(x, dtype=torch.float64))
    (expected,) = torch.autograd.grad(exact.sum(), tensor)
    value, gradient = channel_linear.log_prob(x)(outputs)
    found = gradient()
    assert value == pytest.approx(exact.sum(1).detach().numpy(), abs=0.2)
    assert found == pytest.approx(expected.numpy(), rel=0.03, abs=0.2)
    some = np.arange(3, 60, 4)
    again, gradient = channel_linear.log_prob(x)(outputs[some], some)
    assert (again == value[some]).all() and (gradient() == found[some]).all()


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    change=st.sampled_from(["same", "halved", "doubled"]),
    kernel=st.sampled_from([1, 3, 5]),
    engine=st.sampled_from([NumpyEngine(), TorchEngine("cpu")]),
)
def test_convolutions_backward_are_those_forward_transposed(
    height: int, width: int, change: str, kernel: int, engine: Engine
) -> None:
    rng = np.random.default_rng(height * width)
    size = (height, width)
    before, after = {"same": (size, size), "halved": (size, halved(size)), "doubled": (halved(size), size)}[change]
    index = patches(before, after, kernel)
    weight = rng.integers(-200, 200, (3, 2 * kernel**2)).astype(np.int16)
    layer = Linear(weight, np.zeros(3, np.int64), 0, -FLOAT32_EXACT, FLOAT32_EXACT)
    x = rng.integers(-99, 99, (2, math.prod(before), 4)).astype(np.float32)
    gradient = rng.integers(-99, 99, (3, math.prod(after), 4)).astype(np.float32)
    gradient[0, 0] = FIRST_LIMIT  # its unit is 1
    there = convolve(engine.load_sums(weight, 99), x, index).astype(np.float64)
    back = BackwardLayer.of_first(engine, layer, index, math.prod(before))(gradient)
    assert ((there * gradient).sum(axis=(0, 1)) == (x * back).sum(axis=(0, 1))).all()


@given(size=st.integers(1, 300), largest=st.sampled_from([1, 30, 1000, 32767]), looks=st.sampled_from([1, 4]))
def test_sums_of_coarse_gradients_are_exact(size: int, largest: int, looks: int) -> None:
    weight = np.random.default_rng(size).integers(-largest, largest + 1, (3, size)).astype(np.int16)
    rounded, step, limit = coarse(weight, looks)
    assert np.abs(rounded.astype(np.int64)).sum(axis=1).max() * limit * looks <= FLOAT32_EXACT
    assert np.abs(rounded * step - weight).max() <= step / 2 and (step == 1 or limit == 511)


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


def cost(
    model: Model, images: np.ndarray, steps: int, climb: Climb | None = None, posterior: str = "amortized"
) -> float:
    """Negative ELBO in bits, averaged over a few samples."""
    evaluated = EvaluatedModel.of(model, posterior, NumpyEngine(), steps, climb)
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


def test_no_step_leads_down_where_posteriors_are_broad(model: Model) -> None:
    """On average at the two points that a step looks from; images that have arrived take no more steps."""
    x = flat(model, 30)
    fewest = []

    def recorded(look: Look, mean: np.ndarray, log_deviation: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
        looks = []

        def counted(z: np.ndarray, rows: np.ndarray) -> View:
            looks.append(len(rows))
            return look(z, rows)

        def height(place: np.ndarray, step: int) -> np.ndarray:
            away = elementary.exponential(log_deviation) * signs(step, mean.shape[1])
            return look(np.concatenate([place + away, place - away]), np.arange(2 * len(mean))).height.reshape(2, -1)

        places = [antithetic_gradient(look, mean, log_deviation, steps)[0] for steps in range(6)]
        for step, (before, after) in enumerate(pairwise(places)):
            moved = (before != after).any(axis=1)
            assert (height(after, step).sum(axis=0) > height(before, step).sum(axis=0))[moved].all()
        assert (places[0] == mean).all() and (places[1] != mean).any()
        refined = antithetic_gradient(counted, mean, log_deviation, STEPS_MAXIMUM)
        assert looks == sorted(looks, reverse=True) and len(looks) < STEPS_MAXIMUM
        fewest.append(len(looks))
        return refined

    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), 1, recorded)
    assert evaluated.refine is not None
    replace(evaluated.refine, copies=COPIES)(evaluated.evaluate_encoder(x), x)
    assert fewest


def test_gradients_do_not_depend_on_the_batch_or_the_engine(model: Model) -> None:
    x, z = flat(model, 20), latents(model, 20)
    value, gradient = views(model, x, z)
    assert (gradient != 0).any()
    for other in (views(model, x, z, 1), views(model, x, z, 7), views(model, x, z, engine=TorchEngine("cpu"))):
        assert (other[0] == value).all() and (other[1] == gradient).all()


def test_the_posterior_does_not_depend_on_the_batch_or_the_engine(model: Model) -> None:
    x = flat(model, 30)
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=20)
    together = evaluated.posterior(x)
    alone = [evaluated.posterior(image[None]) for image in x]
    assert (together.mean == np.concatenate([q.mean for q in alone])).all()
    assert (together.inverse_deviation == np.concatenate([q.inverse_deviation for q in alone])).all()
    with_torch = EvaluatedModel.of(model, "amortized", TorchEngine("cpu"), steps=20).posterior(x)
    assert (together.mean == with_torch.mean).all()


@pytest.mark.parametrize("kind", ["fully connected", "context"])
def test_the_posterior_does_not_depend_on_the_number_of_threads(kind: str, binary_model: Model) -> None:
    model = binary_model if kind == "fully connected" else tiny_context_model("bernoulli")
    evaluated = EvaluatedModel.of(model, "amortized", NumpyEngine(), steps=2)
    assert evaluated.refine is not None
    x = flat(model, 2 * evaluated.refine.landscape.block[0] + 3)
    one, three = evaluated.posterior(x), evaluated.on_threads(3).posterior(x)
    assert (one.mean == three.mean).all()


@pytest.mark.parametrize("posterior", ["amortized", "half-asleep"])
@pytest.mark.parametrize("name", ["mnist-binary", "mnist"])
def test_steps_win_on_models_with_context(name: str, posterior: str) -> None:
    """Most where the encoder was not made for the images, and with more steps; but also on the model's own."""
    model = bbans.load_model(name)
    drawn = bbans.sample_images(model, 24)
    costs = [cost(model, drawn, steps, posterior=posterior) for steps in (0, 1, 10)]
    assert max(costs[1:]) < costs[0]
    costs = [cost(model, model.symbols - 1 - drawn[:8], steps, posterior=posterior) for steps in (0, 1, 10)]
    assert costs[2] < costs[1] < 0.99 * costs[0]


def test_files_with_steps_round_trip(model: Model) -> None:
    images = bbans.sample_images(model, 60)
    codec = bbans.Codec.of(model, steps=4)
    data = codec.compress(images, chunk_size=25)
    with bbans.open(data, model=model) as compressed:
        assert compressed.header.model is not None and compressed.header.model.steps == 4
        assert (compressed.read() == images).all()
    with pytest.raises(ModelError, match="4 steps"):
        bbans.Codec.of(model).decompress(data)


@pytest.mark.parametrize("image_shape", [(5, 4), (6, 3, 3)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized-logistic", "logistic-mixture"])
def test_files_of_every_kind_of_context_model_round_trip_with_steps(
    likelihood: str, image_shape: tuple[int, ...]
) -> None:
    model = tiny_context_model(likelihood, image_shape)
    x = np.concatenate([likely(model, 20), flat(model, 3)])
    coders = [
        bbans.Codec.of(model, steps=3, engine=engine).chunk_coder(threads)
        for engine, threads in (("numpy", 1), ("torch", 2))
    ]
    payload = coders[0].encode(x)
    assert payload != bbans.Codec.of(model).chunk_coder().encode(x)
    assert payload == coders[1].encode(x)
    assert (coders[1].decode(payload, len(x)) == x).all()


def test_absurd_numbers_of_steps_are_refused(fully_connected_model: Model) -> None:
    model = fully_connected_model
    for steps in (-1, STEPS_MAXIMUM + 1):
        with pytest.raises(ModelError, match="0 to 1000 steps"):
            bbans.Codec.of(model, steps=steps)
