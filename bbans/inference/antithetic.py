"""K steps where posteriors are nearly as broad as the prior.

With a likelihood that sees the pixels before each, latents have little left to say, and posteriors are broad: what
log p(x, z) is at the mean says little of what it is where z is drawn. So what is climbed here is the ELBO, estimated
from two antithetic points, mean + s d and mean - s d, with the standard deviations d and signs s that are drawn anew
for each step: of the average of two such points all errors of odd order are gone, those of even order average out over
the steps, and no step can build on what is peculiar to the points of an earlier one. (With the same signs in all
steps, further steps lose half of what the first gained.) The deviations stay: moving them would gain only where a model
is used for images that it was not made for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from bbans.inference.refined import LITTLE, SHRINKING, STEP_MAXIMUM, Look, View, limited_mean
from bbans.portable import elementary
from bbans.portable.elementary import Floats
from bbans.portable.engine import Rows

COPIES = 2
"""Of each image: one for each point."""
SIZE = 0.2
"""Of the steps, until one leads down."""
PATIENCE = 2
"""An image has arrived when none of so many steps in a row gained :data:`bbans.inference.refined.LITTLE`."""


def signs(step: int, count: int) -> Floats:
    """1 or -1 for each latent: the bits of SHAKE-128 of the step's number (4 bytes), the highest of a byte first.

    >>> signs(0, 9).tolist()
    [-1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    """
    drawn = hashlib.shake_128(step.to_bytes(4, "little")).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:count]
    return 1.0 - 2.0 * bits.astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Climbers:
    """The images that are still on their way, one a row."""

    row: NDArray[np.intp]
    """Which of all the images, ``(images,)``."""
    place: Floats
    """The mean so far, ``(images, latents)``."""
    deviation: Floats
    size: Floats
    """Of the next step, ``(images, 1)``."""
    patience: NDArray[np.int64]
    """For so many more steps of little gain, ``(images, 1)``."""

    def which(self, chosen: NDArray[np.bool_]) -> _Climbers:
        """Some of them."""
        return _Climbers(*(getattr(self, field.name)[chosen] for field in fields(self)))


def antithetic_gradient(look: Look, mean: Floats, log_deviation: Floats, steps: int) -> tuple[Floats, Floats]:
    """A :data:`bbans.inference.refined.Climb` in natural gradients of the mean; the deviations stay.

    A step is taken only if it leads up, as seen from the points that it was computed from. Otherwise its image stays
    where it was, and goes on in smaller steps. An image that gains little takes no more.
    """
    images, latents = mean.shape
    deviation = elementary.exponential(log_deviation)
    climbers = _Climbers(np.arange(images), mean, deviation, np.full((images, 1), SIZE), np.full((images, 1), PATIENCE))
    refined = mean.copy()
    for step in range(steps):
        climbers = _step(climbers, _at_both(look, climbers, signs(step, latents), images))
        refined[climbers.row] = climbers.place
        climbers = climbers.which(climbers.patience[:, 0] > 0)
        if not len(climbers.row):
            break
    return refined, log_deviation


def _step(climbers: _Climbers, view_from: Callable[[Floats], View]) -> _Climbers:
    """After one step."""
    view = view_from(climbers.place)
    uphill = climbers.deviation * (view.slope(slice(None)) - climbers.place)
    move = np.minimum(np.maximum(climbers.size * uphill, -STEP_MAXIMUM), STEP_MAXIMUM)
    there = limited_mean(climbers.place + climbers.deviation * move)
    height = view_from(there).height
    higher = height > view.height
    return replace(
        climbers,
        place=np.where(higher, there, climbers.place),
        size=np.where(higher, climbers.size, SHRINKING * climbers.size),
        patience=np.where(height >= view.height + LITTLE, PATIENCE, climbers.patience - 1),
    )


def _at_both(look: Look, climbers: _Climbers, sign: Floats, images: int) -> Callable[[Floats], View]:
    """The average view from both sides of a mean: there are two copies of all the ``images``."""
    rows = np.concatenate([climbers.row, climbers.row + images])
    away = climbers.deviation * sign

    def view_from(mean: Floats) -> View:
        view = look(np.concatenate([mean + away, mean - away]), rows)

        def slope(chosen: Rows) -> Floats:
            return _average(view.slope(slice(None)))[chosen]

        return View(_average(view.height), slope)

    return view_from


def _average(of_both: Floats) -> Floats:
    """Of the first half of the rows and the second."""
    here, there = np.split(of_both, 2)
    return (here + there) * 0.5
