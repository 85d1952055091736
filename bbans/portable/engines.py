"""What evaluates integer networks: the contract of an engine, and how one is found by name.

All engines give the same integers; they differ in speed, and in what they need installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.errors import CoreError
from bbans.portable.network import Network

Evaluate = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Evaluates a network: integers ``(images, inputs)`` to integers ``(images, outputs)``."""


class Engine(Protocol):
    """Makes networks ready to be evaluated."""

    @property
    def name(self) -> str:
        """The name that ``--engine`` takes."""

    def load(self, network: Network) -> Evaluate:
        """A function that evaluates ``network``, safe to call from several threads."""


ENGINE_NAMES = ("numpy", "torch")
DEVICE_NAMES = ("auto", "cpu", "cuda")


def engine_named(name: str = "auto", device: str = "auto") -> Engine:
    """The engine ``numpy`` or ``torch`` on ``cpu`` or ``cuda``.

    ``auto`` is NumPy, unless a device other than the CPU is asked for. Torch is imported only if it is used.
    Raises :class:`bbans.errors.CoreError` for an unknown name or a device that is not there.
    """
    if name == "auto":
        name = "torch" if device == "cuda" else "numpy"
    if name == "numpy":
        if device == "cuda":
            raise CoreError("the numpy engine runs on the CPU only; use the torch engine for cuda")
        from bbans.portable.numpy_engine import NumpyEngine

        return NumpyEngine()
    if name == "torch":
        from bbans.portable.torch_engine import TorchEngine

        return TorchEngine(device)
    raise CoreError(f"there is no engine named {name!r}; expected one of: auto, {', '.join(ENGINE_NAMES)}")
