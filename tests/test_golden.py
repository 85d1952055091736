"""Golden files: what was written once is read, and written, for ever."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import bbans

GOLDEN = Path(__file__).parent / "golden"
DIGESTS = json.loads((GOLDEN / "digests.json").read_text())

specification = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
assert specification is not None and specification.loader is not None
make = importlib.util.module_from_spec(specification)
sys.modules[specification.name] = make  # dataclasses look their module up
specification.loader.exec_module(make)


COMPILED = "numba" if find_spec("numba") else "numpy"
"""Reads what NumPy writes."""


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_golden_files_are_read_and_written(name: str) -> None:
    data = (GOLDEN / f"{name}.bba").read_bytes()
    assert hashlib.sha256(data).hexdigest() == DIGESTS[name]["file"], "the golden file itself was changed"
    model = make.CASES[name].model
    array = bbans.decompress(data, model=make.load(model) if isinstance(model, str) else None, engine=COMPILED)
    assert make.digest_of(array) == DIGESTS[name]["array"]
    if name != "stored":  # bytes that zstandard made depend on the version of that library
        assert make.encode(name, array) == data


def test_every_case_has_its_file() -> None:
    assert set(make.CASES) == set(DIGESTS) == {path.stem for path in GOLDEN.glob("*.bba")}
