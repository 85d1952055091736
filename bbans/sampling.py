"""Images drawn from a model: a decoder fed with random bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bbans.ans import HEAD_MINIMUM, core_named
from bbans.evaluated import EvaluatedModel
from bbans.intervals import pop
from bbans.model import Model
from bbans.portable.engines import engine_named

BATCH = 256


def sample_images(model: Model, images: int, seed: int = 0) -> NDArray[np.uint8]:
    """``images`` draws from p(x), uint8 ``(images, *image_shape)``; the same for the same seed on every machine.

    Popping z ~ p(z) and then x ~ p(x given z) from a stack of random bits is sampling.

    >>> import bbans
    >>> bbans.sample_images(bbans.load_model("gg-mnist-binary"), 3).shape
    (3, 28, 28)
    """
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
