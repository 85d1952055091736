"""Chunks side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Progress = Callable[[int], object]
"""Called with the number of rows done since the last call."""


def spare_threads(threads: int, count: int) -> int:
    """How many threads each of ``count`` tasks may use if ``threads`` work on them."""
    return threads // max(1, min(threads, count))


def unshared_products() -> AbstractContextManager[object]:
    """Within it no matrix product is shared among threads: small ones would wait for each other more than they work."""
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def map_in_order(function: Callable[[Argument], Result], arguments: list[Argument], threads: int) -> Iterator[Result]:
    """``map`` over threads, with a bounded number of results waiting.

    Matrix products get threads of their own only where there are fewer arguments than threads: they would wait
    for each other more than they would help.
    """
    workers = max(1, min(threads, len(arguments)))
    with threadpool_limits(spare_threads(threads, len(arguments)), user_api="blas"):
        yield from map(function, arguments) if workers == 1 else _map_in_threads(function, arguments, workers)


def _map_in_threads(
    function: Callable[[Argument], Result], arguments: list[Argument], workers: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for argument in arguments:
                waiting.append(pool.submit(function, argument))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
