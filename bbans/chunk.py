"""A chunk: images to bytes and back, without waste at either end.

Three things keep the overhead of a chunk at tens of bytes:

- *Batches ramp up.* A batch of n images borrows the latents' bits of n images before it has pushed anything,
  so the first batch is one image, and later ones grow with what the stack holds (:func:`schedule`).
- *Lanes grow and fold* (:mod:`bbans.ans.lanes`).
- *The first bits are not invented, and not wasted.* The first image's latents are popped from a checksum of
  the chunk's own pixels and then from a fixed sequence. What was taken lies at the bottom of the stack, so it is
  stored and counted; the decoder ends with exactly these words, and so has checked every pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bbans.ans import HEAD_MINIMUM, Core, fold, grow
from bbans.ans.stack import Stack, Words
from bbans.bitsback import LatentVariableModel, pop_images, push_images
from bbans.errors import FormatError, ImpossibleSymbol, StackUnderflow
from bbans.intervals.distribution import Symbols

BATCH_MAXIMUM = 512
LANES_MAXIMUM = 4096
HEAD_BITS = 52
"""What a head holds on average, rounded up."""
CHECKSUM_WORDS = 2
FIRST_WORDS = 1024
"""More than the first image can need; those that were not touched are not stored."""
Levels = NDArray[np.uint8]
"""Symbols as an array holds them."""
WORD = np.dtype("<u4")
CHECKSUM_BYTES = CHECKSUM_WORDS * WORD.itemsize
EMPTY_HEAD: Words = np.array([0, HEAD_MINIMUM], np.uint32)
"""A flattened stack of one lane that holds nothing."""


@dataclass(frozen=True)
class Batch:
    """How many images are coded together, and over how many lanes."""

    images: int
    lanes: int


def schedule(images: int, image_bits: int, latent_bits: int, held: int = 0, lanes: int = 1) -> list[Batch]:
    """How a chunk is cut into batches. Part of the format: encoder and decoder both compute it.

    ``image_bits`` is about what the stack gains by an image, ``latent_bits`` what an image borrows meanwhile, ``held``
    about what it holds before, on so many ``lanes``. Heads may hold half of the bits that the stack is expected to
    hold, and a batch may borrow four fifths of the rest.

    >>> [batch.images for batch in schedule(100, image_bits=136, latent_bits=95)]
    [1, 1, 1, 2, 3, 5, 7, 15, 26, 39]
    """
    batches = []
    while images:
        while lanes < LANES_MAXIMUM and 2 * HEAD_BITS * (2 * lanes) <= held:
            lanes *= 2
        size = (held - HEAD_BITS * lanes) * 4 // 5 // latent_bits
        size = min(max(size, 1), BATCH_MAXIMUM, images)
        batches.append(Batch(size, lanes))
        held += size * image_bits
        images -= size
    return batches


@dataclass(frozen=True, eq=False)
class ChunkCoder:
    """Codes chunks with one model on one ANS core; it holds no state and may be shared by threads."""

    model: LatentVariableModel
    core: Core
    image_bits: int
    """As in :func:`schedule`..."""
    latent_bits: int
    """...and so is this."""

    def with_model(self, model: LatentVariableModel) -> ChunkCoder:
        """The same with another model of the same sizes."""
        return replace(self, model=model)

    def encode(self, x: Symbols | Levels) -> bytes:
        """The payload for one or more images, ``(images, pixels)``."""
        first_words = FIRST_WORDS
        while True:
            try:
                return self._encode(x, first_words)
            except StackUnderflow:  # the images are so cheap that the latents of a batch cost more than they gave
                first_words *= 4

    def _encode(self, x: Symbols | Levels, first_words: int) -> bytes:
        stack = start_stack(self.core, checksum_of(x), first_words)
        coded = 0
        for batch in schedule(len(x), self.image_bits, self.latent_bits):
            grow(stack, batch.lanes)
            push_images(stack, self.model, x[coded : coded + batch.images].astype(np.int64, copy=False))
            coded += batch.images
        return finish_stack(stack, first_words)

    def decode(self, payload: bytes, images: int) -> Symbols:
        """The images of a chunk, int64 ``(images, pixels)``: the inverse of :meth:`encode`.

        Raises :class:`bbans.errors.FormatError` if what comes out is not what went in.
        """
        stack = read_stack(self.core, payload)
        batches = schedule(images, self.image_bits, self.latent_bits)
        lanes_before = [1] + [batch.lanes for batch in batches[:-1]]
        decoded = []
        with refusing_nonsense():
            grow(stack, batches[-1].lanes)
            for batch, lanes in zip(reversed(batches), reversed(lanes_before), strict=True):
                decoded.append(pop_images(stack, self.model, batch.images))
                fold(stack, lanes)
        x = np.concatenate(decoded[::-1])
        check_stack(stack, checksum_of(x))
        return x


def checksum_of(x: Symbols | Levels) -> bytes:
    """Of the pixels of images."""
    pixels = np.ascontiguousarray(x, np.uint8)
    return hashlib.blake2b(pixels.data, digest_size=CHECKSUM_BYTES).digest()


def start_stack(core: Core, checksum: bytes, first_words: int) -> Stack:
    """The stack before the first image: one lane, and a tail of so many words."""
    return core.from_words(np.concatenate([EMPTY_HEAD, _supply(checksum, first_words)]), lanes=1)


def finish_stack(stack: Stack, first_words: int) -> bytes:
    """The payload that a stack from :func:`start_stack` has become: all but the words that were never touched."""
    fold(stack, 1)
    untouched = min(stack.low_water, first_words - CHECKSUM_WORDS)
    words = stack.to_words()
    return words[: len(words) - untouched].astype(WORD).tobytes()


def read_stack(core: Core, payload: bytes) -> Stack:
    """The stack that :func:`finish_stack` wrote; :class:`bbans.errors.FormatError` if it can't have."""
    if len(payload) % WORD.itemsize or len(payload) < len(EMPTY_HEAD) * WORD.itemsize:
        raise FormatError(f"a chunk's payload can't be {len(payload)} bytes long: the file is damaged")
    return core.from_words(np.frombuffer(payload, WORD).astype(np.uint32), lanes=1)


def check_stack(stack: Stack, checksum: bytes) -> None:
    """Raise :class:`bbans.errors.FormatError` unless what is left is what the first image was put on."""
    rest = stack.to_words()
    expected = np.concatenate([EMPTY_HEAD, _supply(checksum, max(len(rest) - len(EMPTY_HEAD), CHECKSUM_WORDS))])
    if not np.array_equal(rest, expected):
        raise FormatError("a chunk's pixels don't have the checksum they were written with: the file is damaged")


@contextmanager
def refusing_nonsense() -> Iterator[None]:
    """What no encoder can have written ends in a :class:`bbans.errors.FormatError`."""
    try:
        yield
    except (StackUnderflow, ImpossibleSymbol) as error:
        raise FormatError(f"a chunk can't be decoded, the file is damaged: {error}") from error


def _supply(checksum: bytes, count: int) -> Words:
    """What lies on the stack before the first image, topmost first: a checksum of the pixels, then a fixed sequence."""
    sequence = hashlib.shake_128(b"bbans").digest((count - CHECKSUM_WORDS) * WORD.itemsize)
    return np.frombuffer(checksum + sequence, WORD).astype(np.uint32)
