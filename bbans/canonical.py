"""The one order in which the rows of a set are written: ascending, compared byte by byte.

A row's bytes are those of its elements in C order, the highest byte of each first. For numbers that are not negative
this is the order of the numbers: of two rows the one comes first that is smaller in the first element in which they
differ.

>>> images = np.array([[2, 0], [0, 9], [2, 0], [0, 1]], np.uint8)
>>> images[canonical_order(row_bytes(images))].tolist()
[[0, 1], [0, 9], [2, 0], [2, 0]]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.lehmer import Integers

Bytes = NDArray[np.uint8]
BLOCK_BYTES = 1 << 22
"""Of rows that are looked at in their order at a time."""


def row_bytes(rows: NDArray[Any]) -> Bytes:
    """What rows are compared by, uint8 ``(rows, bytes)``; no copy if elements are single bytes in C order."""
    size = math.prod(rows.shape[1:])
    highest_first = rows.dtype.newbyteorder(">")
    flat = np.ascontiguousarray(rows.reshape(len(rows), size), highest_first)
    return flat.view(np.uint8).reshape(len(rows), size * rows.itemsize)


def as_keys(rows: Bytes) -> NDArray[np.void]:
    """The same rows as single elements that NumPy compares as bytes."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()


def canonical_order(rows: Bytes) -> Integers:
    """The numbers of the rows in ascending order; equal ones stay in the order in which they are."""
    if not rows.size:
        return np.arange(len(rows))
    return np.argsort(as_keys(rows), kind="stable")


def first_of_equals(rows: Bytes, order: Integers) -> Integers:
    """For each place in an ascending order, the place of the first row that is equal to the one there."""
    starts = np.ones(len(order), bool)
    for block in blocks_of(len(order), rows.shape[1]):
        ordered = rows[order[max(block.start - 1, 0) : block.stop]]
        starts[max(block.start, 1) : block.stop] = (ordered[1:] != ordered[:-1]).any(1)
    return np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))


def blocks_of(rows: int, row_bytes: int) -> list[slice]:
    """Rows in parts that are quickly copied."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class SortedBytes:
    """Rows of bytes in canonical order, to which more are added.

    >>> rows = SortedBytes(4, 2)
    >>> rows.room(4)[:] = [[2, 0], [0, 9], [2, 0], [0, 1]]
    >>> _ = rows.add(3)
    >>> [place.tolist() for place in rows.add(1)]
    [[0], [1]]
    >>> [block.tolist() for block in rows.blocks()]
    [[[0, 1], [0, 9], [2, 0], [2, 0]]]
    """

    def __init__(self, rows: int, row_bytes: int) -> None:
        self._rows = np.empty((rows, row_bytes), np.uint8)
        self._order: Integers = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._order)

    def room(self, count: int) -> Bytes:
        """Where the bytes of the next rows are to be put, ``(count, row bytes)``, before they are added."""
        return self._rows[len(self) : len(self) + count]

    def add(self, count: int) -> tuple[Integers, Integers]:
        """Sort in so many rows, whose bytes are there.

        Returns, for each of them, how many of all rows come before it, and how many are equal to it, itself counted.
        """
        new = self.room(count)
        arrival = canonical_order(new)
        first = first_of_equals(new, arrival)
        below, above = self._search(new, arrival)
        start, alike = np.empty(count, np.int64), np.empty(count, np.int64)
        start[arrival] = below + first
        alike[arrival] = above - below + np.searchsorted(first, first, side="right") - first
        self._order = np.insert(self._order, below, len(self) + arrival)
        return start, alike

    def blocks(self) -> Iterator[Bytes]:
        """All rows in order, some at a time."""
        return (self._rows[self._order[block]] for block in blocks_of(len(self), self._rows.shape[1]))

    def _search(self, new: Bytes, arrival: Integers) -> tuple[Integers, Integers]:
        """Where new rows go among those that are there: before, and after, those that are equal."""
        below = np.zeros(len(new), np.int64)
        if not len(self):
            return below, below
        there = as_keys(self._rows[: len(self)])
        above = below.copy()
        for block in blocks_of(len(new), new.shape[1]):
            keys = as_keys(new[arrival[block]])
            places = np.searchsorted(there, keys, sorter=self._order)
            below[block] = above[block] = places
            found = keys == there[self._order[np.minimum(places, len(self) - 1)]]
            above[block][found] = np.searchsorted(there, keys[found], side="right", sorter=self._order)
        return below, above


@dataclass(frozen=True, eq=False)
class SortedRows:
    """An array's rows in canonical order, which are fetched when they are asked for."""

    rows: NDArray[Any]
    order: Integers
    first: Integers
    """From :func:`first_of_equals`."""

    @staticmethod
    def of(rows: NDArray[Any], keys: Bytes) -> SortedRows:
        """Sorted by ``keys``, from :func:`row_bytes`."""
        order = canonical_order(keys)
        return SortedRows(rows, order, first_of_equals(keys, order))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, places: slice | Integers) -> NDArray[Any]:
        return self.rows[self.order[places]]

    def part(self, places: slice) -> SortedRows:
        """Rows that follow one another in the order."""
        return SortedRows(self.rows, self.order[places], np.maximum(self.first[places] - places.start, 0))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.rows.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.rows.dtype


def order_bits(first: Integers) -> float:
    """log2 of the number of orders that rows can have, from :func:`first_of_equals`.

    >>> round(2 ** order_bits(np.array([0, 1, 1, 1, 4])))  # 5! / 3!
    20
    """
    counts = np.unique(first, return_counts=True)[1]
    repeated, classes = np.unique(counts, return_counts=True)
    nats = math.lgamma(len(first) + 1)
    for count, number in zip(repeated.tolist(), classes.tolist(), strict=True):
        nats -= number * math.lgamma(count + 1)
    return nats / math.log(2)
