"""See `soak.py`."""

from __future__ import annotations

import numpy as np
import pytest
from soak import soak

import bbans
from bbans.model import shipped_models

HOUR = 3600.0


@pytest.mark.soak
def test_an_hour_of_round_trips() -> None:
    sets = {name: bbans.sample_images(bbans.load_model(name), 2000) for name in shipped_models()}
    assert soak(sets, HOUR, 100_000, np.random.default_rng()).round_trips > 0


def test_some_round_trips() -> None:
    """In quick succession, of what takes little time."""
    sets = {"gg-mnist-binary": bbans.sample_images(bbans.load_model("gg-mnist-binary"), 50)}
    done = soak(sets, 3, 300, np.random.default_rng(3))
    assert done.round_trips > 0
