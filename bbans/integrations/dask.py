"""Coding on the workers of a Dask cluster: more images than one machine holds, or codes in time.

- :func:`compress` writes one `.bba` file of rows that lie in files or in a zarr array, which all workers can read: they
  read and code it, and what comes back is compressed.
- :func:`open_file` is a `.bba` file as a ``dask.array``, decoded on the workers.
- :class:`bbans.integrations.zarr.BitsBack` goes through ``dask.array.to_zarr`` as any codec does.

A task is lost with its worker, and done again by another one. The model is loaded once in each worker.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

import bbans
from bbans.api import choose_model_for
from bbans.codec import Written
from bbans.inputs import is_zarr, open_zarr
from bbans.npy import NpyFiles
from bbans.parallel import Progress
from bbans.rows import Rows, Spread

try:
    import dask.array
    from distributed import Client, Future
except ImportError as error:
    raise ImportError(f"bbans.integrations.dask needs Dask, pip install 'bbans[dask]': {error}") from error

TIMEOUT = "10s"
"""For a scheduler to answer."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def open_rows(path: str | os.PathLike[str]) -> Rows:
    """A `.npy` file, a folder of such files in the order of their names, or a zarr array, without reading its elements.

    Raises :class:`bbans.ArrayError` if it is something else.
    """
    path = Path(path).absolute()
    if path.is_file():
        return NpyFiles((path,))
    files = tuple(sorted(path.glob("*.npy")))
    if files:
        return NpyFiles(files)
    if not is_zarr(path):
        raise bbans.ArrayError(f"{path} is neither a .npy file, nor a folder of such files or of a zarr array")
    rows: Rows = open_zarr(path)
    return rows


def compress(
    rows: Rows,
    target: BinaryIO,
    client: Client,
    *,
    model: str | os.PathLike[str] | bbans.Model | None = "auto",
    posterior: str | None = None,
    steps: int = 0,
    chunk_size: int | None = None,
    embed_model: bool = False,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    progress: Progress | None = None,
) -> Written:
    """Write the `.bba` file that :func:`bbans.compress` makes of all rows, byte for byte, coded on a cluster.

    Workers read their ``rows``: from files that all of them can open (:func:`open_rows`), or from anything that pickle
    takes. Each codes some 16 MB at a time, and what they send is written here in order. They need the same packages as
    this process.
    """
    spread = spread_over(client)
    if model == "auto":
        chosen = choose_model_for(rows, spread) if 0 not in rows.shape else None
    else:
        chosen = model if model is None or isinstance(model, bbans.Model) else bbans.load_model(model)
    codec = bbans.Codec.of(
        chosen,
        posterior=posterior,
        steps=steps,
        engine=engine,
        device=device,
        ans=ans,
        thorough=model == "auto",
        embed_model=embed_model,
        pixels=math.prod(rows.shape),
    )
    return codec.write_rows(target, rows, spread, chunk_size, progress)


def open_file(path: str | os.PathLike[str], **options: Any) -> dask.array.Array:
    """A `.bba` file that all workers can open, as an array with the file's chunks.

    The ``options`` are those of :func:`bbans.open`.
    """
    compressed = bbans.open(path, **options)
    meta = np.empty((0,) * compressed.ndim, compressed.dtype)
    array: dask.array.Array = dask.array.from_array(compressed, chunks=compressed.chunks, name=False, meta=meta)
    return array


def connect(scheduler: str) -> Client:
    """A client of a cluster, by the address of its scheduler or the file that this has written.

    Raises :class:`bbans.BbansError` if it doesn't answer.
    """
    try:
        where = {"scheduler_file": scheduler} if os.path.exists(scheduler) else {"address": scheduler}
        return Client(**where, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise bbans.BbansError(f"no Dask scheduler answers at {scheduler}: {error}") from error


def spread_over(client: Client) -> Spread:
    """``map`` over the workers of a cluster, in order, with a bounded number of results waiting."""

    def spread(function: Callable[[Argument], Result], arguments: list[Argument], /) -> Iterator[Result]:
        # Held by the cluster, so that it is sent to each worker once and not with each task.
        held = client.submit(_identity, function, pure=False)
        waiting: deque[Future[Result]] = deque()
        try:
            for argument in arguments:
                waiting.append(client.submit(_apply, held, argument, pure=False))
                if len(waiting) > 2 * max(1, sum(client.nthreads().values())):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            client.cancel([held, *waiting])

    return spread


def _identity(function: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
    return function


def _apply(function: Callable[[Argument], Result], argument: Argument) -> Result:
    return function(argument)
