"""Where the bits of a file went: what each pixel cost, and the latents of each image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.bitsback import LatentVariableModel, Likelihood
from bbans.codec import Codec
from bbans.container import Method
from bbans.errors import BbansError, ModelError
from bbans.intervals.distribution import Distribution, Symbols
from bbans.likelihoods import information_each
from bbans.local.coder import LocalCoder
from bbans.reader import CompressedArray

Floats = NDArray[np.float64]

BYTES_OF_BITS = 8
"""That what a pixel costs takes."""


@dataclass(frozen=True, eq=False)
class BitCost:
    """What rows of an array cost, in bits; NaN where they are stored through zstandard, which has no such numbers."""

    pixels: Floats
    """-log2 p(x given z) of each element, ``(rows, *row shape)``, given the latents that they were coded with."""
    latents: Floats
    """log2 q(z given x) - log2 p(z) of the images of each row, ``(rows,)``: what their latents cost beyond the bits
    that choosing them gave back."""


def bits_of_pixels(compressed: CompressedArray, start: int = 0, stop: int | None = None) -> BitCost:
    """What rows ``start`` to ``stop`` of an open file cost.

    Chunks are decoded as a whole, since that is how the latents become known. The sum over a chunk differs from the
    length of its payload by its overhead, some tens of bytes. Raises what reading the rows would raise.

    >>> import bbans
    >>> with bbans.open(bbans.compress(bbans.sample_images(bbans.load_model("gg-mnist-binary"), 3))) as compressed:
    ...     cost = bits_of_pixels(compressed)
    >>> cost.pixels.shape, cost.latents.shape
    ((3, 28, 28), (3,))
    """
    if not compressed.header.ordered:
        raise BbansError(
            "the file is a set, whose images were coded in an order of their own: what each cost is not kept"
        )
    rows = compressed.directory.rows
    stop = rows if stop is None else min(stop, rows)
    row_shape = compressed.header.row_shape
    compressed.check_memory(stop - start, BYTES_OF_BITS)
    pixels, latents = np.full((max(0, stop - start), *row_shape), np.nan), np.full(max(0, stop - start), np.nan)
    first = 0
    for number, chunk in enumerate(compressed.directory.chunks):
        last = first + chunk.rows
        if first < stop and last > start and chunk.method is Method.BITS_BACK:
            compressed.check_memory(chunk.rows, compressed.decoder.working_bytes + 2 * BYTES_OF_BITS)
            found, borrowed = _of_chunk(compressed, number)
            there, here = slice(max(start - first, 0), stop - first), slice(max(first - start, 0), last - start)
            pixels[here] = found.reshape(-1, *row_shape)[there]
            latents[here] = borrowed[there]
        first = last
    return BitCost(pixels, latents)


def _of_chunk(compressed: CompressedArray, number: int) -> tuple[Floats, Floats]:
    """The bits of all pixels of a chunk, and of the latents of each of its rows."""
    codec, chunk = compressed.decoder, compressed.directory.chunks[number]
    if not isinstance(codec, Codec) or codec.model is None:
        raise ModelError("what pixels cost is known to a codec with a model only")
    codec = codec.fitted_to((chunk.rows, *compressed.header.row_shape))
    assert codec.model is not None
    images = chunk.rows * math.prod(compressed.header.row_shape) // codec.model.pixels
    coder = codec.chunk_coder(codec.threads)
    if isinstance(coder, LocalCoder):
        x = coder.decode(compressed.payload(number), images)
        return coder.bits_each(x), np.zeros(chunk.rows)
    watched = _Watched(coder.model)
    coder.with_model(watched).decode(compressed.payload(number), images)
    # The last batch is decoded first.
    pixels, latents = np.concatenate(watched.pixels[::-1]), np.concatenate(watched.latents[::-1])
    if images % chunk.rows:  # all rows together are one image
        return pixels, np.full(chunk.rows, latents.sum() / chunk.rows)
    return pixels, latents.reshape(chunk.rows, -1).sum(axis=1)


class _Watched:
    """A model that keeps what the images cost that are decoded with it."""

    def __init__(self, model: LatentVariableModel) -> None:
        self._model = model
        self._batch: tuple[Symbols, Likelihood] | None = None
        self.pixels: list[Floats] = []
        self.latents: list[Floats] = []

    def prior(self, images: int) -> Distribution:
        return self._model.prior(images)

    def likelihood(self, z: Symbols) -> Likelihood:
        likelihood = self._model.likelihood(z)
        self._batch = z, likelihood
        return likelihood

    def posterior(self, x: Symbols) -> Distribution:
        """Called when both are known."""
        assert self._batch is not None
        z, likelihood = self._batch
        posterior = self._model.posterior(x)
        given_back = information_each(posterior, z.ravel()).reshape(z.shape).sum(axis=1)
        cost = information_each(self._model.prior(len(x)), z.ravel()).reshape(z.shape).sum(axis=1)
        self.pixels.append(likelihood.bits_each(x))
        self.latents.append(cost - given_back)
        return posterior
