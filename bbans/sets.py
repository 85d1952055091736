"""A set of rows, coded without its order: what the order costs is given back.

Before a row is coded, which of those that are left it is is *popped* from the stack, uniformly: n rows give back
log2(n!) bits, less log2(m!) for each that is there m times. The decoder gets the rows in the order in which they were
drawn, last first, puts each into its place among those it has, and pushes back where that was.

A set is coded in several chunks side by side, which all draw from it. They go in *rounds*: in each of them each chunk
draws as many rows as half of what its stack holds pays for, one chunk after the other, and then all code what they
drew, each for itself. A round draws several times what all before it did, so there are few of them, and most rows are
of the last two.

Source: D. Severo, J. Townsend, A. Khisti, A. Makhzani, K. Ullrich, "Compressing Multisets with Large Alphabets using
Bits-Back Coding" (IEEE JSAIT 2023), which draws one row at a time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bbans.ans import Core, fold, grow
from bbans.ans.stack import Stack
from bbans.bitsback import LatentVariableModel, pop_images, push_images
from bbans.canonical import Bytes, SortedBytes, blocks_of
from bbans.chunk import (
    CHECKSUM_BYTES,
    FIRST_WORDS,
    HEAD_BITS,
    Batch,
    check_stack,
    finish_stack,
    read_stack,
    refusing_nonsense,
    schedule,
    start_stack,
)
from bbans.errors import FormatError, StackUnderflow
from bbans.intervals import UniformBelow, pop, push
from bbans.lehmer import Integers, equal_before, places_of_draws, smaller_before
from bbans.parallel import Progress, map_in_order

ROWS_MAXIMUM = (1 << 31) - 1
"""Of a set: places among more could not be drawn at once."""
SHARES = (8, 6, 4, 2, 1)
"""Eighths of what images are expected to give that a plan counts on, in the order in which they are tried."""
SPARE_WORDS = 32
"""Of the first words that may go besides what two images borrow, before a plan is taken to count on too much."""
Fetch = Callable[[slice | Integers], Bytes]
"""From places in the canonical order of a set to the pixels of the rows there, uint8 ``(rows, pixels)``."""


@dataclass(frozen=True)
class Draw:
    """What a chunk does in a round."""

    rows: int
    lanes: int
    """Of its stack, when it draws."""
    batches: tuple[Batch, ...]
    """How it codes the images that the rows are made of."""


Round = list[tuple[int, Draw]]
"""The numbers of the chunks that draw, in order, and what they draw."""


def plan(rows: int, row_images: int, image_bits: int, latent_bits: int, set_rows: int) -> list[Draw]:
    """The draws of a chunk, one for each round. Part of the format, as :func:`bbans.chunk.schedule` is.

    Of what the stack is expected to hold besides its heads, a draw may take half. A place among ``set_rows`` costs as
    many bits as their number has, but is not expected to cost more than three quarters of a row. The last draw, which
    does not depend on other chunks, is to be large: where two are left, the first is the smaller.

    >>> [draw.rows for draw in plan(5000, 1, image_bits=112, latent_bits=88, set_rows=10_000)]
    [1, 1, 5, 17, 54, 213, 780, 1132, 2797]
    """
    place_bits = min(set_rows.bit_length(), max(1, row_images * image_bits * 3 // 4))
    draws: list[Draw] = []
    held, lanes = 0, 1
    while rows:
        paid = min(max(1, (held - HEAD_BITS * lanes) // 2 // place_bits), rows)
        drawn = rows - paid if paid < rows < 2 * paid else paid
        held -= drawn * place_bits
        batches = schedule(drawn * row_images, image_bits, latent_bits, held, lanes)
        draws.append(Draw(drawn, lanes, tuple(batches)))
        held += drawn * row_images * image_bits
        lanes = batches[-1].lanes
        rows -= drawn
    return draws


@dataclass(frozen=True)
class Attempt:
    """How a set is to be encoded."""

    share: int
    """One of :data:`SHARES`."""
    first_words: int
    limit: int
    """How many of the first words of a chunk may be touched."""


@dataclass(frozen=True, eq=False)
class SetCoder:
    """Codes sets with one model on one ANS core; it holds no state and may be shared by threads."""

    model: LatentVariableModel
    core: Core
    image_bits: int
    """As in :func:`bbans.chunk.schedule`..."""
    latent_bits: int
    """...and so is this."""
    row_pixels: int
    row_images: int
    """How many images these pixels are."""
    threads: int
    """How many chunks are coded at once."""

    def encode(
        self, fetch: Fetch, first: Integers, sizes: Sequence[int], progress: Progress | None = None
    ) -> list[bytes]:
        """The payloads of chunks of ``sizes`` rows, which are those of the set together.

        ``first`` is, for each place in the canonical order, the place of the first row that is equal to the one there.
        """
        checksums = _checksums(map(fetch, blocks_of(len(first), self.row_pixels)), len(sizes))
        advance = _Advance(progress)
        for attempt in self._attempts():
            stacks = [start_stack(self.core, checksum, attempt.first_words) for checksum in checksums]
            left = first
            advance.restart()
            try:
                for moves in self._rounds(sizes, attempt.share):
                    left = self._push_round(stacks, moves, fetch, left, advance)
                    if any(attempt.first_words - stack.low_water > attempt.limit for stack in stacks):
                        raise StackUnderflow("the images give less than was counted on")
            except StackUnderflow:
                continue
            break
        return [bytes([attempt.share]) + finish_stack(stack, attempt.first_words) for stack in stacks]

    def _attempts(self) -> Iterator[Attempt]:
        """Counting on less and less, and then on first words without end."""
        limit = 2 * self.latent_bits // 32 + SPARE_WORDS
        first_words = max(FIRST_WORDS, limit)
        for share in SHARES[:-1]:
            yield Attempt(share, first_words, limit)
        while True:
            yield Attempt(SHARES[-1], first_words, first_words)
            first_words *= 4

    def _push_round(
        self, stacks: list[Stack], moves: Round, fetch: Fetch, left: Integers, progress: Progress | None
    ) -> Integers:
        """Draw from the rows that are ``left``, and code what was drawn; returns what is left then."""
        parts = _parts(moves)
        totals = _totals(len(left), parts)
        popped = [pop(stacks[chunk], totals[part]) for (chunk, _), part in zip(moves, parts, strict=True)]
        draws = np.concatenate(popped)
        taken = places_of_draws(draws)
        drawn = left[taken]
        start = np.searchsorted(left, drawn)
        below, alike = _before_each_draw(start, np.searchsorted(left, drawn, side="right") - start)
        # Which of several equal rows it was says nothing, so it goes back.
        for (chunk, _), part in zip(moves, parts, strict=True):
            several = alike[part] > 1
            push(stacks[chunk], UniformBelow(alike[part][several]), (draws - below)[part][several])

        def code(move: tuple[int, Draw], part: slice) -> None:
            self._push(stacks[move[0]], move[1], fetch(drawn[part]))

        _at_once(code, moves, parts, self.threads, progress)
        return np.delete(left, taken)

    def decode(self, payloads: Sequence[bytes], sizes: Sequence[int], progress: Progress | None = None) -> SortedBytes:
        """The rows of a set: the inverse of :meth:`encode`.

        Raises :class:`bbans.errors.FormatError` if what comes out is not what went in.
        """
        stacks = [read_stack(self.core, payload[1:]) for payload in payloads]
        found = SortedBytes(sum(sizes), self.row_pixels)
        rounds = self._rounds(sizes, _share(payloads))
        with refusing_nonsense():
            for stack, draw in zip(stacks, _last_draws(rounds, len(sizes)), strict=True):
                grow(stack, draw.batches[-1].lanes)
            for moves in reversed(rounds):
                self._pop_round(stacks, moves, found, progress)
        for stack, checksum in zip(stacks, _checksums(found.blocks(), len(sizes)), strict=True):
            check_stack(stack, checksum)
        return found

    def _pop_round(self, stacks: list[Stack], moves: Round, found: SortedBytes, progress: Progress | None) -> None:
        """The inverse of :meth:`_push_round`."""
        parts = _parts(moves)
        room = found.room(parts[-1].stop)

        def code(move: tuple[int, Draw], part: slice) -> None:
            self._pop(stacks[move[0]], move[1], room[part])

        _at_once(code, moves, parts, self.threads, progress)
        below, alike = _before_each_draw(*found.add(len(room)))
        totals = _totals(len(found), parts)
        for (chunk, _), part in zip(moves, parts, strict=True):
            several = alike[part] > 1
            draws = below[part]
            draws[several] += pop(stacks[chunk], UniformBelow(alike[part][several]))
            push(stacks[chunk], totals[part], draws)

    def salvage(self, payloads: Sequence[bytes | None], sizes: Sequence[int]) -> SortedBytes:
        """The rows that can be had without the chunks that are None: those that the others drew last.

        Before a chunk can be decoded further, the others must have been too: what it drew depends on what they left.
        """
        share = _share([payload for payload in payloads if payload is not None])
        last = _last_draws(self._rounds(sizes, share), len(sizes))
        whole = [(payload, draw) for payload, draw in zip(payloads, last, strict=True) if payload is not None]
        found = SortedBytes(sum(draw.rows for _, draw in whole), self.row_pixels)
        for payload, draw in whole:
            stack = read_stack(self.core, payload[1:])
            with refusing_nonsense():
                grow(stack, draw.batches[-1].lanes)
                self._pop(stack, draw, found.room(draw.rows))
            found.add(draw.rows)
        return found

    def _push(self, stack: Stack, draw: Draw, rows: Bytes) -> None:
        images = rows.reshape(draw.rows * self.row_images, -1)
        coded = 0
        for batch in draw.batches:
            grow(stack, batch.lanes)
            push_images(stack, self.model, images[coded : coded + batch.images].astype(np.int64))
            coded += batch.images

    def _pop(self, stack: Stack, draw: Draw, rows: Bytes) -> None:
        images = rows.reshape(draw.rows * self.row_images, -1)
        lanes_before = [draw.lanes] + [batch.lanes for batch in draw.batches[:-1]]
        left = len(images)
        for batch, lanes in zip(reversed(draw.batches), reversed(lanes_before), strict=True):
            images[left - batch.images : left] = pop_images(stack, self.model, batch.images)
            fold(stack, lanes)
            left -= batch.images

    def _rounds(self, sizes: Sequence[int], share: int) -> list[Round]:
        image_bits = max(1, self.image_bits * share // 8)
        plans = [plan(rows, self.row_images, image_bits, self.latent_bits, sum(sizes)) for rows in sizes]
        rounds = itertools.zip_longest(*plans)
        return [[(chunk, draw) for chunk, draw in enumerate(draws) if draw is not None] for draws in rounds]


@dataclass
class _Advance:
    """Tells of rows once, though they may be coded again."""

    progress: Progress | None
    coded: int = 0
    told: int = 0

    def restart(self) -> None:
        self.coded = 0

    def __call__(self, rows: int) -> None:
        self.coded += rows
        if self.progress is not None and self.coded > self.told:
            self.progress(self.coded - self.told)
            self.told = self.coded


def _share(payloads: Sequence[bytes]) -> int:
    """What the payloads begin with."""
    shares = {payload[:1] for payload in payloads}
    share = shares.pop()
    if shares or not share or share[0] not in SHARES:
        raise FormatError("the chunks of a set don't say alike how they were drawn: the file is damaged")
    return share[0]


def _last_draws(rounds: list[Round], chunks: int) -> list[Draw]:
    """The last draw of each chunk."""
    last = dict(move for moves in rounds for move in moves)
    return [last[chunk] for chunk in range(chunks)]


def _parts(moves: Round) -> list[slice]:
    """Where what each chunk draws lies among all that is drawn in a round."""
    ends = list(itertools.accumulate((draw.rows for _, draw in moves), initial=0))
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def _totals(left: int, parts: list[slice]) -> UniformBelow:
    """From how many rows each row of a round is drawn."""
    return UniformBelow(left - np.arange(parts[-1].stop))


def _before_each_draw(start: Integers, alike: Integers) -> tuple[Integers, Integers]:
    """How many rows that are left come before each of those drawn, and how many are equal to it, when it is drawn.

    ``start`` and ``alike`` are the same before the first of them is drawn.
    """
    return start - smaller_before(start), alike - equal_before(start)


def _at_once(
    code: Callable[[tuple[int, Draw], slice], None],
    moves: Round,
    parts: list[slice],
    threads: int,
    progress: Progress | None,
) -> None:
    """What the chunks do in a round, side by side."""
    tasks = [partial(code, move, part) for move, part in zip(moves, parts, strict=True)]
    for (_, draw), _ in zip(moves, map_in_order(partial.__call__, tasks, threads), strict=True):
        if progress is not None:
            progress(draw.rows)


def _checksums(blocks: Iterable[Bytes], chunks: int) -> list[bytes]:
    """What lies on each chunk's stack before its first row: it depends on all pixels of the set, in canonical order."""
    content = hashlib.blake2b()
    for block in blocks:
        content.update(block.tobytes())
    whole = content.digest()
    return [
        hashlib.blake2b(whole + chunk.to_bytes(8, "little"), digest_size=CHECKSUM_BYTES).digest()
        for chunk in range(chunks)
    ]
