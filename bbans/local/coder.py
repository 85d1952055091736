"""Chunks of images of any size to bytes and back.

Each section (:mod:`bbans.local.strips`) has a stack of its own, which lanes are added to as it fills, as in
:mod:`bbans.chunk`. Nothing is popped that was not pushed: there are no latents, and no bits to be had for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.ans import Core, grow
from bbans.chunk import (
    FIRST_WORDS,
    check_stack,
    checksum_of,
    finish_stack,
    read_stack,
    refusing_nonsense,
    start_stack,
)
from bbans.container import Method
from bbans.errors import FormatError, StackUnderflow
from bbans.fallback import restore, store
from bbans.fields import FieldReader, varint
from bbans.local.likelihood import Lanes, StripLikelihood
from bbans.local.strips import Fronts, Sections, Strip, schedule
from bbans.parallel import map_in_order
from bbans.portable.local import Front, Levels, LocalNetwork

Section = list[Strip]


@dataclass(frozen=True, eq=False)
class LocalCoder:
    """Codes chunks of images of one shape; it holds no state and may be shared by threads."""

    network: LocalNetwork
    likelihood: StripLikelihood
    core: Core
    image_shape: tuple[int, int, int]
    """Height, width and channels: those of the network, or one more, which is stored through zstandard."""
    bits: int
    """About what :data:`bbans.local.strips.BITS_UNIT` values take."""
    threads: int = 1
    """How many sections are coded side by side."""

    def encode(self, x: Levels) -> bytes:
        """The payload for one or more images, uint8 ``(images, pixels)``."""
        images = x.reshape(-1, *self.image_shape)
        channels = self.network.channels
        opacity = b""
        if self.image_shape[2] > channels:
            method, stored = store(np.ascontiguousarray(images[..., channels]))
            opacity = bytes([method]) + varint(len(stored)) + stored
            images = np.ascontiguousarray(images[..., :channels])
        cut = self._cut(len(images))
        numbers = list(range(len(cut)))
        parts = list(map_in_order(lambda number: self._encode(images, cut[number]), numbers, self.threads))
        return opacity + b"".join(varint(len(part)) for part in parts[:-1]) + b"".join(parts)

    def decode(self, payload: bytes, images: int) -> Levels:
        """The images of a chunk, uint8 ``(images, pixels)``: the inverse of :meth:`encode`.

        Raises :class:`bbans.errors.FormatError` if what comes out is not what went in.
        """
        height, width, channels = *self.image_shape[:2], self.network.channels
        reader = FieldReader(payload)
        opacity = None
        if self.image_shape[2] > channels:
            method = reader.byte()
            if method not in (Method.ZSTANDARD, Method.PLANES):
                raise FormatError(f"an opacity is stored by method {method}: the file is damaged")
            stored = Method(method), reader.take(reader.varint())
            opacity = restore(stored, np.dtype(np.uint8), (images, height, width))
        cut = self._cut(images)
        sizes = [reader.varint() for _ in range(len(cut) - 1)]
        parts = [*(reader.take(size) for size in sizes), reader.rest()]
        x = np.empty((images, height, width, channels), np.uint8)
        numbers = list(range(len(cut)))
        for _ in map_in_order(lambda number: self._decode(x, cut[number], parts[number]), numbers, self.threads):
            pass
        return (x if opacity is None else np.concatenate([x, opacity[..., None]], axis=3)).reshape(images, -1)

    def bits_each(self, x: Levels) -> NDArray[np.float64]:
        """-log2 p of each value of images, float64 ``(images, pixels)``; 0 for an opacity."""
        images = x.reshape(-1, *self.image_shape)[..., : self.network.channels]
        bits = np.zeros((len(images), *self.image_shape))
        for strip in (strip for section in self._cut(len(images)) for strip in section):
            pixels = np.ascontiguousarray(images[strip.image, strip.first - strip.above : strip.stop])
            _, frequency = self.likelihood.intervals(pixels, strip)
            found = self.likelihood.precision - np.log2(frequency)
            done, here = 0, bits[strip.image, strip.first - strip.above : strip.stop]
            slope = self.network.slope
            for time, first, stop in Fronts.of(strip, self.image_shape[1], slope).own.tolist():
                index = Front(time, first, stop, slope).index
                for channel in range(self.network.channels):
                    here[(*index, channel)] = found[done : done + stop - first]
                    done += stop - first
        return bits.reshape(x.shape)

    def _cut(self, images: int) -> Sections:
        height, width, _ = self.image_shape
        return Sections(images, height, width, self.network.reach)

    def _encode(self, images: Levels, section: Section) -> bytes:
        first_words = FIRST_WORDS
        checksum = checksum_of(_pixels(images, section))
        lanes = self._lanes(section)
        while True:
            stack = start_stack(self.core, checksum, first_words)
            try:
                for strip, of_fronts in reversed(list(zip(section, lanes, strict=True))):
                    edges = self.likelihood.intervals(
                        images[strip.image, strip.first - strip.above : strip.stop], strip
                    )
                    self.likelihood.push(stack, edges, self._counts(strip), of_fronts)
                return finish_stack(stack, first_words)
            except StackUnderflow:  # the images are so cheap that heads cost more than they gave
                first_words *= 4

    def _decode(self, images: Levels, section: Section, payload: bytes) -> None:
        stack = read_stack(self.core, payload)
        lanes = self._lanes(section)
        with refusing_nonsense():
            grow(stack, int(lanes[0][0]))
            for strip, of_fronts in zip(section, lanes, strict=True):
                x = images[strip.image, strip.first - strip.above : strip.stop]
                self.likelihood.pop(stack, x, strip, of_fronts)
        check_stack(stack, checksum_of(_pixels(images, section)))

    def _lanes(self, section: Section) -> list[Lanes]:
        """For each strip, over how many lanes its fronts are coded."""
        counts = [self._counts(strip) for strip in section]
        lanes = schedule(self.network.channels * np.concatenate(counts), self.bits)
        return np.split(lanes, np.cumsum([len(part) for part in counts])[:-1])

    def _counts(self, strip: Strip) -> Lanes:
        """How many pixels of each front are in a strip."""
        return Fronts.of(strip, self.image_shape[1], self.network.slope).counts


def _pixels(images: Levels, section: Section) -> Levels:
    """All that a section holds."""
    return np.concatenate([images[strip.image, strip.first : strip.stop].ravel() for strip in section])
