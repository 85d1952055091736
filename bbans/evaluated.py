"""A frozen model on an engine: the distributions that bits-back coding asks for."""

from __future__ import annotations

from dataclasses import dataclass

from bbans.inference.amortized import amortized_posterior
from bbans.intervals import Bernoulli, DiscretizedLogistic, Distribution, GaussianBins, PriorBins, Uniform
from bbans.intervals.distribution import Symbols
from bbans.model import Model
from bbans.portable.engine import Engine, Evaluate


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A :class:`bbans.bitsback.LatentVariableModel`; it holds no state and may be shared by threads."""

    model: Model
    bins: PriorBins
    evaluate_encoder: Evaluate
    evaluate_decoder: Evaluate

    @staticmethod
    def of(model: Model, posterior: str, engine: Engine) -> EvaluatedModel:
        """Load both networks on ``engine``."""
        return EvaluatedModel(
            model,
            PriorBins.of(model.latent_precision),
            engine.load(model.encoder(posterior)),
            engine.load(model.decoder),
        )

    def prior(self, images: int) -> Uniform:
        return Uniform(images * self.model.latents, self.model.latent_precision)

    def likelihood(self, z: Symbols) -> Distribution:
        outputs = self.evaluate_decoder(self.bins.centres[z])
        if self.model.likelihood == "bernoulli":
            return Bernoulli.from_logits(outputs.ravel())
        pixels = self.model.pixels
        return DiscretizedLogistic.from_outputs(outputs[:, :pixels].ravel(), outputs[:, pixels:].ravel())

    def posterior(self, x: Symbols) -> GaussianBins:
        return amortized_posterior(self.evaluate_encoder, self.bins, x)
