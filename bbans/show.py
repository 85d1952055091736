"""A contact sheet of compressed images, each beside a heat map of the bits of its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bbans.bitcost import Floats, bits_of_pixels
from bbans.container import Header
from bbans.errors import ArrayError
from bbans.reader import CompressedArray, parse_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = NDArray[np.uint8]
SIDE = 112
"""Pixels of the sheet that the longer side of an image takes, or more..."""
SIDE_MAXIMUM = 512
"""...up to this many, if it has them."""
MARGIN, LINE = 8, 14
COLOURS = np.array([[0, 0, 0], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)
"""From nothing to the most bits; all get lighter, so that they can be told apart without colours too."""
UNKNOWN = (128, 128, 128)
PERCENTILE = 99.5
"""Of the bits of pixels: what more than these cost is drawn as they are."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of the sheet."""

    name: str
    pixels: NDArray[Any]
    bits: Floats
    """Of each element of ``pixels``, or NaN if it is stored through zstandard."""
    latents: float

    @property
    def caption(self) -> str:
        """What it cost, in bits."""
        if np.isnan(self.bits).any():
            return f"{self.name}: zstandard"
        total = float(self.bits.sum()) + self.latents
        return f"{self.name}: {total:,.0f} bits, {total / self.bits.size:.3f}/dim, latents {self.latents:,.1f}"


def has_images(header: Header) -> bool:
    """Whether the rows of an array can be drawn."""
    return len(header.row_shape) in (2, 3) and all(header.row_shape) and parse_dtype(header).kind != "c"


def shown_of(compressed: CompressedArray, count: int, names: Sequence[str] | None = None) -> list[Shown]:
    """The first images of an array, at most ``count``, and what they cost.

    Raises :class:`bbans.errors.ArrayError` if its rows are no images.
    """
    model, shape = compressed.header.model, compressed.header.row_shape
    if not has_images(compressed.header):
        raise ArrayError(f"expected rows that are images, (height, width) or with channels too, got rows of {shape}")
    rows = compressed.read(0, count)
    cost = bits_of_pixels(compressed, 0, len(rows)) if model else None
    unknown = np.full(shape, np.nan)
    return [
        Shown(
            names[number] if names else f"{number}",
            row,
            cost.pixels[number] if cost else unknown,
            float(cost.latents[number]) if cost else math.nan,
        )
        for number, row in enumerate(rows)
    ]


def draw_sheet(images: Sequence[Shown]) -> Image:
    """The sheet: each image, its heat map to the right, its cost below; the scale of the maps at the end.

    Raises :class:`bbans.errors.ArrayError` without Pillow, or if there is nothing to draw.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise ArrayError("drawing needs pillow: pip install 'bbans[images]'") from error
    if not images:
        raise ArrayError("there are no images to draw")
    known = np.concatenate([_of_positions(shown.bits).ravel() for shown in images])
    known = known[~np.isnan(known)]
    most = max(float(np.percentile(known, PERCENTILE)), 1e-9) if known.size else 1.0
    pairs = [
        (_enlarged(_visible(shown.pixels)), _enlarged(_heat(_of_positions(shown.bits) / most))) for shown in images
    ]
    captions = [shown.caption for shown in images]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text = max(math.ceil(measure.textlength(caption)) for caption in captions)
    width = MARGIN + max(max(2 * pair[0].shape[1] + 2 for pair in pairs), text)
    height = MARGIN + LINE + max(pair[0].shape[0] for pair in pairs)
    columns = max(1, round(math.sqrt(len(images) * height / width)))
    lines = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, lines * height + 2 * MARGIN + 2 * LINE), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (pair, caption) in enumerate(zip(pairs, captions, strict=True)):
        left, top = MARGIN + number % columns * width, MARGIN + number // columns * height
        sheet.paste(Image.fromarray(pair[0]), (left, top))
        sheet.paste(Image.fromarray(pair[1]), (left + pair[0].shape[1] + 2, top))
        pen.text((left, top + pair[0].shape[0]), caption, fill="black")
    top = sheet.height - MARGIN - 2 * LINE
    length = min(256, sheet.width - 2 * MARGIN)
    bar = np.repeat(_heat(np.linspace(0, 1, length)[None]), LINE, axis=0)
    sheet.paste(Image.fromarray(bar), (MARGIN, top))
    pen.text((MARGIN, top + LINE), f"0 to {most:.2f} bits a pixel" if known.size else "no model", fill="black")
    return sheet


def _visible(pixels: NDArray[Any]) -> Bytes:
    """Bytes ``(height, width, 3)``; 8-bit images as they are, others from their least value to their greatest."""
    if pixels.ndim == 3 and pixels.shape[2] > 4:  # channels first, or more than can be seen
        pixels = pixels[0] if pixels.shape[0] <= 4 else pixels[..., 0]
    if pixels.dtype != np.uint8 or pixels.max() <= 1:
        values = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0)
        low, high = (0.0, 1.0) if pixels.dtype.kind == "b" or pixels.max() <= 1 else (values.min(), values.max())
        pixels = ((values - low) / max(high - low, 1e-300) * 255).clip(0, 255).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def _of_positions(bits: Floats) -> Floats:
    """Summed over the channels, ``(height, width)``."""
    if bits.ndim == 2:
        return bits
    summed: Floats = bits.sum(axis=0 if bits.shape[2] > 4 and bits.shape[0] <= 4 else 2)
    return summed


def _heat(share: Floats) -> Bytes:
    """Colours of shares of the most bits, ``(height, width, 3)``."""
    places = np.linspace(0, 1, len(COLOURS))
    heat = np.stack([np.interp(share, places, COLOURS[:, channel]) for channel in range(3)], axis=-1)
    return np.where(np.isnan(share)[..., None], UNKNOWN, heat).astype(np.uint8)


def _enlarged(image: Bytes) -> Bytes:
    """Every pixel so many times that it can be seen; only each second, third, ... of a large one."""
    side = max(image.shape[:2])
    step, times = math.ceil(side / SIDE_MAXIMUM), max(1, SIDE // side)
    return image[::step, ::step].repeat(times, axis=0).repeat(times, axis=1)
