"""Discrete distributions as integer intervals, and coding symbols with them.

A distribution here is vectorized: one for each of ``n`` symbols, all on ``2**precision``. Every symbol that can
occur has a frequency of at least 1, so every pixel can be coded, however unlikely.

- :class:`Uniform`: the prior over equal-mass bins.
- :class:`GaussianBins`: a Gaussian posterior over the same bins.
- :class:`Bernoulli`, :class:`DiscretizedLogistic`, :class:`LogisticMixture`: likelihoods of pixels.
- :class:`ChannelLinearLogistic`: of colour pixels, as one distribution for each channel, given those before it.

>>> import numpy as np
>>> from bbans.ans import core_named
>>> stack = core_named().from_words(np.array([0, 1 << 31], np.uint32), lanes=1)
>>> coin = Bernoulli.from_logits(np.array([70_000, -30_000, 0]))
>>> push(stack, coin, np.array([1, 0, 1]))
>>> pop(stack, coin).tolist()
[1, 0, 1]
"""

from bbans.intervals.bernoulli import Bernoulli
from bbans.intervals.channel_linear import ChannelLinearLogistic
from bbans.intervals.coding import pop, push
from bbans.intervals.distribution import Distribution
from bbans.intervals.gaussian import GaussianBins, PriorBins
from bbans.intervals.logistic import DiscretizedLogistic
from bbans.intervals.makers import Maker, NumpyMaker, Outputs
from bbans.intervals.mixture import LogisticMixture
from bbans.intervals.uniform import Uniform, UniformBelow

__all__ = [
    "Bernoulli",
    "ChannelLinearLogistic",
    "DiscretizedLogistic",
    "Distribution",
    "GaussianBins",
    "LogisticMixture",
    "Maker",
    "NumpyMaker",
    "Outputs",
    "PriorBins",
    "Uniform",
    "UniformBelow",
    "pop",
    "push",
]
