"""A frozen model of images of any size on an engine: what codes strips."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bbans.intervals import Distribution, Maker, NumpyMaker, Outputs
from bbans.intervals.location_scale import PRECISION
from bbans.local.likelihood import NumpyStripLikelihood, StripLikelihood
from bbans.model import Model
from bbans.portable.engine import Engine
from bbans.portable.engines import goes_with_compiled_code
from bbans.portable.local import LoadedLocal, LocalNetwork


def strip_likelihood(model: Model, engine: Engine) -> StripLikelihood:
    """In compiled code where it evaluates networks, or else in NumPy."""
    network = model.decoder
    assert isinstance(network, LocalNetwork)
    loaded = LoadedLocal.of(network)
    in_numpy = NumpyStripLikelihood(loaded, _distribution(model, NumpyMaker()), PRECISION)
    if not goes_with_compiled_code(engine):
        return in_numpy
    from bbans.intervals.compiled import CompiledMaker
    from bbans.local.compiled import CompiledStripLikelihood

    return CompiledStripLikelihood.of(in_numpy, _distribution(model, CompiledMaker())) or in_numpy


def _distribution(model: Model, maker: Maker) -> Callable[[Outputs], Distribution]:
    """What makes the distributions of values."""
    if model.likelihood == "discretized-logistic":
        return maker.logistic
    return partial(maker.mixture, components=model.components, levels=model.masses)
