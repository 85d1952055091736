"""Latents: a standard normal prior cut into bins of equal mass, and Gaussian posteriors over these bins.

Equal mass makes the prior uniform over the bins, so that coding with it is exact and free of tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from bbans.errors import ImpossibleSymbol
from bbans.intervals.distribution import Integers, Symbols
from bbans.intervals.location_scale import (
    FRACTION,
    PRECISION,
    SCALE_FRACTION,
    DistributionTable,
    Signed,
    bisect,
    clip,
    inverse_scales,
    look_up_inverse_scale,
)
from bbans.portable import elementary

MEAN_FRACTION = 16
"""Means and edges of bins are multiples of ``2**-MEAN_FRACTION``."""
MEAN_MAXIMUM = 8
LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM = -8, 2
BEYOND = 1 << 24
"""An outermost edge: further from every mean, in every standard deviation, than the table reaches."""
CENTRE_FRACTION = 12
"""Centres of bins, which the decoder network takes, are multiples of ``2**-CENTRE_FRACTION``."""
TABLE_LIMIT = 6

distribution_table = cache(lambda: DistributionTable.of(elementary.normal_cdf, TABLE_LIMIT, 1 << PRECISION))
deviation_table = cache(lambda: inverse_scales(LOG_DEVIATION_MINIMUM, LOG_DEVIATION_MAXIMUM))


@dataclass(frozen=True, eq=False)
class PriorBins:
    """``2**precision`` bins of a standard normal distribution, all of the same mass."""

    precision: int
    edges: Signed
    """``2**precision + 1`` edges, times ``2**MEAN_FRACTION``."""
    centres: Signed
    """The median of each bin, times ``2**CENTRE_FRACTION``: what a latent's bin stands for."""

    @staticmethod
    @cache
    def of(precision: int) -> PriorBins:
        """The bins for a precision from 1 to 16 bits."""
        quantiles = elementary.normal_quantile(np.arange(1, 2 << precision) / float(2 << precision))
        inner = np.rint(np.ldexp(quantiles[1::2], MEAN_FRACTION)).astype(np.int64)
        edges = np.concatenate([[-BEYOND], inner, [BEYOND]])
        centres = np.rint(np.ldexp(quantiles[0::2], CENTRE_FRACTION)).astype(np.int64)
        edges.flags.writeable = centres.flags.writeable = False
        return PriorBins(precision, edges, centres)


@dataclass(frozen=True, eq=False)
class GaussianBins:
    """One Gaussian over the bins of the prior for each entry of ``mean`` and ``inverse_deviation``, int64 ``(n,)``.

    Unlike other distributions it gives bins far from its mean no frequency at all: a latent is always popped from
    its posterior first, so such a bin can't occur, and a floor under 4,096 bins would let one in a few thousand
    latents be drawn from nowhere near the posterior.
    """

    bins: PriorBins
    mean: Signed
    inverse_deviation: Signed
    precision: int = PRECISION

    @staticmethod
    def from_outputs(bins: PriorBins, mean: Signed, log_deviation: Signed) -> GaussianBins:
        """From encoder outputs: means and logs of standard deviations, times ``2**16``, int64 ``(n,)``."""
        limit = MEAN_MAXIMUM << MEAN_FRACTION
        inverse = look_up_inverse_scale(deviation_table(), log_deviation, LOG_DEVIATION_MINIMUM)
        return GaussianBins(bins, clip(mean, -limit, limit), inverse)

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, block: slice) -> GaussianBins:
        return GaussianBins(self.bins, self.mean[block], self.inverse_deviation[block])

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        """Raises :class:`bbans.errors.ImpossibleSymbol` for a bin of frequency 0."""
        start, stop = self._start(symbols), self._start(symbols + 1)
        if (start == stop).any():
            raise ImpossibleSymbol("a latent lies where its posterior can't have put it")
        return start.astype(np.uint64), (stop - start).astype(np.uint64)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        symbols = bisect(self._start, values.astype(np.int64), self.bins.precision)
        return (symbols, *self.interval(symbols))

    def _start(self, symbols: Symbols) -> Signed:
        distance = (self.bins.edges[symbols] - self.mean) * self.inverse_deviation
        return distribution_table()(distance >> (MEAN_FRACTION + SCALE_FRACTION - FRACTION))
