"""A frozen model on an engine: the distributions that bits-back coding asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bbans.inference.amortized import posterior_of_outputs
from bbans.inference.refined import Climb, RefinedPosterior, natural_gradient
from bbans.intervals import Bernoulli, DiscretizedLogistic, GaussianBins, PriorBins, Uniform, bernoulli, logistic
from bbans.intervals.distribution import Symbols
from bbans.model import Model
from bbans.portable.engine import Engine, Evaluate

LOG_PROBS = {"bernoulli": bernoulli.log_prob, "discretized-logistic": logistic.log_prob}


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A :class:`bbans.bitsback.LatentVariableModel`; it holds no state and may be shared by threads."""

    model: Model
    bins: PriorBins
    evaluate_encoder: Evaluate
    evaluate_decoder: Evaluate
    refine: RefinedPosterior | None

    @staticmethod
    def of(
        model: Model, posterior: str, engine: Engine, steps: int = 0, climb: Climb = natural_gradient
    ) -> EvaluatedModel:
        """Load both networks on ``engine``, for a posterior refined by ``steps`` steps.

        A ``climb`` other than the format's is for experiments only.
        """
        return EvaluatedModel(
            model,
            PriorBins.of(model.latent_precision),
            engine.load(model.encoder(posterior)),
            engine.load(model.decoder),
            _refined(model, engine, steps, climb) if steps else None,
        )

    def on_threads(self, threads: int) -> EvaluatedModel:
        """The same model, whose posteriors are refined on so many threads."""
        return self if self.refine is None else replace(self, refine=replace(self.refine, threads=threads))

    def prior(self, images: int) -> Uniform:
        return Uniform(images * self.model.latents, self.model.latent_precision)

    def likelihood(self, z: Symbols) -> Bernoulli | DiscretizedLogistic:
        return _likelihood(self.model, self.evaluate_decoder(self.bins.centres[z]))

    def posterior(self, x: Symbols) -> GaussianBins:
        outputs = self.evaluate_encoder(x)
        if self.refine is not None:
            outputs = self.refine(outputs, x)
        return posterior_of_outputs(outputs, self.bins)


def _likelihood(model: Model, outputs: NDArray[np.int64]) -> Bernoulli | DiscretizedLogistic:
    """p(x given z), flattened, from decoder outputs int64 ``(images, outputs)``."""
    if model.likelihood == "bernoulli":
        return Bernoulli.from_logits(outputs.ravel())
    mean, log_scale = np.split(outputs, 2, axis=1)
    return DiscretizedLogistic.from_outputs(mean.ravel(), log_scale.ravel())


def _refined(model: Model, engine: Engine, steps: int, climb: Climb) -> RefinedPosterior:
    return RefinedPosterior(
        engine.load_gradient(model.decoder),
        LOG_PROBS[model.likelihood],
        model.decoder.input_magnitude,
        steps,
        climb,
    )
