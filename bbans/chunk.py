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
from dataclasses import dataclass, replace

import numpy as np

from bbans.ans import HEAD_MINIMUM, Core, fold, grow
from bbans.ans.stack import Words
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
WORD = np.dtype("<u4")
EMPTY_HEAD: Words = np.array([0, HEAD_MINIMUM], np.uint32)
"""A flattened stack of one lane that holds nothing."""


@dataclass(frozen=True)
class Batch:
    """How many images are coded together, and over how many lanes."""

    images: int
    lanes: int


def schedule(images: int, image_bits: int, latent_bits: int) -> list[Batch]:
    """How a chunk is cut into batches. Part of the format: encoder and decoder both compute it.

    ``image_bits`` is about what the stack gains by an image, ``latent_bits`` what an image borrows meanwhile.
    Heads may hold half of the bits that the stack is expected to hold, and a batch may borrow four fifths of
    the rest.

    >>> [batch.images for batch in schedule(100, image_bits=136, latent_bits=95)]
    [1, 1, 1, 2, 3, 5, 7, 15, 26, 39]
    """
    batches = []
    coded, lanes = 0, 1
    while coded < images:
        held = coded * image_bits
        while lanes < LANES_MAXIMUM and 2 * HEAD_BITS * (2 * lanes) <= held:
            lanes *= 2
        size = (held - HEAD_BITS * lanes) * 4 // 5 // latent_bits
        size = min(max(size, 1), BATCH_MAXIMUM, images - coded)
        batches.append(Batch(size, lanes))
        coded += size
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

    def encode(self, x: Symbols) -> bytes:
        """The payload for one or more images, int64 ``(images, pixels)``."""
        first_words = FIRST_WORDS
        while True:
            try:
                return self._encode(x, first_words)
            except StackUnderflow:  # the images are so cheap that the latents of a batch cost more than they gave
                first_words *= 4

    def _encode(self, x: Symbols, first_words: int) -> bytes:
        supply = _supply(x, first_words)
        stack = self.core.from_words(np.concatenate([EMPTY_HEAD, supply]), lanes=1)
        coded = 0
        for batch in schedule(len(x), self.image_bits, self.latent_bits):
            grow(stack, batch.lanes)
            push_images(stack, self.model, x[coded : coded + batch.images])
            coded += batch.images
        fold(stack, 1)
        untouched = min(stack.low_water, first_words - CHECKSUM_WORDS)
        words = stack.to_words()
        return words[: len(words) - untouched].astype(WORD).tobytes()

    def decode(self, payload: bytes, images: int) -> Symbols:
        """The images of a chunk, int64 ``(images, pixels)``: the inverse of :meth:`encode`.

        Raises :class:`bbans.errors.FormatError` if what comes out is not what went in.
        """
        if len(payload) % WORD.itemsize or len(payload) < len(EMPTY_HEAD) * WORD.itemsize:
            raise FormatError(f"a chunk's payload can't be {len(payload)} bytes long: the file is damaged")
        stack = self.core.from_words(np.frombuffer(payload, WORD).astype(np.uint32), lanes=1)
        batches = schedule(images, self.image_bits, self.latent_bits)
        lanes_before = [1] + [batch.lanes for batch in batches[:-1]]
        decoded = []
        try:
            grow(stack, batches[-1].lanes)
            for batch, lanes in zip(reversed(batches), reversed(lanes_before), strict=True):
                decoded.append(pop_images(stack, self.model, batch.images))
                fold(stack, lanes)
        except (StackUnderflow, ImpossibleSymbol) as error:
            raise FormatError(f"a chunk can't be decoded, the file is damaged: {error}") from error
        x = np.concatenate(decoded[::-1])
        rest = stack.to_words()
        expected = np.concatenate([EMPTY_HEAD, _supply(x, max(len(rest) - len(EMPTY_HEAD), CHECKSUM_WORDS))])
        if not np.array_equal(rest, expected):
            raise FormatError("a chunk's pixels don't have the checksum they were written with: the file is damaged")
        return x


def _supply(x: Symbols, count: int) -> Words:
    """What lies on the stack before the first image, topmost first: a checksum of the pixels, then a fixed sequence."""
    checksum = hashlib.blake2b(x.astype(np.uint8).tobytes(), digest_size=CHECKSUM_WORDS * WORD.itemsize)
    sequence = hashlib.shake_128(b"bbans").digest((count - CHECKSUM_WORDS) * WORD.itemsize)
    return np.frombuffer(checksum.digest() + sequence, WORD).astype(np.uint32)
