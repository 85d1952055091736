"""One layer of a network over maps, backward, by the rules of :mod:`bbans.portable.descent`.

What is special about maps is this.

- An image's unit is that of its whole map: ``largest`` is taken over the channels and positions of an image.
- A layer's gradients are quantized as finely as float32 allows with the weights as they are, if that is fine enough,
  and else the weights are rounded (:func:`coarse`).
- A layer that looks at places beside a position is passed as a product over the patches of the places that look at
  the position (:func:`backward_places`). Where a map was doubled, several positions look from the same side: their
  quantized gradients are added up before the product.
- The layer that takes the latents is passed as any first layer, in float64.

Maps here are ``(channels, positions, images)``: what is known of each image is by itself, and all positions are passed
at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.descent import FIRST_LIMIT, TINY
from bbans.portable.engine import Engine, Sums
from bbans.portable.network import FLOAT32_EXACT, FLOAT64_EXACT, Linear, largest_sum

Map = NDArray[np.float32]
AnyMap = NDArray[np.floating]
"""A map whose values may be over 2**24."""
Positions = NDArray[np.intp]

BLOCK_VALUES = 1 << 19
"""About how many values are gathered at once: they stay in cache until they are multiplied."""
LIMIT_MINIMUM = 511
"""Of a quantized gradient: one for a whole map needs more bits than one for a vector."""


def gather(source: Map, index: Positions) -> Map:
    """Patches ``(channels * offsets, positions, images)`` of a map, for an index ``(offsets, positions)``."""
    taken = np.take(source, index, axis=1)
    return taken.reshape(-1, index.shape[1], source.shape[2])


def with_outside(x: Map) -> Map:
    """The map with one position more, of zeros."""
    return np.concatenate([x, np.zeros_like(x[:, :1])], axis=1)


def multiply(sums: Sums, x: AnyMap) -> AnyMap:
    """A product over the channels of a map."""
    _, positions, images = x.shape
    y = sums(x.reshape(len(x), positions * images))
    return y.reshape(len(y), positions, images)


def convolve(sums: Sums, x: Map, *indices: Positions) -> AnyMap:
    """A product over patches of a map, for an index ``(offsets, positions)``; patches for several are added up."""
    source = with_outside(x)
    step = max(1, BLOCK_VALUES // (source.shape[0] * indices[0].shape[0] * source.shape[2]))
    results = []
    for first in range(0, indices[0].shape[1], step):
        patches = gather(source, indices[0][:, first : first + step])
        for index in indices[1:]:
            patches += gather(source, index[:, first : first + step])
        results.append(multiply(sums, patches))
    return np.concatenate(results, axis=1)


def backward_places(index: Positions, before: int) -> NDArray[np.intp]:
    """For each position that :func:`bbans.portable.convolution.places` looks at, and each offset, those that look.

    Takes an index ``(offsets, positions)`` into a map of ``before`` positions; the result is ``(looks, offsets,
    before)``, filled up with the position after the last.

    >>> from bbans.portable.convolution import places
    >>> backward_places(places((1, 3), (1, 3), ((0, -1), (0, 0))), 3).tolist()
    [[[1, 2, 3], [0, 1, 2]]]
    >>> backward_places(places((1, 2), (1, 3), ((0, 0),)), 2).tolist()
    [[[0, 2]], [[1, 3]]]
    """
    after = index.shape[1]
    found = []
    for row in index:
        order = np.argsort(row, kind="stable")
        seen = row[order]
        look = np.arange(after) - np.searchsorted(seen, seen)
        inside = seen < before
        looks = np.full((int(look[inside].max(initial=0)) + 1, before), after, np.intp)
        looks[look[inside], seen[inside]] = order[inside]
        found.append(looks)
    result = np.full((max(map(len, found)), len(found), before), after, np.intp)
    for offset, looks in enumerate(found):
        result[: len(looks), offset] = looks
    return result


def coarse(weight: NDArray[np.int16], looks: int) -> tuple[NDArray[np.int16], float, int]:
    """Weights ``(results, inputs)``, the unit that they are in, and the limit of quantized gradients, whose sums, of
    ``looks`` gradients each, stay exact in float32.

    The limit is the largest of 511, 1023, and so on up to :data:`FIRST_LIMIT` for which the weights need not be
    rounded. If there is none it is 511, and weights are rounded to multiples of the finest power of two that will do.
    """
    step, rounded = 1.0, weight.astype(np.float64)
    while LIMIT_MINIMUM * looks * int(np.abs(rounded).sum(axis=1).max()) > FLOAT32_EXACT:
        step *= 2.0
        rounded = np.rint(weight / step)
    sums, limit = looks * int(np.abs(rounded).sum(axis=1).max()), LIMIT_MINIMUM
    while step == 1.0 and limit < FIRST_LIMIT and (2 * limit + 1) * sums <= FLOAT32_EXACT:
        limit = 2 * limit + 1
    return rounded.astype(np.int16), step, limit


@dataclass(frozen=True, eq=False)
class BackwardLayer:
    """A layer, on its way back."""

    sums: Sums
    unit: np.floating
    """What a unit of the product is worth."""
    limit: int
    """Of what is multiplied."""
    index: NDArray[np.intp] | None
    """As :func:`backward_places` gives it, for a layer that looks beside."""

    @staticmethod
    def of(
        engine: Engine, layer: Linear, weight: NDArray[np.int16], index: Positions | None = None, before: int = 0
    ) -> BackwardLayer:
        """For ``weight``, all or some of the weights of ``layer``: ``(outputs, inputs * offsets)``."""
        places, looks = (None, 1) if index is None else _looks(index, before)
        rounded, step, limit = coarse(_transposed(weight, 1 if index is None else len(index)), looks)
        sums = engine.load_sums(rounded, limit * looks)
        return BackwardLayer(sums, np.float32(step * 2.0**-layer.shift), limit, places)

    @staticmethod
    def of_first(engine: Engine, layer: Linear, index: Positions, before: int) -> BackwardLayer:
        """For the layer that takes the latents. Raises :class:`bbans.errors.ModelError` if it could be inexact."""
        places, looks = _looks(index, before)
        weight = _transposed(layer.weight, len(index))
        if largest_sum(weight, FIRST_LIMIT * looks) > FLOAT64_EXACT:
            raise ModelError("layer 0: sums of its gradients can be over 2**53, and would not be exact")
        return BackwardLayer(
            engine.load_sums(weight, FIRST_LIMIT * looks), np.float64(2.0**-layer.shift), FIRST_LIMIT, places
        )

    def __call__(self, gradient: AnyMap) -> AnyMap:
        """From the gradient with respect to the results to that with respect to the inputs."""
        quantized, unit = quantize(gradient, self.limit)
        y = multiply(self.sums, quantized) if self.index is None else convolve(self.sums, quantized, *self.index)
        kind = type(self.unit)
        y = y.astype(kind, copy=False)
        y *= unit.astype(kind) * self.unit
        return y


def quantize(v: Map, limit: int) -> tuple[Map, NDArray[np.float32]]:
    """Integers up to ``limit`` for each image, and the unit that they are in, ``(images,)``."""
    largest = np.maximum(v.max(axis=(0, 1)), -v.min(axis=(0, 1)))
    largest = np.maximum(largest, np.float32(TINY))
    quantized = v * (np.float32(limit) / largest)
    return np.rint(quantized, out=quantized), largest / np.float32(limit)


def _looks(index: Positions, before: int) -> tuple[NDArray[np.intp], int]:
    places = backward_places(index, before)
    return places, len(places)


def _transposed(weight: NDArray[np.int16], offsets: int) -> NDArray[np.int16]:
    """``(outputs, inputs * offsets)`` to ``(inputs, outputs * offsets)``."""
    parts = weight.reshape(len(weight), -1, offsets)
    return np.ascontiguousarray(parts.swapaxes(0, 1)).reshape(parts.shape[1], -1)
