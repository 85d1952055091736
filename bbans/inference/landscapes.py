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
    """Of a decoder that sees no pixels."""

    linearize: Linearize
    log_prob: Callable[[Floats32], LogProb]
    """For pixels, float32 ``(images, channels * positions)``."""
    channels: int = 1
    block: tuple[int, int] = (32, 256)

    def log_likelihood(self, x: Symbols) -> LogLikelihood:
        """See :class:`bbans.inference.refined.Landscape`."""
        log_prob = self.log_prob(by_channel(x, self.channels))

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
        pixels = by_channel(x, len(self.descent.heads))
        maps = pixels.reshape(len(x), len(self.descent.heads), -1).transpose(1, 2, 0)
        known = self.descent.know(np.ascontiguousarray(maps))
        log_prob = self.log_prob(pixels)
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


def by_channel(x: Symbols, channels: int) -> Floats32:
    """Images ``(images, positions * channels)`` as float32 ``(images, channels * positions)``."""
    pixels = x.reshape(len(x), -1, channels).swapaxes(1, 2)
    return np.ascontiguousarray(pixels, np.float32).reshape(len(x), -1)
