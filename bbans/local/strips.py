"""How images are cut into strips, and strips into sections: part of the format, which all sides compute.

A *strip* is some rows of an image, evaluated together; it sees the rows above it, so that nothing is lost at its edge,
and its height bounds the memory that it takes. A *section* is some strips that follow each other, in one image or
several, and share a stack. Sections know nothing of each other, so that they can be coded side by side; the first strip
of one sees nothing above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.chunk import HEAD_BITS
from bbans.portable.local import fronts

STRIP_POSITIONS = 1 << 20
"""Positions of a strip, at most, unless it is one row..."""
STRIP_ROWS = 512
"""...and rows."""
SECTION_POSITIONS = 1 << 21
"""Positions of a section, at most, unless it is one strip..."""
SECTION_STRIPS = 4096
"""...and strips."""
LANES_MAXIMUM = 64
BITS_UNIT = 1024
"""A model says how many bits so many values take."""


@dataclass(frozen=True)
class Strip:
    """Rows ``first`` to before ``stop`` of an image, and those above that it sees."""

    image: int
    first: int
    stop: int
    above: int
    """How many rows above are seen."""


@dataclass(frozen=True)
class Sections(Sequence[list[Strip]]):
    """All strips of images of a height and width, section by section; ``reach`` is how far up a network looks.

    Each is made when it is asked for: what a damaged file asks for must not be made before it fails.

    >>> [[(strip.first, strip.stop, strip.above) for strip in part] for part in Sections(1, 2500, 2000, 5)]
    [[(0, 500, 0), (500, 1000, 5)], [(1000, 1500, 0), (1500, 2000, 5)], [(2000, 2500, 0)]]
    """

    images: int
    height: int
    width: int
    reach: int

    @property
    def pieces(self) -> int:
        """Strips of an image, of almost equal height."""
        return -(-self.height // max(1, min(STRIP_ROWS, STRIP_POSITIONS // self.width)))

    @property
    def strips(self) -> int:
        """Of a section, but perhaps the last."""
        positions = -(-self.height // self.pieces) * self.width
        return max(1, min(SECTION_STRIPS, SECTION_POSITIONS // positions))

    def __len__(self) -> int:
        return -(-self.images * self.pieces // self.strips)

    def __getitem__(self, number: Any) -> Any:
        pieces, strips = self.pieces, self.strips
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} sections, and none of number {number}")
        found: list[Strip] = []
        for place in range(number * strips, min((number + 1) * strips, self.images * pieces)):
            image, piece = divmod(place, pieces)
            first, stop = (self.height * edge // pieces for edge in (piece, piece + 1))
            found.append(Strip(image, first, stop, min(first, self.reach) if found else 0))
        return found


@dataclass(frozen=True, eq=False)
class Fronts:
    """The fronts of a strip and the rows above that it sees, of which row 0 is the first."""

    all: NDArray[np.int64]
    """As from :func:`bbans.portable.local.fronts`..."""
    own: NDArray[np.int64]
    """...and so those of its pixels that are in the strip, and not above."""

    @staticmethod
    def of(strip: Strip, width: int, slope: int) -> Fronts:
        """Of a strip of an image so wide."""
        found = fronts(strip.above + strip.stop - strip.first, width, slope)
        own = found.copy()
        own[:, 1:] = np.maximum(own[:, 1:], strip.above)
        return Fronts(found, own)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many pixels of each front are in the strip."""
        return self.own[:, 2] - self.own[:, 1]


def schedule(symbols: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Over how many lanes the symbols of each front are coded, ``symbols`` of them, fronts in the order of decoding.

    The encoder goes the other way, and the stack is empty when it begins: heads may hold half of what it is expected to
    have put there, if :data:`BITS_UNIT` symbols take ``bits``.

    >>> schedule(np.array([90, 90, 90, 90]), bits=8 * BITS_UNIT).tolist()
    [16, 8, 4, 1]
    """
    before = np.cumsum(symbols[::-1])[::-1] - symbols  # what the encoder has pushed when it comes to a front
    held = before * bits // BITS_UNIT
    lanes = np.ones_like(symbols)
    while (more := (lanes < LANES_MAXIMUM) & (4 * HEAD_BITS * lanes <= held)).any():
        lanes[more] *= 2
    return lanes
