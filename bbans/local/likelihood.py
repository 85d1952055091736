"""p(x) of strips, ready to code them: each value from those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.ans import fold, grow
from bbans.ans.stack import Stack
from bbans.intervals import Outputs, pop
from bbans.intervals.distribution import Distribution
from bbans.likelihoods import push_intervals
from bbans.local.strips import Fronts, Strip
from bbans.portable.local import Front, Levels, LoadedLocal, LocalState

Edges = NDArray[np.uint32]
Lanes = NDArray[np.int64]
"""Of each front of a strip, in the order of decoding."""


class StripLikelihood(Protocol):
    """Pixels are ``(rows, columns, channels)``, with the rows above that a strip sees before its own."""

    def intervals(self, x: Levels, strip: Strip) -> tuple[Edges, Edges]:
        """Start and frequency of all values of a strip, in the order of decoding: front by front, channel by channel,
        row by row.
        """

    def push(self, stack: Stack, edges: tuple[Edges, Edges], counts: Lanes, lanes: Lanes) -> None:
        """Push what :meth:`intervals` found, the last front and channel first. Fronts have so many pixels each, and the
        stack is grown to so many lanes before each.
        """

    def pop(self, stack: Stack, x: Levels, strip: Strip, lanes: Lanes) -> None:
        """Fill in a strip's own rows; the stack is folded to so many lanes before each front."""

    @property
    def precision(self) -> int:
        """log2 of what frequencies add up to."""


@dataclass(frozen=True, eq=False)
class NumpyStripLikelihood:
    """A :class:`StripLikelihood`."""

    loaded: LoadedLocal
    distribution: Callable[[Outputs], Distribution]
    precision: int

    def intervals(self, x: Levels, strip: Strip) -> tuple[Edges, Edges]:
        network = self.loaded.network
        state = LocalState(self.loaded, len(x))
        starts, frequencies = [], []
        for front, own in self._fronts(x, strip):
            state.look(front)
            for channel in range(network.channels):
                parameters = state.parameters(front, channel)[None, :, own.first - front.first :]
                if own.first < own.stop:
                    found = self.distribution(parameters).interval(x[(*own.index, channel)].astype(np.int64))
                    starts.append(found[0].astype(np.uint32))
                    frequencies.append(found[1].astype(np.uint32))
                state.learn(front, channel, x[(*front.index, channel)])
        return np.concatenate(starts), np.concatenate(frequencies)

    def push(self, stack: Stack, edges: tuple[Edges, Edges], counts: Lanes, lanes: Lanes) -> None:
        start, frequency = (part.astype(np.uint64) for part in edges)
        stop = len(start)
        for count, of_front in zip(counts[::-1].tolist(), lanes[::-1].tolist(), strict=True):
            grow(stack, max(of_front, stack.lanes))
            for _ in range(self.loaded.network.channels):
                push_intervals(stack, start[stop - count : stop], frequency[stop - count : stop], self.precision)
                stop -= count

    def pop(self, stack: Stack, x: Levels, strip: Strip, lanes: Lanes) -> None:
        network = self.loaded.network
        state = LocalState(self.loaded, len(x))
        for (front, own), count in zip(self._fronts(x, strip), lanes.tolist(), strict=True):
            fold(stack, min(count, stack.lanes))
            state.look(front)
            for channel in range(network.channels):
                if own.first < own.stop:
                    parameters = state.parameters(front, channel)[None, :, own.first - front.first :]
                    x[(*own.index, channel)] = pop(stack, self.distribution(parameters))
                state.learn(front, channel, x[(*front.index, channel)])

    def _fronts(self, x: Levels, strip: Strip) -> Iterator[tuple[Front, Front]]:
        """All pixels of each front, and the strip's own among them."""
        slope = self.loaded.network.slope
        fronts = Fronts.of(strip, x.shape[1], slope)
        for (time, first, stop), (_, own_first, own_stop) in zip(fronts.all.tolist(), fronts.own.tolist(), strict=True):
            yield Front(time, first, stop, slope), Front(time, own_first, own_stop, slope)
