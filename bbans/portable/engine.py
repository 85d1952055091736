"""The contract of what evaluates integer networks.

All engines give the same integers; they differ in speed, and in what they need installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.portable.descent import Floats32
from bbans.portable.network import Linear, Network

Evaluate = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Evaluates a network: integers ``(images, inputs)`` to integers ``(images, outputs)``."""


Product = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float32]]
"""Evaluates one layer on integers held in floating point. Its inputs come in parts, ``(positions, inputs of the part,
images)``, which need not be contiguous; the result is ``(positions, outputs, images)``, and is good until the
same thread calls again."""
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


class Engine(Protocol):
    """Makes networks ready to be evaluated."""

    @property
    def name(self) -> str:
        """The name that ``--engine`` takes."""

    def load(self, network: Network) -> Evaluate:
        """A function that evaluates ``network``, safe to call from several threads."""

    def load_product(self, layer: Linear, input_magnitude: int) -> Product:
        """A function that evaluates one layer on inputs up to a magnitude, safe to call from several threads."""

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        """A function that multiplies inputs up to a magnitude by ``(outputs, inputs)``, safe to call from several
        threads. No sum may be over 2**53.
        """

    def load_gradient(self, network: Network) -> Linearize:
        """A function that evaluates ``network`` and can go back, safe to call from several threads."""
