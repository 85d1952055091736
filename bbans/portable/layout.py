"""How the maps that an engine works on lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bbans.portable.convolution import Line, Size

Values = NDArray[np.float32]
"""Integers held in floating point, ``(..., channels, images)``."""
Stored = NDArray[Any]
"""A map as an engine keeps it, ``(tiles, rows, columns, groups, images of a tile)``, or some of its positions,
``(tiles, positions, groups, images of a tile)``. The last two axes are contiguous."""


class Layout(Protocol):
    """Where the channels of images are kept."""

    def groups(self, channels: int) -> int:
        """How many groups so many channels of a position take."""

    def empty(self, images: int, shape: tuple[int, ...]) -> Stored:
        """Zeros for so many images, ``(tiles, *shape, images of a tile)``."""

    def store(self, values: Values, stored: Stored) -> None:
        """Write a map ``(rows, columns, channels, images)``."""

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        """Replace a channel of positions that are part of a map by ``(positions, images)``."""

    def blocks(self, images: int, positions: int) -> list[slice]:
        """Images cut into blocks whose lines, of so many positions, are evaluated one after the other."""

    def map_blocks(self, images: int, positions: int) -> list[slice]:
        """Images cut into blocks whose whole maps, with rows of so many positions, are."""


BLOCK_COLUMNS = 2048
"""Positions of images that are evaluated together: enough for the matrix products, few enough to stay in cache."""


@dataclass(frozen=True)
class PlainLayout:
    """One tile, and a group for each channel, in float32."""

    def groups(self, channels: int) -> int:
        return channels

    def empty(self, images: int, shape: tuple[int, ...]) -> Stored:
        return np.zeros((1, *shape, images), np.float32)

    def store(self, values: Values, stored: Stored) -> None:
        stored[0] = values

    def write(self, stored: Stored, channel: int, values: Values) -> None:
        stored[0, :, channel] = values

    def blocks(self, images: int, positions: int) -> list[slice]:
        return cut(images, max(1, BLOCK_COLUMNS // positions))

    def map_blocks(self, images: int, positions: int) -> list[slice]:
        return self.blocks(images, positions)


def cut(images: int, step: int) -> list[slice]:
    """Blocks of so many images."""
    return [slice(first, min(first + step, images)) for first in range(0, images, step)]


@dataclass(frozen=True)
class Run:
    """Places beside a position: ``width`` columns of a row, the first so many rows and columns away."""

    row: int
    column: int
    width: int = 1


HERE = Run(0, 0)


@dataclass(frozen=True)
class Margin:
    """Of zeros around a map."""

    above: int = 0
    below: int = 0
    left: int = 0
    right: int = 0


NO_MARGIN = Margin()


@dataclass(frozen=True, eq=False)
class Map:
    """What there is at each position of images, in a margin."""

    stored: Stored
    size: Size
    margin: Margin

    @staticmethod
    def empty(layout: Layout, images: int, size: Size, groups: int, margin: Margin = NO_MARGIN) -> Map:
        """Zeros."""
        height, width = margin.above + size[0] + margin.below, margin.left + size[1] + margin.right
        return Map(layout.empty(images, (height, width, groups)), size, margin)

    @property
    def inside(self) -> Stored:
        """The map without its margin: a view."""
        (height, width), margin = self.size, self.margin
        return self.stored[:, margin.above : margin.above + height, margin.left : margin.left + width]

    def at(self, line: Line, run: Run = HERE) -> Stored:
        """What lies at the places of a run beside the positions of a line: a view ``(tiles, positions, places * groups,
        images of a tile)``.
        """
        tiles, _, _, groups, images = self.stored.shape
        tile, down, right, group, image = self.stored.strides
        row, column = self.margin.above + line.row + run.row, self.margin.left + line.column + run.column
        offset = row * down + column * right
        shape = (tiles, line.count, run.width * groups, images)
        strides = (tile, line.down * down + line.right * right, group, image)
        return np.ndarray(shape, self.stored.dtype, self.stored, offset, strides)


@dataclass(frozen=True, eq=False)
class Scratch:
    """What was found for the positions of a line, whichever they are: ``(tiles, positions, groups, images of a tile)``,
    for at least as many positions.
    """

    stored: Stored

    def at(self, line: Line, run: Run = HERE) -> Stored:
        """Of the positions of a line, whatever ``run`` says."""
        return self.stored[:, : line.count]


@dataclass(frozen=True, eq=False)
class Place:
    """Where something is, for each position of a line."""

    map: Map | Scratch
    run: Run = HERE
    groups: int | None = None
    """Only the first so many."""
    step: int = 1
    """Of rows and columns of the map from a position to the next."""

    def at(self, line: Line) -> Stored:
        """A view ``(tiles, positions, groups, images of a tile)``."""
        step = self.step
        stepped = Line(step * line.row, step * line.column, step * line.down, step * line.right, line.count)
        found = self.map.at(stepped, self.run)
        return found if self.groups is None else found[:, :, : self.groups]
