"""Finding an engine by name."""

from __future__ import annotations

from bbans.errors import CoreError
from bbans.portable.engine import Engine

ENGINE_NAMES = ("numpy", "torch")


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
