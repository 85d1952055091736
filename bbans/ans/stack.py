"""The contract of an ANS core, stated once.

A stack holds ``lanes`` *heads*, each a 64-bit integer in ``[2**31, 2**63)``, and one *tail* of 32-bit words
that all heads share. Pushing an interval ``(start, frequency)`` on ``2**precision`` makes a head grow by
``precision - log2(frequency)`` bits; a head that would leave its range first moves its low word to the tail.
Popping is the exact inverse, in both orders: ``pop`` after ``push`` and ``push`` after ``pop`` each restore
every bit. That second property is what bits-back coding rests on.

Source: J. Duda, "Asymmetric numeral systems" (arXiv 1311.2540); F. Giesen, "Interleaved entropy coders"
(arXiv 1402.3392). The layout of :meth:`Stack.to_words` is that of craystack's ``flatten``.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Integers = NDArray[np.uint64]

HEAD_MINIMUM = 1 << 31
"""Heads lie in ``[HEAD_MINIMUM, HEAD_MINIMUM << 32)``."""

PRECISION_MAXIMUM = 31


class Stack(Protocol):
    """A last-in first-out store of integer intervals, over lanes.

    All cores give the same bytes for the same operations; :func:`bbans.ans.conformance.check_core` tests that.

    An operation on ``n`` symbols uses the first ``n`` lanes, one symbol a lane, so ``n`` is at most
    :attr:`lanes`. Words pass between heads and tail in the order of the lanes. No argument is modified.
    """

    @property
    def lanes(self) -> int:
        """The number of heads."""

    @property
    def tail_words(self) -> int:
        """The number of words in the tail."""

    @property
    def low_water(self) -> int:
        """The fewest words that the tail has held since the stack was made: those below were never touched."""

    def push(self, start: Integers, frequency: Integers, precision: int) -> None:
        """Push one interval a lane.

        ``start`` and ``frequency`` are uint64 of shape ``(n,)``, with ``frequency >= 1`` and
        ``start + frequency <= 2**precision``; ``0 <= precision <= 31``. A core need not check this.
        """

    def peek(self, count: int, precision: int) -> Integers:
        """The value in ``[0, 2**precision)`` that each of the first ``count`` lanes shows, uint64 ``(count,)``.

        The symbol to pop is the one whose interval holds it. The stack doesn't change.
        """

    def pop(self, start: Integers, frequency: Integers, precision: int) -> None:
        """Take off the intervals that hold the values seen by :meth:`peek`: the inverse of :meth:`push`.

        Raises :class:`bbans.errors.StackUnderflow` if the tail runs out of words.
        """

    def add_lanes(self, heads: Integers) -> None:
        """Append lanes with the given heads, uint64 ``(n,)``, each in ``[2**31, 2**63)``."""

    def remove_lanes(self, count: int) -> Integers:
        """Drop the last ``count`` lanes, and return their heads: the inverse of :meth:`add_lanes`."""

    def to_words(self) -> Words:
        """The whole stack: high words of all heads, low words of all heads, tail with the newest word first."""


class Core(Protocol):
    """What makes stacks: the object that an entry point of group ``bbans.ans`` names."""

    @property
    def name(self) -> str:
        """The name that ``--ans`` takes."""

    def from_words(self, words: Words, lanes: int) -> Stack:
        """The stack whose :meth:`Stack.to_words` is ``words``."""
