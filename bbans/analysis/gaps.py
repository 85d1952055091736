"""The gaps between log p(x) and what a file pays (IS-5), from the estimates of which they are differences.

A file pays -L[q] for an image. Had it the best Gaussian for that image, it would pay -L[q*]; with the model's own
posterior, -log p(x). The first step is the amortization gap, the second the approximation gap, both together the
inference gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor

from bbans.analysis.estimates import (
    Annealing,
    Estimate,
    LogJoint,
    Posterior,
    annealed_importance,
    elbo,
    importance_weighted,
)
from bbans.analysis.posteriors import Fitting, ImageFlow, fit_flow, fit_gaussian
from bbans.nets import VAE, DiagonalGaussian

GAUSSIAN, FLOW = "optimal Gaussian", "optimal flow"
IMPORTANCE, ANNEALED = "importance-weighted bound", "annealed importance sampling"
LIKELIHOOD = "log p(x)"
APPROXIMATION, AMORTIZATION, INFERENCE = "approximation gap", "amortization gap", "inference gap"


@dataclass(frozen=True, eq=False)
class Measured:
    """Of a batch of images, everything in nats."""

    encoders: Mapping[str, Estimate]
    """L[q] by the name of the encoder, with its steps if it takes any."""
    optima: Mapping[str, Estimate]
    """:data:`GAUSSIAN` and, where they were measured, :data:`FLOW`, :data:`IMPORTANCE` and :data:`ANNEALED`."""

    @staticmethod
    def joined(parts: Sequence[Measured]) -> Measured:
        """Of several batches, one after the other."""
        return Measured(_joined([part.encoders for part in parts]), _joined([part.optima for part in parts]))

    @staticmethod
    def from_json(parts: Mapping[str, Any]) -> Measured:
        """What :meth:`to_json` wrote."""
        both = (parts["encoders"], parts["optima"])
        return Measured(*({name: _estimate(one) for name, one in part.items()} for part in both))

    def to_json(self) -> dict[str, Any]:
        """Numbers for a file."""
        return {
            key: {name: {"nats": one.value.tolist(), "error": one.error.tolist()} for name, one in part.items()}
            for key, part in (("encoders", self.encoders), ("optima", self.optima))
        }

    @property
    def images(self) -> int:
        """How many."""
        return len(next(iter(self.encoders.values())).value)

    @property
    def log_likelihood(self) -> Tensor:
        """Log p(x): of two estimates, both of which are too low on average, the one that is larger on average (IS-4).

        (The larger for each image would be too high, by their noise.)
        """
        bounds = [self.optima[name].value for name in (IMPORTANCE, ANNEALED)]
        return max(bounds, key=lambda bound: float(bound.mean()))

    def gaps(self, posterior: str, family: str = GAUSSIAN) -> dict[str, Tensor]:
        """Approximation, amortization and inference gap (IS-5) of an encoder, of Gaussians or (``family``) of flows.

        Without an estimate of log p(x), the amortization gap alone.
        """
        best, own = self.optima[family].value, self.encoders[posterior].value
        amortization = {AMORTIZATION: best - own}
        if IMPORTANCE not in self.optima:
            return amortization
        return {APPROXIMATION: self.log_likelihood - best, **amortization, INFERENCE: self.log_likelihood - own}


def _estimate(part: Mapping[str, Sequence[float]]) -> Estimate:
    return Estimate(torch.tensor(part["nats"]), torch.tensor(part["error"]))


def _joined(parts: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    return {
        name: Estimate(*(torch.cat([getattr(part[name], key).cpu() for part in parts]) for key in ("value", "error")))
        for name in parts[0]
    }


@dataclass(frozen=True)
class Effort:
    """How much is spent on each image."""

    elbo_samples: int = 200
    gaussian: Fitting = field(default_factory=Fitting)
    flow: Fitting = field(default_factory=lambda: Fitting(steps=400, rounds=3, learning_rate=0.01))
    flow_hidden: int = 32
    """Units of each of a flow's networks."""
    importance_samples: int = 5000
    annealing: Annealing = field(default_factory=Annealing)

    @staticmethod
    def of(fitting_steps: int, importance_samples: int, temperatures: int) -> Effort:
        """The usual one, but for these."""
        usual = Effort()
        return replace(
            usual,
            gaussian=replace(usual.gaussian, steps=fitting_steps),
            flow=replace(usual.flow, steps=2 * fitting_steps),
            importance_samples=importance_samples,
            annealing=replace(usual.annealing, temperatures=temperatures),
        )


@dataclass(frozen=True)
class Average:
    """Over images, with the standard error that comes from having looked at so few of them."""

    mean: float
    error: float

    @staticmethod
    def of(values: Tensor) -> Average:
        """Of values ``(images,)``."""
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return Average(float(values.mean()), error)


@dataclass(frozen=True, eq=False)
class Amortized:
    """What a network's own encoder says of images, float ``(images, pixels)``."""

    network: VAE
    pixels: Tensor

    def draw(self, samples: int, noise: Generator, /) -> tuple[Tensor, Tensor]:
        """See :class:`bbans.analysis.estimates.Posterior`."""
        return self.network.draw(self.pixels, samples, noise)


def measure_encoders(
    log_joint: LogJoint, posteriors: Mapping[str, Posterior], samples: int, noise: Generator
) -> dict[str, Estimate]:
    """L[q] of each (IS-1), all with the same noise, so that their differences have less of it."""
    seed = int(torch.randint(1 << 62, (), generator=noise, device=noise.device))
    return {
        name: elbo(log_joint, q, samples, Generator(noise.device).manual_seed(seed)) for name, q in posteriors.items()
    }


def measure_gaussian(
    log_joint: LogJoint, start: DiagonalGaussian, effort: Effort, noise: Generator
) -> tuple[DiagonalGaussian, Estimate]:
    """The best Gaussian of each image, and its bound (IS-2)."""
    fitted = fit_gaussian(log_joint, start, effort.gaussian, noise).gaussian
    best = DiagonalGaussian(fitted.mean.detach(), fitted.log_deviation.detach())
    return best, elbo(log_joint, best, effort.elbo_samples, noise)


def measure_bounds(
    log_joint: LogJoint, start: DiagonalGaussian, effort: Effort, noise: Generator, flow: ImageFlow | None = None
) -> dict[str, Estimate]:
    """L[q*] of a Gaussian (IS-2) and of a flow (IS-3), and both estimates of log p(x) (IS-4).

    The Gaussian is fitted from ``start``; the flow from ``flow``, or else from the best Gaussian. The
    importance-weighted bound draws from the flow, annealed importance sampling starts from the Gaussian.
    """
    gaussian, of_gaussian = measure_gaussian(log_joint, start, effort, noise)
    flow = fit_flow(log_joint, flow or ImageFlow.of_gaussian(gaussian, effort.flow_hidden, noise), effort.flow, noise)
    return {
        GAUSSIAN: of_gaussian,
        FLOW: elbo(log_joint, flow, effort.elbo_samples, noise),
        IMPORTANCE: importance_weighted(log_joint, flow, effort.importance_samples, noise),
        ANNEALED: annealed_importance(log_joint, gaussian, effort.annealing, noise),
    }
