"""The posteriors that files are coded with: those of the integer encoders, refined by the integer K steps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.evaluated import EvaluatedModel
from bbans.inference.refined import limited_log_deviation, limited_mean
from bbans.intervals.gaussian import MEAN_FRACTION
from bbans.model import Model
from bbans.nets import DiagonalGaussian
from bbans.portable.engine import Engine


def name_of(posterior: str, steps: int) -> str:
    """Of a posterior, refined by so many steps.

    >>> name_of("amortized", 0), name_of("amortized", 10)
    ('amortized', 'amortized, K = 10')
    """
    return f"{posterior}, K = {steps}" if steps else posterior


def coded_posteriors(
    model: Model, posterior: str, x: NDArray[np.uint8], steps: Iterable[int], engine: Engine, device: torch.device
) -> dict[str, DiagonalGaussian]:
    """By their name: of all encoders, and of one after K steps, for images uint8 ``(images, pixels)``."""
    wanted = [(name, 0) for name in model.encoders] + [(posterior, count) for count in steps if count]
    symbols = x.astype(np.int64)
    found = {}
    for name, count in wanted:
        evaluated = EvaluatedModel.of(model, name, engine, count)
        outputs = evaluated.evaluate_encoder(symbols)
        if evaluated.refine is not None:
            outputs = evaluated.refine(outputs, symbols)
        mean, log_deviation = np.split(np.ldexp(outputs.astype(np.float64), -MEAN_FRACTION), 2, axis=1)
        found[name_of(name, count)] = DiagonalGaussian(
            _tensor(limited_mean(mean), device), _tensor(limited_log_deviation(log_deviation), device)
        )
    return found


def _tensor(values: NDArray[np.float64], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
