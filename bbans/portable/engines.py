"""Finding an engine by name."""

from __future__ import annotations

from contextlib import suppress

from bbans.errors import CoreError
from bbans.portable.engine import Engine

ENGINE_NAMES = ("numpy", "numba", "torch")
COMPILED_MULTIPLY_ADDS = 1 << 33
"""NumPy does fewer while compiled code is loaded."""


def engine_named(name: str = "auto", device: str = "auto", multiply_adds: int | None = None) -> Engine:
    """The engine ``numpy``, ``numba``, or ``torch`` on ``cpu`` or ``cuda``.

    ``auto`` is torch if CUDA is asked for, else numba if it loads and is worth it for about so many
    ``multiply_adds`` (None: for many), else NumPy. Torch and numba are imported only if they are used. Raises
    :class:`bbans.errors.CoreError` for an unknown name, a device that is not there or an engine that does not load.
    """
    if name == "auto":
        if device != "cuda" and (multiply_adds is None or multiply_adds >= COMPILED_MULTIPLY_ADDS):
            with suppress(CoreError):
                return _numba_engine()
        name = "torch" if device == "cuda" else "numpy"
    if name not in ENGINE_NAMES:
        raise CoreError(f"there is no engine named {name!r}; expected one of: auto, {', '.join(ENGINE_NAMES)}")
    if name == "torch":
        from bbans.portable.torch_engine import TorchEngine

        return TorchEngine(device)
    if device == "cuda":
        raise CoreError(f"the {name} engine runs on the CPU only; use the torch engine for cuda")
    if name == "numba":
        return _numba_engine()
    from bbans.portable.numpy_engine import NumpyEngine

    return NumpyEngine()


def goes_with_compiled_code(engine: Engine) -> bool:
    """Whether what is done beside an engine is to be done in compiled code: by numba, or where there is a GPU to keep
    up with and numba loads.
    """
    if engine.name != "torch":
        return engine.name == "numba"
    from bbans.portable.torch_engine import TorchEngine

    if isinstance(engine, TorchEngine) and engine.device.is_cuda:
        with suppress(CoreError):
            return bool(_numba_engine())
    return False


def _numba_engine() -> Engine:
    try:
        from bbans.portable.numba_engine import NumbaEngine
    except ImportError as error:
        raise CoreError(f"the numba engine needs numba, pip install 'bbans[numba]': {error}") from error
    except RuntimeError as error:  # numba finds no folder that it may write to
        raise CoreError(f"the numba engine does not load, NUMBA_CACHE_DIR may help: {error}") from error
    return NumbaEngine()
