"""Colour pixels: discretized logistics, whose mean depends linearly on the channels before in the same pixel.

By how much a channel is above its own mean (the one it has before any channel is seen) is expected of a later channel
too, times a coefficient. All of it is integers, so whoever knows the earlier channels gets the same mean.

Source: T. Salimans et al., "PixelCNN++" (2017), with one component, and deviations from means in place of values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbans.intervals.distribution import Symbols
from bbans.intervals.location_scale import Signed, clip
from bbans.intervals.logistic import MEAN_FRACTION, MEAN_MAXIMUM, DiscretizedLogistic

CHANNELS = 3
COEFFICIENT_FRACTION = 16
"""Coefficients are multiples of ``2**-COEFFICIENT_FRACTION``..."""
COEFFICIENT_MAXIMUM = 16
"""...up to this magnitude: no product below leaves 44 bits."""


@dataclass(frozen=True, eq=False)
class ChannelLinearLogistic:
    """``n`` pixels of three channels; all arrays are int64 ``(3, n)``."""

    mean: Signed
    """Of each channel before another is seen; multiples of ``2**-MEAN_FRACTION`` grey levels."""
    log_scale: Signed
    """As network outputs."""
    coefficient: Signed
    """Of the second channel on the first, of the third on the first, and of the third on the second."""

    @staticmethod
    def from_outputs(mean: Signed, log_scale: Signed, coefficient: Signed) -> ChannelLinearLogistic:
        """From decoder outputs times ``2**16``; means are in 128 grey levels, and scales in grey levels."""
        mean_limit, limit = MEAN_MAXIMUM << MEAN_FRACTION, COEFFICIENT_MAXIMUM << COEFFICIENT_FRACTION
        return ChannelLinearLogistic(clip(mean, -mean_limit, mean_limit), log_scale, clip(coefficient, -limit, limit))

    def channel(self, earlier: list[Symbols]) -> DiscretizedLogistic:
        """The distributions of the channel after the ``earlier`` ones, whose values are int64 ``(n,)`` each."""
        channel = len(earlier)
        mean = self.mean[channel]
        if earlier:
            first = channel * (channel - 1) // 2  # coefficients of the channels before this one
            products = [
                self.coefficient[first + other] * ((x << MEAN_FRACTION) - self.mean[other])
                for other, x in enumerate(earlier)
            ]
            half = 1 << (COEFFICIENT_FRACTION - 1)
            mean = mean + ((np.sum(products, axis=0) + half) >> COEFFICIENT_FRACTION)
        return DiscretizedLogistic.from_outputs(mean, self.log_scale[channel])
