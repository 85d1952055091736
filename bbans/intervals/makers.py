"""Making distributions out of what networks put out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.intervals.bernoulli import Bernoulli
from bbans.intervals.distribution import Distribution
from bbans.intervals.gaussian import GaussianBins, PriorBins
from bbans.intervals.logistic import DiscretizedLogistic
from bbans.intervals.mixture import LogisticMixture

Outputs = NDArray[Any]
"""Network outputs times ``2**16``, integers in any type, ``(groups, kinds, members)``: for each member of each group,
one after the other, all kinds of parameters of its distribution."""


class Maker(Protocol):
    """All makers make distributions of the same intervals, at different speeds."""

    def bernoulli(self, outputs: Outputs) -> Distribution:
        """Of binary pixels, from logits."""

    def logistic(self, outputs: Outputs) -> Distribution:
        """Of pixels of 256 levels, from means in 128 levels and logs of scales in levels."""

    def mixture(self, outputs: Outputs, components: int, levels: tuple[int, ...]) -> Distribution:
        """Of pixels of 256 levels, from what :class:`bbans.intervals.LogisticMixture` takes."""

    def gaussian(self, bins: PriorBins, outputs: Outputs) -> Distribution:
        """Of latents, from means and logs of standard deviations."""


class NumpyMaker:
    """Distributions on NumPy arrays."""

    @staticmethod
    def bernoulli(outputs: Outputs) -> Distribution:
        return Bernoulli.from_logits(*_kinds(outputs))

    @staticmethod
    def logistic(outputs: Outputs) -> Distribution:
        return DiscretizedLogistic.from_outputs(*_kinds(outputs))

    @staticmethod
    def mixture(outputs: Outputs, components: int, levels: tuple[int, ...]) -> Distribution:
        return LogisticMixture.from_outputs(_kinds(outputs), components, levels)

    @staticmethod
    def gaussian(bins: PriorBins, outputs: Outputs) -> Distribution:
        return GaussianBins.from_outputs(bins, *_kinds(outputs))


def _kinds(outputs: Outputs) -> NDArray[np.int64]:
    """All parameters of a kind together, ``(kinds, n)``."""
    return outputs.swapaxes(0, 1).reshape(outputs.shape[1], -1).astype(np.int64, copy=False)
