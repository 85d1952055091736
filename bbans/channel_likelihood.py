"""p(x given z) of colour pixels that are independent but for the channels of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbans.ans.stack import Stack
from bbans.intervals import ChannelLinearLogistic, pop, push
from bbans.intervals.channel_linear import CHANNELS
from bbans.intervals.distribution import Symbols
from bbans.likelihoods import Floats, information, information_each


@dataclass(frozen=True, eq=False)
class ChannelLinearLikelihood:
    """Three arrays of symbols, popped one after the other: a channel of all positions, image after image."""

    pixels: ChannelLinearLogistic
    images: int

    def push(self, stack: Stack, x: Symbols) -> None:
        values = self._channels(x)
        for channel in reversed(range(CHANNELS)):  # popped from first to last
            push(stack, self.pixels.channel(values[:channel]), values[channel])

    def pop(self, stack: Stack) -> Symbols:
        values: list[Symbols] = []
        for _ in range(CHANNELS):
            values.append(pop(stack, self.pixels.channel(values)))
        return np.stack(values, axis=1).reshape(self.images, -1)

    def bits(self, x: Symbols) -> float:
        values = self._channels(x)
        return sum(information(self.pixels.channel(values[:channel]), value) for channel, value in enumerate(values))

    def bits_each(self, x: Symbols) -> Floats:
        values = self._channels(x)
        bits = [information_each(self.pixels.channel(values[:channel]), value) for channel, value in enumerate(values)]
        return np.stack(bits, axis=1).reshape(x.shape)

    @staticmethod
    def _channels(x: Symbols) -> list[Symbols]:
        """Pixels ``(images, pixels)`` as three arrays ``(images * positions,)``."""
        return list(np.ascontiguousarray(x.reshape(-1, CHANNELS).T))
