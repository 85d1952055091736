"""The contract of what evaluates integer networks.

All engines give the same integers; they differ in speed, and in what they need installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.portable.network import BackwardPass, Network

Evaluate = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Evaluates a network: integers ``(images, inputs)`` to integers ``(images, outputs)``."""


Cotangent = Callable[[NDArray[np.int64], slice], NDArray[np.int64]]
"""From a network's results for some of the images to the gradient of something with respect to them."""
Differentiate = Callable[[NDArray[np.int64], Cotangent], NDArray[np.int64]]
"""The gradient with respect to a network's inputs, by the rules of :class:`bbans.portable.network.BackwardPass`."""


class Engine(Protocol):
    """Makes networks ready to be evaluated."""

    @property
    def name(self) -> str:
        """The name that ``--engine`` takes."""

    def load(self, network: Network) -> Evaluate:
        """A function that evaluates ``network``, safe to call from several threads."""

    def load_gradient(self, network: Network, backward: BackwardPass) -> Differentiate:
        """A function that runs a gradient backward through ``network``, safe to call from several threads."""
