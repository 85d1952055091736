"""Threads beside each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np  # noqa: F401 - whose library of matrix products it is about
from threadpoolctl import threadpool_info, threadpool_limits

from bbans.parallel import unshared_products


def threads_of_products() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_limit_ends_with_the_last_thread() -> None:
    """Whichever of them ends first."""
    entered, left = Barrier(2), Barrier(2)

    def first() -> None:
        with unshared_products():
            entered.wait()
        left.wait()

    def second() -> None:
        entered.wait()
        with unshared_products():
            left.wait()
            assert threads_of_products() <= {1}

    with threadpool_limits(2, user_api="blas"):
        before = threads_of_products()
        with ThreadPoolExecutor(2) as pool:
            for task in [pool.submit(first), pool.submit(second)]:
                task.result()
        assert threads_of_products() == before
