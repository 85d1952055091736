"""How the maps that an engine works on lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
"""Integers held in floating point, ``(..., channels, images)``."""
Stored = NDArray[Any]
"""A map as an engine keeps it, ``(tiles, rows, columns, groups, images of a tile)``, or some of its positions,
``(tiles, positions, groups, images of a tile)``. The last two axes are contiguous."""


class Layout(Protocol):
    """Where the channels of images are kept."""

    def groups(self, channels: int) -> int:
        """How many groups so many channels of a position take."""

    def store(self, values: Values) -> Stored:
        """A map ``(rows, columns, channels, images)``."""

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        """Replace a channel of positions that are part of a map by ``(positions, images)``."""

    def blocks(self, images: int, positions: int) -> list[slice]:
        """Images cut into blocks whose layers are evaluated one after the other, for lines of so many positions."""


BLOCK_COLUMNS = 2048
"""Positions of images that are evaluated together: enough for the matrix products, few enough to stay in cache."""


@dataclass(frozen=True)
class PlainLayout:
    """One tile, and a group for each channel, in float32."""

    def groups(self, channels: int) -> int:
        return channels

    def store(self, values: Values) -> Stored:
        return values[None]

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        stored[0, :, channel] = values

    def blocks(self, images: int, positions: int) -> list[slice]:
        return cut(images, max(1, BLOCK_COLUMNS // positions))


def cut(images: int, step: int) -> list[slice]:
    """Blocks of so many images."""
    return [slice(first, min(first + step, images)) for first in range(0, images, step)]
