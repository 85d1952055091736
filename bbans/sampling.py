"""Images drawn from a model: a decoder fed with random bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bbans.ans import HEAD_MINIMUM, core_named
from bbans.errors import ModelError
from bbans.evaluated import EvaluatedModel
from bbans.intervals import pop
from bbans.local.evaluated import strip_likelihood
from bbans.local.strips import LANES_MAXIMUM, Fronts, Strip
from bbans.model import Model
from bbans.portable.engines import engine_named
from bbans.portable.local import LocalNetwork

BATCH = 256


def sample_images(model: Model, images: int, seed: int = 0) -> NDArray[np.uint8]:
    """``images`` draws from p(x), uint8 ``(images, *image_shape)``; the same for the same seed on every machine.

    Popping z ~ p(z) and then x ~ p(x given z) from a stack of random bits is sampling.

    >>> import bbans
    >>> bbans.sample_images(bbans.load_model("gg-mnist-binary"), 3).shape
    (3, 28, 28)

    Of a model for images of any size, say which: ``model.fitted_to((32, 48, 3))``. Raises
    :class:`bbans.errors.ModelError` otherwise.
    """
    if model.any_size:
        return _sample_strips(model, images, seed)
    evaluated = EvaluatedModel.of(
        model, model.default_posterior, engine_named(multiply_adds=model.multiply_adds(images * model.pixels))
    )
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = np.empty((images, model.pixels), np.uint8)
    for first in range(0, images, BATCH):
        count = min(BATCH, images - first)
        # A pop takes at most a word from the tail.
        words = generator.integers(0, 1 << 32, 2 * count + count * (model.latents + model.pixels), dtype=np.uint32)
        words[:count] = HEAD_MINIMUM >> 1  # the high words: heads of 62 bits
        stack = core_named().from_words(words, lanes=count)
        z = pop(stack, evaluated.prior(count)).reshape(count, -1)
        drawn[first : first + count] = evaluated.likelihood(z).pop(stack)
    return drawn.reshape(images, *model.image_shape)


def _sample_strips(model: Model, images: int, seed: int) -> NDArray[np.uint8]:
    """The same, from a model without latents."""
    if not model.pixels:
        raise ModelError(f"model {model.name} makes images of any size: say which, as in model.fitted_to((32, 48, 3))")
    likelihood = strip_likelihood(model, engine_named(multiply_adds=model.multiply_adds(images * model.pixels)))
    assert isinstance(model.decoder, LocalNetwork)
    generator = np.random.Generator(np.random.PCG64(seed))
    height, width, channels = (*model.image_shape, 1)[:3]
    strip = Strip(image=0, first=0, stop=height, above=0)
    lanes = np.full(len(Fronts.of(strip, width, model.decoder.slope).all), LANES_MAXIMUM)
    drawn = np.full((images, height, width, channels), 255, np.uint8)  # opaque, if there is an opacity
    for image in drawn:
        words = generator.integers(0, 1 << 32, 2 * LANES_MAXIMUM + image.size, dtype=np.uint32)
        words[:LANES_MAXIMUM] = HEAD_MINIMUM >> 1
        x = np.zeros((height, width, model.decoder.channels), np.uint8)
        likelihood.pop(core_named().from_words(words, lanes=LANES_MAXIMUM), x, strip, lanes)
        image[..., : model.decoder.channels] = x
    return drawn.reshape(images, *model.image_shape)
