"""Models as the metadata of an array names them, loaded once in a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import bbans

KEYS = {"model", "identity", "posterior", "steps"}
RELOAD_FACTOR = 4


@dataclass(frozen=True)
class Setting:
    """All that must be known to decode a chunk besides its shape and type, as it stands in an array's metadata."""

    model: str
    """The model's name."""
    identity: str
    """Its identity with this posterior, in hexadecimal digits."""
    posterior: str
    steps: int

    def to_json(self) -> dict[str, Any]:
        """What :func:`load_setting` takes."""
        return {
            "model": self.model,
            "identity": self.identity,
            "posterior": self.posterior,
            "steps": self.steps,
        }


@dataclass(eq=False)
class Loaded:
    """A model in a setting, shared by all codecs of this process that have the same.

    Compiled code takes seconds to load, or a minute the first time on a machine. So the engine is chosen for the pixels
    coded so far, and chosen again when they are four times as many.
    """

    setting: Setting
    model: bbans.Model
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _codec: bbans.Codec | None = None
    _pixels: int = 0
    _next: int = 0

    def codec(self, pixels: int) -> bbans.Codec:
        """For coding so many pixels more, on one thread: those who call bring the threads."""
        with self._lock:
            self._pixels += pixels
            if self._codec is None or self._pixels >= self._next:
                setting = self.setting
                self._codec = bbans.Codec.of(
                    self.model, posterior=setting.posterior, steps=setting.steps, threads=1, pixels=self._pixels
                )
                self._next = RELOAD_FACTOR * self._pixels
            return self._codec


_loaded: dict[Setting, Loaded] = {}
_lock = threading.Lock()


def load(
    model: str | os.PathLike[str] | bbans.Model, posterior: str | None, steps: int, identity: str | None = None
) -> Loaded:
    """A model by its name or path, with its default posterior unless another one is named.

    Raises :class:`bbans.ModelError` if there is none, or if it has not the ``identity`` that is expected.
    """
    if not isinstance(model, bbans.Model):
        model = bbans.load_model(model)
    posterior = posterior or model.default_posterior
    found = model.identity(posterior).hex()
    if identity not in (None, found):
        raise bbans.ModelError(
            f"the data was written with a model {model.name} of identity {identity}, posterior {posterior}; the one "
            f"found by that name here has identity {found}: get the other one, or load it from where it lies"
        )
    setting = Setting(model.name, found, posterior, steps)
    with _lock:
        return _loaded.setdefault(setting, Loaded(setting, model))


def load_setting(configuration: Mapping[str, Any]) -> Loaded:
    """The same for what stands in metadata, where the name of a model is never taken for a path.

    What this process has loaded is found, whatever it was loaded from. Without an identity any model of the name does.
    """
    name, posterior, steps = configuration.get("model"), configuration.get("posterior"), configuration.get("steps", 0)
    identity = configuration.get("identity")
    if (
        not isinstance(name, str)
        or not isinstance(posterior, str | None)
        or not isinstance(identity, str | None)
        or type(steps) is not int
        or not configuration.keys() <= KEYS
    ):
        raise bbans.ModelError(
            f"the configuration of codec bbans has a model's name, its identity, a posterior and steps, not "
            f"{dict(configuration)}"
        )
    if identity is not None and posterior is not None:
        with _lock:
            if known := _loaded.get(Setting(name, identity, posterior, steps)):
                return known
    return load(bbans.find_model(name), posterior, steps, identity)
