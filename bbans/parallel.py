"""Chunks side by side."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from threadpoolctl import threadpool_limits

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def spare_threads(threads: int, count: int) -> int:
    """How many threads each of ``count`` tasks may use if ``threads`` work on them."""
    return threads // max(1, min(threads, count))


class _Unshared(AbstractContextManager[None]):
    """Of all threads that are within, the first to enter changes the limit and the last to leave restores it.

    The limit is the process's: each thread for itself would restore what another one had set.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As in a new process."""
        self._lock = threading.Lock()
        self._within = 0
        self._limits: threadpool_limits | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._limits = threadpool_limits(1, user_api="blas")
            self._within += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within and self._limits is not None:
                self._limits.restore_original_limits()


_unshared = _Unshared()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unshared.reset)


def unshared_products() -> AbstractContextManager[object]:
    """Within it no matrix product is shared among threads: small ones would wait for each other more than they work."""
    return _unshared


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
