"""The analysis of a frozen model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from bbans.analysis.coded import coded_posteriors
from bbans.analysis.estimates import LogJoint, log_joint_of
from bbans.analysis.gaps import (
    GAUSSIAN,
    Amortized,
    Effort,
    Measured,
    measure_bounds,
    measure_encoders,
    measure_gaussian,
)
from bbans.model import Model
from bbans.nets import VAE
from bbans.portable.engine import Engine
from bbans.portable.engines import engine_named
from bbans.training.thaw import thaw

Images = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A model, ready to be analysed."""

    model: Model
    posterior: str
    """The encoder that gaps are measured of."""
    network: VAE
    """The thawed model, with that encoder."""
    engine: Engine
    device: torch.device
    steps: Sequence[int]
    effort: Effort
    seed: int

    @staticmethod
    def of(
        model: Model,
        posterior: str | None = None,
        steps: Sequence[int] = (1, 5, 10, 50),
        effort: Effort | None = None,
        device: str = "cpu",
        seed: int = 0,
    ) -> Analysis:
        """Raises :class:`bbans.errors.ModelError` for networks that can't be thawed, or an encoder that isn't there."""
        posterior = posterior or model.default_posterior
        model.encoder(posterior)
        network = thaw(model)[posterior].to(device)
        engine = engine_named("auto", device)
        return Analysis(model, posterior, network, engine, torch.device(device), steps, effort or Effort(), seed)

    def measure(self, x: Images, first: int = 0) -> Measured:
        """All there is to measure of images uint8 ``(images, pixels)``; ``first`` is the number of the first.

        Nothing depends on other images, so that a run in batches can stop between any two and go on.
        """
        log_joint, noise = self._start(x, first)
        coded = coded_posteriors(self.model, self.posterior, x, self.steps, self.engine, self.device)
        encoders = measure_encoders(log_joint, coded, self.effort.elbo_samples, noise)
        return Measured(encoders, measure_bounds(log_joint, coded[self.posterior], self.effort, noise))

    def measure_amortization(self, x: Images, first: int = 0) -> Measured:
        """Only what the amortization gap takes: L[q] and the best Gaussian (GG-8)."""
        log_joint, noise = self._start(x, first)
        coded = coded_posteriors(self.model, self.posterior, x, (), self.engine, self.device)
        encoders = measure_encoders(log_joint, coded, self.effort.elbo_samples, noise)
        best = measure_gaussian(log_joint, coded[self.posterior], self.effort, noise)[1]
        return Measured(encoders, {GAUSSIAN: best})

    def measure_fitted(self, x: Images, networks: Mapping[str, VAE], first: int = 0) -> Measured:
        """L[q] of the encoders of other networks, with the noise that the model's own were measured with."""
        log_joint, noise = self._start(x, first)
        amortized = {name: Amortized(network, self.pixels(x)) for name, network in networks.items()}
        return Measured(measure_encoders(log_joint, amortized, self.effort.elbo_samples, noise), {})

    def pixels(self, x: Images) -> Tensor:
        """As networks take them."""
        return torch.from_numpy(x.astype(np.float32)).to(self.device)

    def _start(self, x: Images, first: int) -> tuple[LogJoint, Generator]:
        noise = Generator(self.device).manual_seed(self.seed * 1_000_003 + first)
        return log_joint_of(self.network, self.pixels(x)), noise
