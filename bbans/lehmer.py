"""Lehmer codes: drawing from a list without replacement, all draws at once.

A draw is a place among what is left of the list; a place is counted in the whole list. Both directions take
n log(n)^2 for n draws, in array operations.

>>> list_of = np.array(list("abcdef"))
>>> places = places_of_draws(np.array([2, 0, 3, 0]))
>>> "".join(list_of[places])
'cafb'
>>> draws_of_places(places).tolist()
[2, 0, 3, 0]

Source: D. H. Lehmer, "Teaching combinatorial tricks to a computer" (Proc. Symp. Appl. Math. 10, 1960).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

BLOCK = 32
"""Draws that are looked at pair by pair."""


def places_of_draws(draws: Integers) -> Integers:
    """Where each of the draws, int64 ``(n,)``, lies in the list that the first one was made from."""
    padded = _padded(draws)
    places = padded.copy()
    for number in reversed(range(BLOCK - 1)):
        later = places[:, number + 1 :]
        later += later >= padded[:, number, None]
    for first, second in _halves(places):
        # What the first half took lies before what it left by then.
        second += _count_below(np.sort(first) - np.arange(first.shape[1]), second, "right")
    flat: Integers = places.ravel()
    return flat[: len(draws)]


def draws_of_places(places: Integers) -> Integers:
    """The inverse of :func:`places_of_draws`."""
    return places - smaller_before(places)


def smaller_before(values: Integers) -> Integers:
    """For each of ``values``, int64 ``(n,)``, how many of those before it are smaller.

    >>> smaller_before(np.array([3, 1, 2, 2, 9])).tolist()
    [0, 0, 1, 1, 4]
    """
    padded = _padded(values)
    smaller: Integers = np.tril(padded[:, :, None] > padded[:, None, :], -1).sum(2, dtype=np.int64)
    for (first, second), (_, counts) in zip(_halves(padded), _halves(smaller), strict=True):
        counts += _count_below(np.sort(first), second, "left")
    return smaller.ravel()[: len(values)]


def _padded(values: Integers) -> Integers:
    """In blocks, ``(blocks, BLOCK)``, whose number is a power of two: filled up with what comes after all values."""
    blocks = 1 << (-(-len(values) // BLOCK) - 1).bit_length() if len(values) else 1
    out = np.full(blocks * BLOCK, values.max(initial=0) + len(values), np.int64)
    out[: len(values)] = values
    return out.reshape(blocks, BLOCK)


def _halves(blocks: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Neighbouring blocks, then twice as long ones, and so on: the first and the second of each two, as views."""
    values, width = blocks.reshape(-1), blocks.shape[1]
    while width < len(values):
        pairs = values.reshape(-1, 2, width)
        yield pairs[:, 0], pairs[:, 1]
        width *= 2


def _count_below(ascending: Integers, values: Integers, side: Literal["left", "right"]) -> Integers:
    """``np.searchsorted`` of each row of ``values`` in the same row of ``ascending``."""
    rows, width = ascending.shape
    number = np.arange(rows)[:, None]
    apart = number * (max(ascending.max(), values.max()) + 1)
    found = np.searchsorted((ascending + apart).ravel(), (values + apart).ravel(), side)
    counts: Integers = found.reshape(values.shape) - number * width
    return counts


def equal_before(values: Integers) -> Integers:
    """For each of ``values``, int64 ``(n,)``, how many of those before it are equal to it.

    >>> equal_before(np.array([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    in_order = values[order]
    before = np.empty(len(values), np.int64)
    before[order] = np.arange(len(values)) - np.searchsorted(in_order, in_order)
    return before
