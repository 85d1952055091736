"""The contract of what evaluates integer networks.

All engines give the same integers; they differ in speed, and in what they need installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bbans.portable.convolution import ConvolutionalNetwork, Line, Size, rows_of
from bbans.portable.descent import Floats32
from bbans.portable.layout import Layout, Place, Stored, Values
from bbans.portable.network import Linear, Network

Evaluate = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Evaluates a network: integers ``(images, inputs)`` to integers ``(images, outputs)``."""


Sums = Callable[[NDArray[np.floating]], NDArray[np.floating]]
"""A matrix product and nothing else: integers ``(inputs, columns)`` to exact sums ``(outputs, columns)``, all held in
floating point, float64 where sums may be over 2**24."""
Rows = NDArray[np.intp] | slice
PullBack = Callable[[Floats32, Rows], NDArray[np.float64]]
"""From the gradient of something with respect to a network's real results, float32 ``(rows, outputs)``, for some of
its images, to that with respect to one unit of each of its inputs, float64 ``(rows, inputs)``, by the rules of
:mod:`bbans.portable.descent`."""
Linearize = Callable[[NDArray[np.int64]], tuple[Floats32, PullBack]]
"""From integers ``(images, inputs)`` to a network's real results, float32 ``(images, outputs)``, and the way of
gradients back from there. Both are good until the same thread calls it again."""


class Product(Protocol):
    """Evaluates one layer on positions of maps, as the engine's layout keeps them."""

    @property
    def groups(self) -> int:
        """That the results of a position take."""

    def __call__(self, parts: Sequence[Stored], added: Stored | None = None, out: Stored | None = None, /) -> Stored:
        """The inputs come in ``parts``, one after the other. What is ``added`` is added to the results, which are then
        clipped to ``0 .. added_maximum``. They are written to ``out``, or are good until the same thread calls again.
        """

    def read(self, found: Stored, images: int) -> Values:
        """What it found for so many images, ``(..., channels, images)``, without tiles. It may be a view."""


@dataclass(frozen=True, eq=False)
class Call:
    """One layer, from one place of each position to another."""

    product: Product
    parts: tuple[Place, ...]
    out: Place
    added: Place | None = None


def in_turn(calls: Sequence[Call]) -> Callable[[Line], None]:
    """What an engine makes of calls if it has nothing better."""

    def evaluate(line: Line) -> None:
        for call in calls:
            added = None if call.added is None else call.added.at(line)
            call.product([part.at(line) for part in call.parts], added, call.out.at(line))

    return evaluate


def over_maps(calls: Sequence[tuple[Call, Size]]) -> Callable[[], None]:
    """What an engine makes of calls over maps if it has nothing better."""

    def evaluate() -> None:
        for call, size in calls:
            one = in_turn([call])
            for line in rows_of(size):
                one(line)

    return evaluate


class Engine(Protocol):
    """Makes networks ready to be evaluated."""

    @property
    def name(self) -> str:
        """The name that ``--engine`` takes."""

    def load(self, network: Network) -> Evaluate:
        """A function that evaluates ``network``, safe to call from several threads."""

    def load_convolutions(self, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
        """A function that evaluates ``network`` on maps ``(rows, columns, channels, images)``, safe to call from
        several threads.
        """

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        """A function that multiplies inputs up to a magnitude by ``(outputs, inputs)``, safe to call from several
        threads. No sum may be over 2**53.
        """

    def load_gradient(self, network: Network) -> Linearize:
        """A function that evaluates ``network`` and can go back, safe to call from several threads."""


@runtime_checkable
class MapEngine(Engine, Protocol):
    """An engine that evaluates layers on maps in memory, as :mod:`bbans.portable.maps` lays them out."""

    @property
    def layout(self) -> Layout:
        """Of the maps that products take."""

    def suited(self, layers: Sequence[tuple[Linear, int]]) -> MapEngine:
        """An engine for products of such layers on maps, each with the magnitude of what goes into it: this one if it
        can do them all.
        """

    def load_product(
        self, layer: Linear, input_magnitude: int, channels: Sequence[int], added_maximum: int = 0
    ) -> Product:
        """A function that evaluates one layer on inputs up to a magnitude, safe to call from several threads. The
        inputs are so many ``channels`` of one position after the other.
        """

    def load_calls(self, calls: Sequence[Call]) -> Callable[[Line], None]:
        """A function that makes these calls, one after the other, for all positions of a line."""

    def load_map_calls(self, calls: Sequence[tuple[Call, Size]]) -> Callable[[], None]:
        """A function that makes these calls, one after the other, each for all positions up to a height and width."""
