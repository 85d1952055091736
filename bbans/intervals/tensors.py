"""The distributions of pixels of :mod:`bbans.intervals` on torch tensors: the same integers, on any device.

A kind of distribution says where the interval of each symbol starts; the rest follows from that, as in
:func:`interval` and :func:`locate`. All integers are int64, with a row for each distribution. Nothing here waits for
the device or depends on values, so all of it can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from bbans.ans.stack import Stack
from bbans.intervals import bernoulli, logistic, mixture
from bbans.intervals.coding import pop
from bbans.intervals.distribution import Distribution, Integers, Symbols
from bbans.intervals.gaussian import PriorBins
from bbans.intervals.location_scale import (
    FRACTION,
    GRID_BITS,
    LOG_SCALE_BITS,
    LOG_SCALE_FRACTION,
    PRECISION,
    SCALE_FRACTION,
    DistributionTable,
)
from bbans.intervals.logistic import LEVELS, LOG_SCALE_MINIMUM, MEAN_FRACTION, MEAN_MAXIMUM
from bbans.intervals.makers import Maker, NumpyMaker, Outputs
from bbans.portable.torch_device import Device

FAN = 16
"""What a search is quickest with where starts are computed."""
INNER_BITS = FRACTION - GRID_BITS
EDGE_SHIFT = MEAN_FRACTION + SCALE_FRACTION - FRACTION
TOTAL = 1 << PRECISION

Self = TypeVar("Self", bound="Starts")


@dataclass(frozen=True, eq=False)
class Starts:
    """``n`` distributions; all fields that are tensors have a row for each."""

    @property
    def symbols(self) -> int:
        """How many there are: a power of two."""
        raise NotImplementedError

    @property
    def fan(self) -> int:
        """Into how many parts a search divides what is left."""
        return FAN

    @property
    def precision(self) -> int:
        """As of a :class:`bbans.intervals.distribution.Distribution`."""
        return PRECISION

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        """Where the intervals of ``(n, k)`` symbols start; that of the symbol after the last is the total."""
        raise NotImplementedError

    def __getitem__(self: Self, block: slice) -> Self:
        """Some of the distributions."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: value[block] for name, value in values.items() if isinstance(value, torch.Tensor)}
        )


def interval(starts: Starts, symbols: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and frequency of one symbol for each distribution, ``(n,)`` each."""
    first, last = starts(torch.stack([symbols, symbols + 1], dim=1)).unbind(1)
    return first, last - first


def locate(starts: Starts, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The symbols whose intervals hold values ``(n,)``, and start and frequency of these."""
    values = values[:, None]
    found, left = torch.zeros_like(values), starts.symbols
    while left > starts.fan:
        step = left // starts.fan
        edges = starts(found + torch.arange(step, left, step, device=values.device))
        found = found + step * (edges <= values).sum(1, keepdim=True)
        left = step
    edges = starts(found + torch.arange(left + 1, device=values.device))
    place = (edges[:, 1:-1] <= values).sum(1, keepdim=True)
    first, last = edges.gather(1, place)[:, 0], edges.gather(1, place + 1)[:, 0]
    return (found + place)[:, 0], first, last - first


@dataclass(frozen=True, eq=False)
class Tabled(Starts):
    """Distributions all of whose starts are known: for those that are asked for often, a few at a time."""

    edges: torch.Tensor
    """``(n, symbols + 1)``."""
    bits: int
    """Of precision."""

    @staticmethod
    def of(starts: Starts, count: int, device: torch.device) -> Tabled:
        """For ``count`` distributions."""
        symbols = torch.arange(starts.symbols + 1, device=device)
        return Tabled(starts(symbols.expand(count, -1)), starts.precision)

    @property
    def symbols(self) -> int:
        return self.edges.shape[1] - 1

    @property
    def fan(self) -> int:
        return self.symbols

    @property
    def precision(self) -> int:
        return self.bits

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        return self.edges.gather(1, symbols)


@dataclass(frozen=True, eq=False)
class BernoulliStarts(Starts):
    """Of zeros and ones: see :class:`bbans.intervals.Bernoulli`."""

    zero: torch.Tensor
    """The frequency of a zero, ``(n, 1)``."""

    @staticmethod
    def of(outputs: torch.Tensor) -> BernoulliStarts:
        """From ``(n, 1)``."""
        dropped = bernoulli.LOGIT_FRACTION - bernoulli.STEP_BITS
        steps = bernoulli.LOGIT_MAXIMUM << bernoulli.STEP_BITS
        rounded = ((outputs + (1 << (dropped - 1))) >> dropped).clamp_(-steps, steps)
        return BernoulliStarts(torch.take(_tables(outputs.device).frequency_of_zero, rounded.add_(steps)))

    @property
    def symbols(self) -> int:
        return 2

    @property
    def precision(self) -> int:
        return bernoulli.PRECISION

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        # 0, the frequency of a zero, the total.
        return self.zero * (symbols == 1) + (symbols >> 1 << bernoulli.PRECISION)


@dataclass(frozen=True, eq=False)
class LogisticStarts(Starts):
    """Of 256 levels: see :class:`bbans.intervals.DiscretizedLogistic`."""

    mean: torch.Tensor
    """``(n, 1)``, and so is..."""
    inverse_scale: torch.Tensor

    @staticmethod
    def of(outputs: torch.Tensor) -> LogisticStarts:
        """From ``(n, 2)``."""
        mean, log_scale = torch.split(outputs, 1, 1)
        return LogisticStarts(_mean(mean), _inverse_scale(log_scale))

    @property
    def symbols(self) -> int:
        return LEVELS

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        tables = _tables(self.mean.device)
        edges = torch.take(tables.edges, symbols)
        return tables.logistic(((edges - self.mean) * self.inverse_scale) >> EDGE_SHIFT) + symbols


@dataclass(frozen=True, eq=False)
class MixtureStarts(Starts):
    """Of 256 levels: see :class:`bbans.intervals.LogisticMixture`."""

    weight: torch.Tensor
    """``(n, 1, components)``, and so are..."""
    mean: torch.Tensor
    inverse_scale: torch.Tensor
    below: torch.Tensor
    """For each number of levels with a point mass, the sum of the first so many point masses, ``(n, levels + 1)``."""
    masses_below: torch.Tensor
    """For each row and each level up to ``LEVELS``, how many levels with a point mass are lower: a view."""

    @staticmethod
    def of(outputs: torch.Tensor, components: int, levels: tuple[int, ...]) -> MixtureStarts:
        """From ``(n, levels + 3 * components)``."""
        log_weights, means, log_scales = torch.split(outputs, [len(levels) + components, components, components], 1)
        weights = _weights(log_weights)
        return MixtureStarts(
            weights[:, None, len(levels) :],
            _mean(means)[:, None],
            _inverse_scale(log_scales)[:, None],
            functional.pad(weights[:, : len(levels)].cumsum(1), (1, 0)),
            _masses_below(levels, outputs.device).expand(len(outputs), -1),
        )

    @property
    def symbols(self) -> int:
        return LEVELS

    def __call__(self, symbols: torch.Tensor) -> torch.Tensor:
        edges = ((2 * symbols - 1) << (MEAN_FRACTION - 1))[:, :, None]
        share = _tables(edges.device).mixture(((edges - self.mean) * self.inverse_scale) >> EDGE_SHIFT)
        start = ((share * self.weight).sum(2) >> PRECISION) + symbols
        start += self.below.gather(1, self.masses_below.gather(1, symbols))
        start.masked_fill_(symbols == 0, 0)
        return start.masked_fill_(symbols == LEVELS, TOTAL)


def _mean(mean: torch.Tensor) -> torch.Tensor:
    return mean.clamp(-MEAN_MAXIMUM << MEAN_FRACTION, MEAN_MAXIMUM << MEAN_FRACTION)


def _inverse_scale(log_scale: torch.Tensor) -> torch.Tensor:
    """See :func:`bbans.intervals.location_scale.look_up_inverse_scale`."""
    table, dropped = _tables(log_scale.device).inverse_scale, LOG_SCALE_FRACTION - LOG_SCALE_BITS
    rounded = (log_scale + (1 << (dropped - 1))) >> dropped
    return torch.take(table, rounded.sub_(LOG_SCALE_MINIMUM << LOG_SCALE_BITS).clamp_(0, len(table) - 1))


def _weights(log_weights: torch.Tensor) -> torch.Tensor:
    """See :func:`bbans.intervals.mixture.look_up_weights`."""
    below = log_weights.amax(1, keepdim=True) - log_weights
    step = below >> (LOG_SCALE_FRACTION - mixture.LOG_WEIGHT_BITS)
    share = torch.take(_tables(step.device).share, step.clamp_max_(mixture.LOG_WEIGHT_RANGE << mixture.LOG_WEIGHT_BITS))
    total = share.sum(1, keepdim=True)  # of integers
    # A number divided by a tensor may be multiplied by reciprocals, which is not the same.
    share *= torch.full_like(total, mixture.WEIGHT_TOTAL) / total
    return share.floor_().to(torch.int64)


@dataclass(frozen=True, eq=False)
class _Function:
    """A :class:`bbans.intervals.location_scale.DistributionTable`."""

    nodes: torch.Tensor
    slopes: torch.Tensor
    """From each node to the next."""
    limit: int

    @staticmethod
    def of(table: DistributionTable, device: torch.device) -> _Function:
        return _Function(_on(table.nodes[:-1], device), _on(np.diff(table.nodes), device), table.limit)

    def __call__(self, standardized: torch.Tensor) -> torch.Tensor:
        place = (standardized + (self.limit << FRACTION)).clamp_(0, (2 * self.limit << FRACTION) - 1)
        node = place >> INNER_BITS
        inside = (torch.take(self.slopes, node) * (place & ((1 << INNER_BITS) - 1))) >> INNER_BITS
        return inside.add_(torch.take(self.nodes, node))


@dataclass(frozen=True, eq=False)
class _Tables:
    """On a device."""

    frequency_of_zero: torch.Tensor
    inverse_scale: torch.Tensor
    share: torch.Tensor
    edges: torch.Tensor
    logistic: _Function
    mixture: _Function


@cache
def _tables(device: torch.device) -> _Tables:
    return _Tables(
        _on((1 << bernoulli.PRECISION) - bernoulli.frequencies_of_one().astype(np.int64), device),
        _on(logistic.scale_table(), device),
        _on(mixture.weight_table(), device),
        _on(logistic.level_edges(), device),
        _Function.of(logistic.distribution_table(), device),
        _Function.of(mixture.distribution_table(), device),
    )


@cache
def _masses_below(levels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return _on(np.searchsorted(np.array(levels, np.int64), np.arange(LEVELS + 1))[None], device)


def _on(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    return torch.tensor(array, device=device)


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A :class:`bbans.intervals.distribution.Distribution` whose intervals are found on a device."""

    device: Device
    make: Callable[[torch.Tensor], Starts]
    make_here: Callable[[Outputs], Distribution]
    """The same distributions without a device."""
    outputs: torch.Tensor
    """int64 ``(n, kinds)``."""

    @cached_property
    def starts(self) -> Starts:
        with self.device.working():
            return self.make(self.outputs)

    @property
    def precision(self) -> int:
        return self.starts.precision

    def __len__(self) -> int:
        return len(self.outputs)

    def __getitem__(self, block: slice) -> OnDevice:
        return replace(self, outputs=self.outputs[block])

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        with self.device.working():
            found = interval(self.starts, torch.from_numpy(symbols).to(self.device.torch))
            start, frequency = torch.stack(found).to(torch.int32).cpu().numpy().astype(np.uint64)
        return start, frequency

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        with self.device.working():
            given = torch.from_numpy(values.astype(np.int64)).to(self.device.torch)
            symbols, start, frequency = torch.stack(locate(self.starts, given)).cpu().numpy()
        return symbols, start.astype(np.uint64), frequency.astype(np.uint64)

    def pop_from(self, stack: Stack) -> Symbols:
        """See :class:`bbans.intervals.coding.Poppable`: where the stack is, since each block of lanes waits for the one
        before, and would wait for the device too.
        """
        with self.device.working():
            outputs = self.outputs.cpu().numpy()
        return pop(stack, self.make_here(np.ascontiguousarray(outputs.T)[None]))


class TensorMaker:
    """A :class:`bbans.intervals.makers.Maker` of pixels' distributions on a device. Those of latents are few, and for
    popping, so they are made by another: the one without a device.
    """

    def __init__(self, device: Device, without: Maker | None = None) -> None:
        self.device = device
        self.without: Maker = without or NumpyMaker()

    def bernoulli(self, outputs: Outputs | torch.Tensor) -> OnDevice:
        return self._made(outputs, BernoulliStarts.of, self.without.bernoulli)

    def logistic(self, outputs: Outputs | torch.Tensor) -> OnDevice:
        return self._made(outputs, LogisticStarts.of, self.without.logistic)

    def mixture(self, outputs: Outputs | torch.Tensor, components: int, levels: tuple[int, ...]) -> OnDevice:
        return self._made(
            outputs,
            lambda rows: MixtureStarts.of(rows, components, levels),
            lambda found: self.without.mixture(found, components, levels),
        )

    def gaussian(self, bins: PriorBins, outputs: Outputs) -> Distribution:
        return self.without.gaussian(bins, outputs)

    def _made(
        self,
        outputs: Outputs | torch.Tensor,
        make: Callable[[torch.Tensor], Starts],
        make_here: Callable[[Outputs], Distribution],
    ) -> OnDevice:
        with self.device.working():
            given = outputs if isinstance(outputs, torch.Tensor) else torch.from_numpy(outputs)
            rows = given.to(self.device.torch).transpose(1, 2).reshape(-1, given.shape[1]).to(torch.int64)
        return OnDevice(self.device, make, make_here, rows)
