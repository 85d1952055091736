"""K-step optimal inference (GG Algorithm 2): the encoder's posterior, moved up the ELBO of its own image.

The decoder has the image before it needs q, so it repeats the same K steps. For that every number here is the same
on every machine: the gradient runs backward through the frozen decoder by the rules of :mod:`bbans.portable.descent`,
log p(x, z) is a sum that float64 holds exactly (:mod:`bbans.intervals.log_prob`), and the rest is float64 with
correctly rounded operations only, each element for itself. What kind of decoder is climbed, only its
:class:`Landscape` knows (:mod:`bbans.inference.landscapes`).

How the steps are taken is part of the format: :func:`natural_gradient`, at the mean, for fully connected decoders, and
:func:`bbans.inference.antithetic.antithetic_gradient` for those whose pixels depend on those before them. The paper's
way, :mod:`bbans.inference.adam`, is here to be measured against: ``benchmarks/steps.py``. The paper moves the standard
deviations too; with the mean in place that gains less than a thousandth of a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.distribution import Symbols
from bbans.intervals.gaussian import (
    CENTRE_FRACTION,
    LOG_DEVIATION_MAXIMUM,
    LOG_DEVIATION_MINIMUM,
    MEAN_FRACTION,
    MEAN_MAXIMUM,
)
from bbans.parallel import map_in_order
from bbans.portable import elementary
from bbans.portable.elementary import Floats
from bbans.portable.engine import Rows

STEPS_MAXIMUM = 1000

LogLikelihood = Callable[[NDArray[np.int64], NDArray[np.intp]], tuple[Floats, Callable[[Rows], Floats]]]
"""From the centres of latents, int64 ``(rows, latents)``, and which of the images they are for, ``(rows,)``, to log p(x
given z) in nats, float64 ``(rows,)``, and what computes its gradient with respect to one unit of each centre, float64
``(rows, latents)``, for some of these. Nothing about an image depends on the others."""


class Landscape(Protocol):
    """A decoder, as what climbs it sees it."""

    @property
    def block(self) -> tuple[int, int]:
        """How many images climb together, at least and at most: enough for the matrix products, few enough to stay in
        cache.
        """

    def log_likelihood(self, x: Symbols) -> LogLikelihood:
        """For images int64 ``(images, pixels)``."""


@dataclass(frozen=True, eq=False)
class View:
    """What there is to see from latents ``(images, latents)``, in nats."""

    height: Floats
    """log p(x, z) up to a constant, ``(images, 1)``."""
    slope: Callable[[Rows], Floats]
    """Computes the gradient of log p(x given z) with respect to the latents, ``(rows, latents)``, for some of the
    images."""


Look = Callable[[Floats, NDArray[np.intp]], View]
"""From latents ``(rows, latents)``, and which of all the images they are for, ``(rows,)``, ascending; copies of the
images come after them in the same order. What is to be seen must be looked at before the next look."""
Climb = Callable[[Look, Floats, Floats, int], tuple[Floats, Floats]]
"""From the views, mean and log standard deviation ``(images, latents)`` and K to mean and log standard deviation."""

SIZE = 0.5
"""Of the steps, until one leads down..."""
SHRINKING = 0.5
"""...which makes the further ones of its image smaller by this factor."""
MOMENTUM = 0.5
STEP_MAXIMUM = 2.0
"""In standard deviations."""
LITTLE = 1.0
"""Nats: an image has arrived when none of so many steps in a row..."""
PATIENCE = 3
"""...gained as much."""


@dataclass(frozen=True, eq=False)
class _Climbers:
    """The images that are still on their way, one a row."""

    row: NDArray[np.intp]
    """Which of all the images, ``(images,)``."""
    place: Floats
    """The mean so far, ``(images, latents)``."""
    deviation: Floats
    velocity: Floats
    """The last step, in standard deviations."""
    uphill: Floats
    """The gradient of log p(x, z), in units of the posterior."""
    height: Floats
    """log p(x, z), ``(images, 1)``."""
    size: Floats
    """Of the next step, ``(images, 1)``."""
    patience: NDArray[np.int64]
    """For so many more steps of little gain, ``(images, 1)``."""

    def which(self, chosen: NDArray[np.bool_]) -> _Climbers:
        """Some of them."""
        return _Climbers(*(getattr(self, field.name)[chosen] for field in fields(self)))


def natural_gradient(look: Look, mean: Floats, log_deviation: Floats, steps: int) -> tuple[Floats, Floats]:
    """Steps up log p(x, z), from the mean, in units of the posterior that the encoder gave; its deviation stays.

    The natural gradient of the mean of a Gaussian is the gradient times its variance: where the encoder knows how
    narrow the posterior is, it also knows how far to go. Where it doesn't, or where the likelihood is too rough for
    its gradient to tell, a step can lead down: then the image stays where it was, loses its momentum, and goes on in
    smaller steps. So log p(x, z) at the mean never falls. An image that gains little takes no more steps.
    """
    rows = np.arange(len(mean))
    deviation = elementary.exponential(log_deviation)
    view = look(mean, rows)
    climbers = _Climbers(
        rows,
        mean,
        deviation,
        np.zeros_like(mean),
        deviation * (view.slope(slice(None)) - mean),
        view.height,
        np.full((len(mean), 1), SIZE),
        np.full((len(mean), 1), PATIENCE),
    )
    refined = mean.copy()
    for left in reversed(range(steps)):
        climbers = _step(climbers, look, last=not left)
        refined[climbers.row] = climbers.place
        on_their_way = climbers.patience[:, 0] > 0
        if not on_their_way.all():
            climbers = climbers.which(on_their_way)
        if not len(climbers.row):
            break
    return refined, log_deviation


def _step(climbers: _Climbers, look: Look, last: bool) -> _Climbers:
    """After one step, which is looked back on only if it wasn't the ``last``."""
    pull = np.minimum(np.maximum(climbers.size * climbers.uphill, -STEP_MAXIMUM), STEP_MAXIMUM)
    move = MOMENTUM * climbers.velocity + pull
    there = limited_mean(climbers.place + climbers.deviation * move)
    view = look(there, climbers.row)
    higher = view.height > climbers.height
    gained = view.height >= climbers.height + LITTLE
    patience = np.where(gained, PATIENCE, climbers.patience - 1)
    uphill = climbers.uphill
    if not last:
        (turning,) = np.nonzero((higher & (patience > 0))[:, 0])
        uphill = uphill.copy()
        if len(turning):
            uphill[turning] = climbers.deviation[turning] * (view.slope(turning) - there[turning])
    return replace(
        climbers,
        place=np.where(higher, there, climbers.place),
        velocity=np.where(higher, move, 0.0),
        uphill=uphill,
        height=np.where(higher, view.height, climbers.height),
        size=np.where(higher, climbers.size, SHRINKING * climbers.size),
        patience=patience,
    )


@dataclass(frozen=True, eq=False)
class RefinedPosterior:
    """K steps on top of any posterior, for one decoder."""

    landscape: Landscape
    input_magnitude: int
    steps: int
    climb: Climb = natural_gradient
    copies: int = 1
    """How many places the climb may look at for each image at once."""
    threads: int = 1
    """How many blocks of images climb at once."""

    def __call__(self, outputs: NDArray[np.int64], x: Symbols) -> NDArray[np.int64]:
        """What an encoder puts out, int64 ``(images, 2 * latents)``, for images ``x`` int64 ``(images, pixels)``,
        after the steps.
        """
        least, most = self.landscape.block
        size = min(most, max(least, math.ceil(len(x) / self.threads)))
        blocks = [slice(first, first + size) for first in range(0, len(x), size)]
        if len(blocks) == 1:
            return self._block(outputs, x)
        return np.concatenate(
            list(map_in_order(lambda part: self._block(outputs[part], x[part]), blocks, self.threads))
        )

    def _block(self, outputs: NDArray[np.int64], x: Symbols) -> NDArray[np.int64]:
        mean, log_deviation = np.split(np.ldexp(outputs.astype(np.float64), -MEAN_FRACTION), 2, axis=1)
        log_likelihood = self.landscape.log_likelihood(np.tile(x, (self.copies, 1)))

        def look(z: Floats, rows: NDArray[np.intp]) -> View:
            centre = np.rint(np.ldexp(z, CENTRE_FRACTION)).astype(np.int64)
            centre = np.minimum(np.maximum(centre, -self.input_magnitude), self.input_magnitude)
            likelihood, gradient = log_likelihood(centre, rows)
            squares = (centre * centre).sum(axis=1).astype(np.float64)
            height = likelihood - np.ldexp(squares, -2 * CENTRE_FRACTION - 1)
            return View(height[:, None], lambda rows: np.ldexp(gradient(rows), CENTRE_FRACTION))

        refined = self.climb(look, limited_mean(mean), limited_log_deviation(log_deviation), self.steps)
        return np.rint(np.ldexp(np.concatenate(refined, axis=1), MEAN_FRACTION)).astype(np.int64)


def limited_mean(mean: Floats) -> Floats:
    """Means within what coding knows."""
    return np.minimum(np.maximum(mean, -MEAN_MAXIMUM), MEAN_MAXIMUM)


def limited_log_deviation(log_deviation: Floats) -> Floats:
    """Logs of standard deviations within what coding knows."""
    return np.minimum(np.maximum(log_deviation, LOG_DEVIATION_MINIMUM), LOG_DEVIATION_MAXIMUM)
