"""Bits-back coding with ANS: Algorithm 1 of the GG paper, over a batch of images.

Source: M. Zhang, P. Hayes, D. Barber, "Generalization Gap in Amortized Inference" (NeurIPS 2022), Algorithm 1;
J. Townsend, T. Bird, D. Barber, "Practical lossless compression with latent variables using bits back coding"
(ICLR 2019).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.ans.stack import Stack
from bbans.intervals import pop, push
from bbans.intervals.distribution import Distribution, Symbols


class Likelihood(Protocol):
    """p(x given z) for a batch of images, int64 ``(images, pixels)``."""

    def push(self, stack: Stack, x: Symbols) -> None:
        """Encode the images."""

    def pop(self, stack: Stack) -> Symbols:
        """Decode the images: the inverse of :meth:`push`."""

    def bits(self, x: Symbols) -> float:
        """What the images cost, in bits."""

    def bits_each(self, x: Symbols) -> NDArray[np.float64]:
        """What each pixel costs, in bits, ``(images, pixels)``."""


class LatentVariableModel(Protocol):
    """p(z), p(x given z) and q(z given x) as integer intervals.

    ``x`` is int64 ``(images, pixels)``, ``z`` int64 ``(images, latents)`` (the bins that the latents lie in); prior and
    posterior are over the same, flattened.
    """

    def prior(self, images: int) -> Distribution:
        """p(z) for so many images."""

    def likelihood(self, z: Symbols) -> Likelihood:
        """p(x given z)."""

    def posterior(self, x: Symbols) -> Distribution:
        """q(z given x)."""


def push_images(stack: Stack, model: LatentVariableModel, x: Symbols) -> None:
    """Encode a batch: the stack grows by the negative ELBO of ``x``, once the bits for ``z`` are given back."""
    z = pop(stack, model.posterior(x)).reshape(len(x), -1)
    model.likelihood(z).push(stack, x)
    push(stack, model.prior(len(x)), z.ravel())


def pop_images(stack: Stack, model: LatentVariableModel, images: int) -> Symbols:
    """Decode a batch: the exact inverse of :func:`push_images`, step by step."""
    z = pop(stack, model.prior(images)).reshape(images, -1)
    x = model.likelihood(z).pop(stack)
    push(stack, model.posterior(x), z.ravel())
    return x
