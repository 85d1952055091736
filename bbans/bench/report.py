"""How results are given: a table to read, JSON to keep, and what they were measured on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans import __version__
from bbans.errors import ArrayError
from bbans.npy import read_npy, whole_file
from bbans.symbols import check_numeric


def machine() -> dict[str, object]:
    """What the times of a benchmark depend on."""
    return {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "bbans": __version__,
    }


def read_images(path: Path, count: int) -> NDArray[Any]:
    """The first ``count`` images (entries of the first axis) of a `.npy` file, in memory.

    Raises :class:`bbans.errors.ArrayError` if it holds no images.
    """
    array = read_npy(path)
    check_numeric(array)
    if array.ndim < 2 or not array.size:
        raise ArrayError(f"{path} holds no images but an array of shape {array.shape}")
    return np.array(array[:count])


def write_json(path: Path, result: Mapping[str, object]) -> None:
    """Write ``result`` with what it was measured on; the file appears whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps({"machine": machine(), **result}, indent=1) + "\n").encode())


def describe(name: str, array: NDArray[Any]) -> dict[str, object]:
    """What was measured, for the JSON."""
    return {"name": name, "shape": list(array.shape), "dtype": array.dtype.str, "bytes": array.nbytes}


def table(header: Sequence[str], rows: Sequence[Sequence[str]], names: int = 2) -> str:
    """Rows under a header, the first ``names`` columns flush left and the others, numbers, flush right.

    >>> print(table(["codec", "bits/dim"], [["xz", "0.25"], ["bzip3", "10.5"]], names=1))
    codec  bits/dim
    xz         0.25
    bzip3      10.5
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def cells(line: Sequence[str]) -> list[str]:
        return [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]

    return "\n".join("  ".join(cells(line)).rstrip() for line in lines)
