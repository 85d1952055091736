"""Convolutions and context networks in integers: exact, the same in every order, and what training saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import ENGINES, assert_frozen_agrees, random_images, tiny_context_model
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from bbans.ans import HEAD_MINIMUM, core_named
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.model import Model
from bbans.nets import ContextShape, ContextVAE
from bbans.portable.context import ContextDecoder, PixelInput, diagonals
from bbans.portable.convolution import Convolution, ConvolutionalNetwork, halved, rows_of
from bbans.portable.engine import Engine, MapEngine
from bbans.portable.maps import LoadedContext
from bbans.portable.network import Linear
from bbans.portable.numpy_engine import NumpyEngine
from bbans.training.loop import build
from bbans.training.recipe import Recipe


def convolution(rng: np.random.Generator, inputs: int, outputs: int, kernel: int) -> Convolution:
    weight = rng.integers(-200, 200, (outputs, inputs * kernel**2)).astype(np.int16)
    return Convolution(Linear(weight, rng.integers(-999, 999, outputs), 6, 0, 2047), kernel)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (7, 8), (1, 9)])
@pytest.mark.parametrize("change", ["same", "halved", "doubled"])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolutions_are_those_of_torch(engine: Engine, size: tuple[int, int], change: str, kernel: int) -> None:
    rng = np.random.default_rng(kernel)
    layer = convolution(rng, 2, 3, kernel)
    before, after = {"same": (size, size), "halved": (size, halved(size)), "doubled": (halved(size), size)}[change]
    network = ConvolutionalNetwork(255, (before, after), (layer,))
    x = rng.integers(-255, 256, (*before, 2, 3))
    found = engine.load_convolutions(network)(x.astype(np.float32))

    images = torch.tensor(x.astype(np.float64)).permute(3, 2, 0, 1)
    if change == "doubled" and before != after:
        images = functional.interpolate(images, scale_factor=2)[:, :, : after[0], : after[1]]
    weight = torch.tensor(layer.product.weight.astype(np.float64)).reshape(3, 2, kernel, kernel)
    stride = 2 if change == "halved" and before != after else 1
    sums = functional.conv2d(images, weight, torch.tensor(layer.product.bias * 1.0), stride, kernel // 2)
    expected = torch.floor(sums / 64).clamp(0, 2047).permute(2, 3, 1, 0).numpy()
    assert (found == expected).all()


@pytest.mark.parametrize("slope", [2, 3, 6])
def test_diagonals_come_after_all_that_they_depend_on(slope: int) -> None:
    height, width = 7, 9
    order = np.full((height, width), -1)
    for time, line in enumerate(diagonals((height, width), slope)):
        order[line.index] = time
    assert (order >= 0).all()
    for row, column in np.ndindex(height, width):
        for up, right in [(0, -1), (0, -2), (1, slope - 1), (1, -3), (2, 2 * slope - 1)]:
            if row - up >= 0 and 0 <= column + right < width:
                assert order[row - up, column + right] < order[row, column]


def vae(image_shape: tuple[int, ...], likelihood: str) -> tuple[ContextVAE, Recipe]:
    shape = ContextShape(2, (5, 6), (6, 5), features=4, rows=2, columns=3, hidden=8, blocks=2, head=6)
    recipe = Recipe(
        "tiny", image_shape, likelihood, latent_precision=8, epochs=1, network="context", context=shape,
        components=3, masses=(0, 255), centre=100 if likelihood != "bernoulli" else 0,
    )  # fmt: skip
    network = build(recipe)
    assert isinstance(network, ContextVAE)
    return network, recipe


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_does_not_depend_on_what_comes_after_it(channels: int) -> None:
    network, _ = vae((6, 7, channels), "logistic-mixture")
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (1, channels, 6, 7), generator=generator).float()
    features = network.decoder.features(torch.randn(1, *network.latent_shape, generator=generator))
    before = network.decoder.distributions(x, features)
    for row, column in [(0, 0), (2, 3), (5, 6)]:
        for channel in range(channels):
            changed = x.clone()
            changed[0, channel, row, column] = 255 - changed[0, channel, row, column]
            place = (row * 7 + column) * channels + channel
            for other, (was, now) in enumerate(
                zip(before, network.decoder.distributions(changed, features), strict=True)
            ):
                rows, columns = torch.nonzero((was != now).any(1)[0], as_tuple=True)
                assert ((rows * 7 + columns) * channels + other > place).all()


@pytest.mark.parametrize(("image_shape", "likelihood"), [((6, 7), "bernoulli"), ((6, 7, 3), "logistic-mixture")])
@torch.no_grad()
def test_frozen_networks_agree_with_those_that_were_trained(image_shape: tuple[int, ...], likelihood: str) -> None:
    network, recipe = vae(image_shape, likelihood)
    generator = torch.Generator().manual_seed(0)
    # Near what an untrained network expects: far from it, integers give pixels more than floating point does.
    noise = torch.randn(60, network.pixels, generator=generator)
    pixels = (100 + 10 * noise).round() if network.likelihood.symbols > 2 else (noise > 0).float()
    assert_frozen_agrees(network, recipe, pixels, 0.02)


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    images=st.integers(1, 5),
    lanes=st.sampled_from([1, 8, 64]),
    engine=st.sampled_from(ENGINES),
)
def test_lock_step_finds_what_all_at_once_coded(
    height: int, width: int, channels: int, images: int, lanes: int, engine: Engine
) -> None:
    model = tiny_context_model("logistic-mixture", (height, width, channels))
    rng = np.random.default_rng(height * width)
    x = rng.integers(0, 256, (images, model.pixels))
    z = rng.integers(0, 1 << model.latent_precision, (images, model.latents))
    words = np.repeat(np.array([0, HEAD_MINIMUM], np.uint32), lanes)  # empty
    stack = core_named().from_words(words, lanes)
    EvaluatedModel.of(model, "amortized", NumpyEngine()).likelihood(z).push(stack, x)
    assert (EvaluatedModel.of(model, "amortized", engine).likelihood(z).pop(stack) == x).all()
    assert (stack.to_words() == words).all()


def test_engines_get_the_same_integers() -> None:
    model = tiny_context_model("logistic-mixture")
    assert isinstance(model.decoder, ContextDecoder)
    x = random_images(model, 5).reshape(5, -1).astype(np.int64)
    found: list[list[list[np.ndarray]]] = []
    for engine in ENGINES:
        if not isinstance(engine, MapEngine):
            continue  # what it finds is never seen here; files are the same, in test_torch.py
        found.append([])
        state = LoadedContext.of(engine, model.decoder.context).start(np.ones((4, 5, 3, 5), np.float32))
        for line, row in zip(rows_of((4, 5)), x.T.reshape(4, 5, 3, 5).astype(np.float32), strict=True):
            for channel in range(3):
                state.learn(line, channel, row[:, channel])
        for line in rows_of((4, 5)):
            state.look(line)
            found[-1].append([state.parameters(line, channel).copy() for channel in range(3)])
    for other in found[1:]:
        assert (np.array(found[0]) == np.array(other)).all()


def test_heads_need_not_be_alike() -> None:
    """What a later channel sees begins after its own units, whatever those of the first are."""
    model = tiny_context_model("logistic-mixture")
    assert isinstance(model.decoder, ContextDecoder)
    context = model.decoder.context
    first = context.heads[0]
    hidden = dataclasses.replace(
        first.hidden, weight=np.vstack([first.hidden.weight] * 2), bias=np.tile(first.hidden.bias, 2)
    )
    units = len(first.hidden.weight)
    weight = np.concatenate([np.zeros_like(first.output.weight[:, :units]), first.output.weight], axis=1)
    wider = dataclasses.replace(first, hidden=hidden, output=dataclasses.replace(first.output, weight=weight))
    changed = dataclasses.replace(context, heads=(wider, *context.heads[1:]))
    x = random_images(model, 5).reshape(5, -1).astype(np.int64)
    z = np.zeros((5, model.latents), np.int64)
    same = dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, context=changed))
    bits = [EvaluatedModel.of(m, "amortized", NumpyEngine()).likelihood(z).bits(x) for m in (model, same)]
    assert bits[0] == bits[1]


def broken(model: Model, **changes: object) -> None:
    assert isinstance(model.decoder, ContextDecoder)
    context = dataclasses.replace(model.decoder.context, **changes)
    dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, context=context))


def test_networks_that_do_not_fit_are_refused() -> None:
    model = tiny_context_model("logistic-mixture")
    assert isinstance(model.decoder, ContextDecoder)
    context = model.decoder.context
    big = dataclasses.replace(context.window, weight=np.full_like(context.window.weight, 1 << 14))
    with pytest.raises(ModelError, match="would not be exact"):
        broken(model, window=big, feature_magnitude=1 << 35)
    with pytest.raises(ModelError, match="expected weights of shape"):
        broken(model, rows=3)
    with pytest.raises(ModelError, match="makes no sense"):
        broken(model, columns=0)
    with pytest.raises(ModelError, match="channels"):
        dataclasses.replace(model, image_shape=(5, 4))
    with pytest.raises(ModelError, match="makes no sense"):
        PixelInput(256, 300, 1, 128, ())
    with pytest.raises(ModelError, match="no convolution leads"):
        dataclasses.replace(model.decoder.upward, sizes=((2, 1), (5, 4), (5, 4), (5, 4)))
    with pytest.raises(ModelError, match="a mixture of"):
        dataclasses.replace(model, masses=(3, 2, 1))


def test_dreams_follow_the_model() -> None:
    """Pixels drawn one by one cost what the model says that they cost."""
    network, _ = vae((5, 4), "logistic-mixture")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, network.latents, generator=generator)
    dreams = network.dream(z, generator)
    assert dreams.shape == (300, 20) and dreams.min() >= 0 and dreams.max() <= 255
    with torch.no_grad():
        x = network.images(dreams)
        (outputs,) = network.decoder(z.reshape(-1, *network.latent_shape), x)
        again = network.likelihood.sample(outputs.flatten(1), generator)
        ours = network.likelihood.log_prob(outputs.flatten(1), dreams).sum(1)
        theirs = network.likelihood.log_prob(outputs.flatten(1), again).sum(1)
    assert float(ours.mean()) == pytest.approx(float(theirs.mean()), abs=3 * float((ours - theirs).std()) / 300**0.5)
