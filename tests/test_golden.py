"""Golden files: what was written once is read, and written, for ever."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
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


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_golden_files_are_read(name: str) -> None:
    data = (GOLDEN / f"{name}.bba").read_bytes()
    assert hashlib.sha256(data).hexdigest() == DIGESTS[name]["file"], "the golden file itself was changed"
    assert make.digest_of(bbans.decompress(data)) == DIGESTS[name]["array"]


@pytest.mark.parametrize("name", sorted(name for name in DIGESTS if name != "stored"))
def test_the_same_bytes_are_written(name: str) -> None:
    """(Bytes of chunks that are stored through zstandard depend on the version of that library.)"""
    assert make.encode(name) == (GOLDEN / f"{name}.bba").read_bytes()


def test_every_case_has_its_file() -> None:
    assert set(make.CASES) == set(DIGESTS) == {path.stem for path in GOLDEN.glob("*.bba")}
