"""Finding an ANS core by name: the entry points of group ``bbans.ans``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bbans.ans.numpy_core import core as numpy_core
from bbans.ans.stack import Core
from bbans.errors import CoreError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "bbans.ans"
DEFAULT = numpy_core.name


def _entries() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # takes a while to import, and the default core needs it not

    return entry_points(group=GROUP)


def core_names() -> list[str]:
    """The names of all cores that are registered; one may still lack the package it wraps."""
    return sorted({DEFAULT} | {entry.name for entry in _entries()})


def core_named(name: str = DEFAULT) -> Core:
    """The core registered as ``name``; :class:`bbans.errors.CoreError` if there is none or it doesn't load."""
    if name == DEFAULT:
        return numpy_core
    for entry in _entries():
        if entry.name == name:
            try:
                core: Core = entry.load()
            except (ImportError, RuntimeError) as error:
                raise CoreError(f"the ANS core {name!r} does not load: {error}") from error
            return core
    raise CoreError(f"there is no ANS core named {name!r}; installed: {', '.join(core_names())}")
