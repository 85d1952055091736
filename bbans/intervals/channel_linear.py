"""Colour pixels: discretized logistics, whose mean depends linearly on the channels before in the same pixel.

By how much a channel is above its own mean (the one it has before any channel is seen) is expected of a later channel
too, times a coefficient. All of it is integers, so whoever knows the earlier channels gets the same mean.

Source: T. Salimans et al., "PixelCNN++" (2017), with one component, and deviations from means in place of values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bbans.intervals import logistic
from bbans.intervals.distribution import Distribution, Symbols
from bbans.intervals.location_scale import Signed, clip
from bbans.intervals.log_prob import Floats32, LogProb, Rows
from bbans.intervals.logistic import MEAN_FRACTION, MEAN_MAXIMUM
from bbans.intervals.makers import NumpyMaker, Outputs
from bbans.portable.elementary import Floats

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
    logistic: Callable[[Outputs], Distribution]
    """Makes the distributions of a channel."""

    @staticmethod
    def from_outputs(
        mean: Signed,
        log_scale: Signed,
        coefficient: Signed,
        logistic: Callable[[Outputs], Distribution] = NumpyMaker.logistic,
    ) -> ChannelLinearLogistic:
        """From decoder outputs times ``2**16``; means are in 128 grey levels, and scales in grey levels."""
        mean_limit, limit = MEAN_MAXIMUM << MEAN_FRACTION, COEFFICIENT_MAXIMUM << COEFFICIENT_FRACTION
        return ChannelLinearLogistic(
            clip(mean, -mean_limit, mean_limit), log_scale, clip(coefficient, -limit, limit), logistic
        )

    def channel(self, earlier: list[Symbols]) -> Distribution:
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
        return self.logistic(np.stack([mean, self.log_scale[channel]])[None])


def log_prob(x: Floats32) -> LogProb:
    """Log p(x) as a function of the real outputs that :class:`ChannelLinearLogistic` takes as integers.

    ``x`` is ``(images, channels * positions)`` with values 0.0 to 255.0; outputs and gradient are ``(images, 3 *
    channels * positions)``: means, logs of scales and coefficients, as there. What follows from these means is as in
    :func:`bbans.intervals.logistic.log_prob`.
    """
    of_channels = logistic.log_prob(x)
    red, green, _ = np.split(x * np.float32(1 / 128), CHANNELS, axis=1)

    def at(outputs: Floats32, rows: Rows | None = None) -> tuple[Floats, Callable[[], Floats32]]:
        means, log_scales, coefficients = np.split(outputs, 3, axis=1)
        limit = np.float32(COEFFICIENT_MAXIMUM)
        green_red, blue_red, blue_green = np.split(np.clip(coefficients, -limit, limit), CHANNELS, axis=1)
        mean_red, mean_green, mean_blue = np.split(means, CHANNELS, axis=1)
        above_red = (red if rows is None else red[rows]) - mean_red
        above_green = (green if rows is None else green[rows]) - mean_green
        expected = [
            mean_red,
            mean_green + green_red * above_red,
            mean_blue + (blue_red * above_red + blue_green * above_green),
        ]
        value, of_expected = of_channels(np.concatenate([*expected, log_scales], axis=1), rows)

        def gradient() -> Floats32:
            to_expected, to_log_scales = np.split(of_expected(), 2, axis=1)
            to_red, to_green, to_blue = np.split(to_expected, CHANNELS, axis=1)
            to_mean_red = to_red - (green_red * to_green + blue_red * to_blue)
            to_mean_green = to_green - blue_green * to_blue
            to_coefficients = [to_green * above_red, to_blue * above_red, to_blue * above_green]
            found: Floats32 = np.concatenate(
                [to_mean_red, to_mean_green, to_blue, to_log_scales, *to_coefficients], axis=1
            )
            return found

        return value, gradient

    return at
