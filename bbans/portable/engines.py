"""Finding an engine by name."""

from __future__ import annotations

from importlib.util import find_spec

from bbans.errors import CoreError
from bbans.portable.engine import Engine

ENGINE_NAMES = ("numpy", "numba", "torch")
COMPILED_PIXELS = 1 << 20
"""Fewer pixels are coded before compiled code is loaded."""


def engine_named(name: str = "auto", device: str = "auto", pixels: int | None = None) -> Engine:
    """The engine ``numpy``, ``numba``, or ``torch`` on ``cpu`` or ``cuda``.

    ``auto`` is torch if CUDA is asked for, else numba if it is installed and worth loading for about so many
    ``pixels`` (None: for many), else NumPy. Torch and numba are imported only if they are used. Raises
    :class:`bbans.errors.CoreError` for an unknown name, a device that is not there or a package that is not installed.
    """
    if name == "auto":
        worth = pixels is None or pixels >= COMPILED_PIXELS
        name = "torch" if device == "cuda" else "numba" if worth and find_spec("numba") else "numpy"
    if name not in ENGINE_NAMES:
        raise CoreError(f"there is no engine named {name!r}; expected one of: auto, {', '.join(ENGINE_NAMES)}")
    if name == "torch":
        from bbans.portable.torch_engine import TorchEngine

        return TorchEngine(device)
    if device == "cuda":
        raise CoreError(f"the {name} engine runs on the CPU only; use the torch engine for cuda")
    if name == "numba":
        if find_spec("numba") is None:
            raise CoreError("the numba engine needs numba: pip install 'bbans[numba]'")
        from bbans.portable.numba_engine import NumbaEngine

        return NumbaEngine()
    from bbans.portable.numpy_engine import NumpyEngine

    return NumpyEngine()
