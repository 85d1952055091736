"""What optimal inference climbs: log p(x given z) and its gradient, for each kind of decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.inference.refined import LogLikelihood
from bbans.intervals.distribution import Symbols
from bbans.intervals.log_prob import Floats32, LogProb
from bbans.portable.context_descent import ContextDescent
from bbans.portable.elementary import Floats
from bbans.portable.engine import Linearize, Rows


@dataclass(frozen=True, eq=False)
class IndependentLandscape:
    """Of a fully connected decoder, whose pixels are independent given z."""

    linearize: Linearize
    log_prob: Callable[[Floats32], LogProb]
    """For pixels, float32 ``(images, pixels)``."""
    block: tuple[int, int] = (32, 256)

    def log_likelihood(self, x: Symbols) -> LogLikelihood:
        """See :class:`bbans.inference.refined.Landscape`."""
        log_prob = self.log_prob(x.astype(np.float32))

        def at(z: NDArray[np.int64], rows: NDArray[np.intp]) -> tuple[Floats, Callable[[Rows], Floats]]:
            outputs, pull_back = self.linearize(z)
            value, gradient = log_prob(outputs, None if len(rows) == len(x) else rows)
            return value, lambda chosen: pull_back(gradient()[chosen], chosen)

        return at


@dataclass(frozen=True, eq=False)
class ContextLandscape:
    """Of a decoder whose pixels depend on those before them, all of which are known."""

    descent: ContextDescent
    log_prob: Callable[[Floats32], LogProb]
    """For pixels, float32 ``(images, channels * positions)``."""
    block: tuple[int, int] = (16, 16)

    def log_likelihood(self, x: Symbols) -> LogLikelihood:
        """See :class:`bbans.inference.refined.Landscape`."""
        channels = len(self.descent.heads)
        pixels = np.ascontiguousarray(x.reshape(len(x), -1, channels).swapaxes(1, 2), np.float32)
        known = self.descent.know(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        log_prob = self.log_prob(pixels.reshape(len(x), -1))
        everything = np.arange(len(x))

        def at(z: NDArray[np.int64], rows: NDArray[np.intp]) -> tuple[Floats, Callable[[Rows], Floats]]:
            if np.array_equal(rows, everything):
                outputs, pull_back = self.descent.linearize(known, z)
                value, gradient = log_prob(outputs)
            else:
                outputs, pull_back = self.descent.linearize(known.which(rows), z)
                value, gradient = log_prob(outputs, rows)
            return value, lambda chosen: pull_back(gradient()[chosen], chosen)

        return at
