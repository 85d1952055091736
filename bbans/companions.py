"""Arrays that belong to the rows of another: labels of images, which go where the images go.

They lie beside it in a collection (:mod:`bbans.collection`), stored through zstandard. If the images keep no order, all
are sorted as the images are: by the images first, and equal images by the rows of the companions. So the same labelled
images make the same bytes, in whatever order they come, and no companion says anything of an order.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.canonical import as_keys, canonical_order, first_of_equals, row_bytes
from bbans.codec import Codec, Written
from bbans.collection import MEMBER_NAME, CollectionWriter, member_file
from bbans.errors import ArrayError
from bbans.lehmer import Integers
from bbans.parallel import Progress
from bbans.reader import CompressedArray, check_equal
from bbans.symbols import check_numeric

Companions = Mapping[str, NDArray[Any]]
"""By their names."""


def check_companions(name: str, array: NDArray[Any], companions: Companions) -> None:
    """Raise :class:`bbans.errors.ArrayError` unless each of ``companions`` has a name and a row for each row."""
    for other, companion in companions.items():
        check_numeric(companion)
        if not array.ndim or companion.shape[:1] != array.shape[:1]:
            raise ArrayError(
                f"{other} has the shape {companion.shape}, which does not go with {array.shape} of {name}: it needs a "
                "row for each"
            )
        if other == name or not MEMBER_NAME.fullmatch(other):
            raise ArrayError(f"an array that goes with {name} can't have the name {other!r}: give it one of its own")


def sort_companions(array: NDArray[Any], companions: Companions) -> dict[str, NDArray[Any]]:
    """``companions`` in the canonical order of the rows of ``array``.

    >>> images = np.array([[7], [0], [7]], np.uint8)
    >>> sort_companions(images, {"labels": np.array([2, 1, 0])})["labels"].tolist()
    [1, 0, 2]
    """
    keys = row_bytes(array)
    order = canonical_order(keys)
    first = first_of_equals(keys, order)
    several = np.flatnonzero(np.bincount(first, minlength=len(first))[first] > 1)
    order[several] = order[several][_order_of_equals(first[several], order[several], companions)]
    return {name: companion[order] for name, companion in companions.items()}


def _order_of_equals(first: Integers, rows: Integers, companions: Companions) -> Integers:
    """How to sort ``rows``: by where the first that is equal is, then by what goes with them."""
    parts = [row_bytes(first), *(row_bytes(companion[rows]) for companion in companions.values())]
    return np.argsort(as_keys(np.concatenate(parts, axis=1)), kind="stable")


def write_with_companions(
    file: BinaryIO,
    name: str,
    array: NDArray[Any],
    companions: Companions,
    codec: Codec,
    chunk_size: int | None = None,
    ordered: bool = True,
    verify: bool = False,
    progress: Progress | None = None,
) -> dict[str, Written]:
    """Compress ``array`` and what goes with its rows to a collection, a file that can be read and sought.

    The members have the names given; what became of them is returned. The other arguments are those of
    :meth:`bbans.Codec.write`; with ``verify`` all is decoded again and compared. Raises
    :class:`bbans.errors.ArrayError` for arrays that don't go together.
    """
    check_companions(name, array, companions)
    sorted_alike = companions if ordered else sort_companions(array, companions)
    store = Codec.of(None, threads=codec.threads)
    writer = CollectionWriter(file)

    def check(content: NDArray[Any], coder: Codec) -> None:
        end = file.tell()
        check_equal(CompressedArray(member_file(file, threading.Lock(), writer.latest), coder), content)
        file.seek(end)

    with writer.member(name) as part:
        written = {name: codec.write(part, array, chunk_size, progress, ordered)}
    if verify:
        check(array, codec)
    for other, companion in sorted_alike.items():
        with writer.member(other) as part:
            written[other] = replace(store.write(part, companion), note=None)
        if verify:
            check(companion, store)
    writer.finish()
    return written
