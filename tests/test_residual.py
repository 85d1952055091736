"""Residual networks in integers, and colour pixels that know the channels before: exact, and what training saw."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import (
    ENGINES,
    SHAPE,
    assert_frozen_agrees,
    random_images,
    tiny_context_model,
    tiny_model,
    tiny_residual_model,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import bbans
from bbans.ans import HEAD_MINIMUM, core_named
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.model import Model
from bbans.nets import ResidualShape, ResidualVAE
from bbans.portable.context import ConvolutionalDecoder
from bbans.portable.convolution import Convolution, ConvolutionalNetwork
from bbans.portable.description import build_network, describe_network, layers_of
from bbans.portable.engine import Engine
from bbans.portable.network import Linear
from bbans.portable.numpy_engine import NumpyEngine
from bbans.training.loop import build
from bbans.training.recipe import Recipe

LIKELIHOODS = ["bernoulli", "discretized-logistic", "logistic-mixture", "channel-linear-logistic"]


def layer(rng: np.random.Generator, channels: int, minimum: int) -> Linear:
    weight = rng.integers(-200, 200, (channels, channels * 9)).astype(np.int16)
    return Linear(weight, rng.integers(-999, 999, channels), 8, minimum, 511)


def block(size: tuple[int, int] = (5, 4), magnitude: int = 511) -> ConvolutionalNetwork:
    """A residual block of two channels."""
    rng = np.random.default_rng(0)
    layers = Convolution(layer(rng, 2, 0), 3), Convolution(layer(rng, 2, -511), 3, residual=True)
    return ConvolutionalNetwork(magnitude, (size,) * 3, layers)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_residual_block_is_that_of_torch(engine: Engine) -> None:
    network = block()
    x = np.random.default_rng(1).integers(0, 512, (5, 4, 2, 3))
    found = engine.load_convolutions(network)(x.astype(np.float32))

    images = torch.tensor(x.astype(np.float64)).permute(3, 2, 0, 1)
    h = images
    for part in network.layers:
        weight = torch.tensor(part.product.weight.astype(np.float64)).reshape(2, 2, 3, 3)
        sums = functional.conv2d(h, weight, torch.tensor(part.product.bias * 1.0), padding=1)
        h = torch.floor(sums / 256).clamp(part.product.minimum, 511)
    expected = (images + h).clamp(0, 511).permute(2, 3, 1, 0).numpy()
    assert (found == expected).all()
    assert expected.min() == 0 and expected.max() == 511  # clips are seen


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_sum_may_need_more_than_16_bits(engine: Engine) -> None:
    """Of what goes into a residual block and what comes out of it."""
    ones = Linear(np.ones((1, 1), np.int16), np.zeros(1, np.int64), 0, -30000, 30000)
    many = Linear(np.full((1, 1), 100, np.int16), np.zeros(1, np.int64), 0, -(1 << 20), 1 << 20)
    layers = Convolution(ones, 1), Convolution(many, 1, residual=True)
    network = ConvolutionalNetwork(30000, ((2, 3),) * 3, layers)
    x = np.arange(-6, 6, dtype=np.float32).reshape(2, 3, 1, 2) * 5000
    assert (engine.load_convolutions(network)(x) == np.clip(np.clip(100 * x, None, 1 << 20) + x, 0, 1 << 20)).all()


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_weights_of_a_doubled_map_may_be_too_large_to_be_added_up(engine: Engine) -> None:
    weight = np.random.default_rng(0).choice([-20000, 20000], (2, 9)).astype(np.int16)
    layer = Convolution(Linear(weight, np.zeros(2, np.int64), 10, -9999, 9999), 3)
    network = ConvolutionalNetwork(99, ((3, 2), (6, 4)), (layer,))
    x = np.random.default_rng(1).integers(-99, 100, (3, 2, 1, 40)).astype(np.float32)
    doubled = np.pad(x.repeat(2, axis=0).repeat(2, axis=1)[:, :, 0], ((1, 1), (1, 1), (0, 0)))
    patches = np.stack([doubled[row : row + 6, column : column + 4] for row in range(3) for column in range(3)])
    expected = np.clip(np.einsum("ok,krci->rcoi", weight.astype(np.int64), patches.astype(np.int64)) >> 10, -9999, 9999)
    assert (engine.load_convolutions(network)(x) == expected).all()


def test_residual_blocks_that_do_not_fit_are_refused() -> None:
    network = block()
    first, second = network.layers
    with pytest.raises(ModelError, match="nothing of its size"):
        ConvolutionalNetwork(511, network.sizes[1:], (second,))
    with pytest.raises(ModelError, match="nothing of its size"):
        dataclasses.replace(network, sizes=((9, 8), (5, 4), (5, 4)))
    narrow = Convolution(Linear(np.ones((1, 18), np.int16), np.zeros(1, np.int64), 8, -511, 511), 3, residual=True)
    with pytest.raises(ModelError, match="nothing of its size"):
        dataclasses.replace(network, layers=(first, narrow))
    with pytest.raises(ModelError, match="could leave the integers"):
        dataclasses.replace(network, input_magnitude=1 << 24)
    below = dataclasses.replace(second, product=dataclasses.replace(second.product, maximum=-1))
    with pytest.raises(ModelError, match="could leave the integers"):
        dataclasses.replace(network, layers=(first, below))


def test_descriptions_say_which_layers_are_residual() -> None:
    network = block()
    description = json.loads(json.dumps(describe_network(network)))
    assert [part.get("residual") for part in description["layers"]] == [None, True]
    tensors = [(part.weight, part.bias) for part in layers_of(network)]
    again = build_network(description, iter(tensors))
    assert describe_network(again) == description
    description["layers"][1]["residual"] = 1
    with pytest.raises(ModelError, match="true or false"):
        build_network(description, iter(tensors))


def vae(image_shape: tuple[int, ...], likelihood: str) -> tuple[ResidualVAE, Recipe]:
    recipe = Recipe(
        "tiny", image_shape, likelihood, latent_precision=8, epochs=1, network="residual",
        residual=ResidualShape(2, (5, 6), 2, (7, 6, 5), 2, hidden=4), components=3, masses=(0, 255),
        centre=128 if likelihood != "bernoulli" else 0,
    )  # fmt: skip
    network = build(recipe)
    assert isinstance(network, ResidualVAE)
    return network, recipe


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@torch.no_grad()
def test_frozen_networks_agree_with_those_that_were_trained(likelihood: str) -> None:
    network, recipe = vae((6, 7, 3), likelihood)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(60, network.pixels, generator=generator)
    pixels = (128 + 10 * noise).round() if network.likelihood.symbols > 2 else (noise > 0).float()
    assert_frozen_agrees(network, recipe, pixels, 0.05)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    images=st.integers(1, 5),
    lanes=st.sampled_from([1, 8, 64]),
    engine=st.sampled_from(ENGINES),
    likelihood=st.sampled_from(LIKELIHOODS),
)
def test_what_was_pushed_is_popped(
    height: int, width: int, images: int, lanes: int, engine: Engine, likelihood: str
) -> None:
    model = tiny_residual_model(likelihood, (height, width, 3))
    rng = np.random.default_rng(height * width)
    x = rng.integers(0, model.symbols, (images, model.pixels))
    z = rng.integers(0, 1 << model.latent_precision, (images, model.latents))
    words = np.repeat(np.array([0, HEAD_MINIMUM], np.uint32), lanes)  # empty
    stack = core_named().from_words(words, lanes)
    pushed = EvaluatedModel.of(model, "amortized", NumpyEngine()).likelihood(z)
    pushed.push(stack, x)
    grown = 32 * (len(stack.to_words()) - len(words))
    assert abs(grown - pushed.bits(x)) < 80 * lanes
    assert (EvaluatedModel.of(model, "amortized", engine).likelihood(z).pop(stack) == x).all()
    assert (stack.to_words() == words).all()


def test_engines_and_batches_get_the_same_integers() -> None:
    model = tiny_residual_model("channel-linear-logistic")
    assert isinstance(model.decoder, ConvolutionalDecoder)
    x = random_images(model, 9).reshape(9, -1).astype(np.int64)
    upward = model.decoder.upward
    z = np.random.default_rng(0).integers(-30000, 30000, (*upward.sizes[0], upward.inputs, 7)).astype(np.float32)
    found = [
        (
            EvaluatedModel.of(model, "amortized", engine).evaluate_encoder(x),
            engine.load_convolutions(upward)(z),
        )
        for engine in ENGINES
    ]
    for other in found[1:]:
        assert all((first == second).all() for first, second in zip(found[0], other, strict=True))
    evaluated = EvaluatedModel.of(model, "amortized", ENGINES[0])
    one_by_one = [evaluated.evaluate_encoder(image[None]) for image in x]
    assert (np.concatenate(one_by_one) == found[0][0]).all()
    one_by_one = [ENGINES[0].load_convolutions(upward)(z[:, :, :, image : image + 1]) for image in range(7)]
    assert (np.concatenate(one_by_one, axis=3) == found[0][1]).all()


def test_files_do_not_depend_on_the_engine() -> None:
    model = tiny_residual_model("channel-linear-logistic", (9, 6, 3))
    images = random_images(model, 40)
    first, *others = (bbans.Codec.of(model, engine=engine).chunk_coder() for engine in ENGINES)
    x = images.reshape(40, -1).astype(np.int64)
    payload = first.encode(x)
    for other in others:
        assert payload == other.encode(x)
        assert (other.decode(payload, 40) == x).all()


def test_samples_are_seen_as_likely() -> None:
    model = tiny_residual_model("channel-linear-logistic", (8, 8, 3))
    images = bbans.sample_images(model, 20)
    assert images.shape == (20, 8, 8, 3) and len(np.unique(images)) > 20
    codec = bbans.Codec.of(model)
    assert (codec.decompress(codec.compress(images)) == images).all()


def decoder_of(model: Model) -> ConvolutionalDecoder:
    assert isinstance(model.decoder, ConvolutionalDecoder)
    return model.decoder


def test_models_that_do_not_fit_are_refused() -> None:
    model = tiny_residual_model("channel-linear-logistic")
    grey = tiny_residual_model("discretized-logistic", SHAPE)
    pixel_input = decoder_of(tiny_residual_model("bernoulli")).pixel_input
    binary = dataclasses.replace(decoder_of(model), pixel_input=pixel_input)
    with pytest.raises(ModelError, match="three channels"):
        dataclasses.replace(model, image_shape=SHAPE)
    with pytest.raises(ModelError, match="three channels"):
        dataclasses.replace(tiny_context_model("logistic-mixture"), likelihood="channel-linear-logistic")
    with pytest.raises(ModelError, match="three channels"):
        dataclasses.replace(tiny_model("discretized-logistic"), likelihood="channel-linear-logistic")
    with pytest.raises(ModelError, match="its networks make images"):
        dataclasses.replace(model, image_shape=(4, 5, 3))
    with pytest.raises(ModelError, match="don't fit its latents or its likelihood"):
        dataclasses.replace(model, likelihood="discretized-logistic")
    with pytest.raises(ModelError, match="don't fit its latents or its likelihood"):
        dataclasses.replace(model, latents=5)
    with pytest.raises(ModelError, match="other values"):
        dataclasses.replace(model, decoder=binary)
    with pytest.raises(ModelError, match="does not fit its decoder"):
        dataclasses.replace(model, encoders=grey.encoders)


def test_descriptions_of_other_decoders_are_refused() -> None:
    model = tiny_residual_model("channel-linear-logistic")
    description = describe_network(model.decoder)
    linear = tiny_model("bernoulli").decoder
    tensors = [(part.weight, part.bias) for part in layers_of(linear)]
    with pytest.raises(ModelError, match="starts with convolutions"):
        build_network(description | {"upward": describe_network(linear)}, iter(tensors))


@torch.no_grad()
def test_dreams_follow_the_model() -> None:
    """Pixels that are drawn cost what others drawn from the same distributions do."""
    network, _ = vae((5, 4, 3), "channel-linear-logistic")
    network.decoder[-1].bias[6:] = torch.tensor([0.9, -0.4, 1.2])
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3000, network.latents, generator=generator)
    dreams = network.dream(z, generator)
    assert dreams.shape == (3000, 60) and dreams.min() >= 0 and dreams.max() <= 255
    x = network.images(dreams).flatten(2)
    means, _, coefficients = network.outputs(z).reshape(3000, 3, 3, 20).unbind(1)
    above = x / 128 - means
    seen = [(above[:, 0] * above[:, 1]).mean() / above[:, 0].square().mean(), coefficients[:, 0].mean()]
    assert float(seen[0]) == pytest.approx(float(seen[1]), abs=0.1)
    # -log p of a logistic is on average 2 + log(scale), for bins that are narrow.
    cost = -network.log_likelihood(dreams, z).mean() / 60
    log_scale = network.outputs(z).reshape(3000, 3, 3, 20)[:, 1].mean()
    assert float(cost) == pytest.approx(2 + float(log_scale), abs=0.05)
