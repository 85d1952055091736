"""What the package's metadata says."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRIES = [(group, entry) for group, entries in PROJECT["entry-points"].items() for entry in entries.values()]


@pytest.mark.parametrize(("group", "entry"), ENTRIES)
def test_entry_points_lead_somewhere(group: str, entry: str) -> None:
    module, _, name = entry.partition(":")
    needed = {"craystack_core": "craystack", "numba_core": "numba", "zarr": "zarr", "numcodecs": "numcodecs"}
    package = needed.get(module.rpartition(".")[2], "numpy")
    if find_spec(package) is None:
        pytest.skip(f"no {package} here")
    assert getattr(importlib.import_module(module), name) is not None
