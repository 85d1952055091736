"""A frozen model on an engine: the distributions that bits-back coding asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bbans.bitsback import Likelihood
from bbans.channel_likelihood import ChannelLinearLikelihood
from bbans.inference.amortized import posterior_of_outputs
from bbans.inference.antithetic import COPIES, antithetic_gradient
from bbans.inference.landscapes import ContextLandscape, IndependentLandscape
from bbans.inference.refined import Climb, Landscape, RefinedPosterior, natural_gradient
from bbans.intervals import (
    ChannelLinearLogistic,
    Distribution,
    Maker,
    NumpyMaker,
    Outputs,
    PriorBins,
    Uniform,
    bernoulli,
    channel_linear,
    logistic,
    mixture_log_prob,
)
from bbans.intervals.distribution import Symbols
from bbans.intervals.log_prob import Floats32, LogProb
from bbans.likelihoods import ContextLikelihood, IndependentLikelihood
from bbans.model import Model
from bbans.portable.context import ConvolutionalDecoder
from bbans.portable.context_descent import ContextDescent
from bbans.portable.convolution import ConvolutionalNetwork
from bbans.portable.convolution_descent import ConvolutionalDescent
from bbans.portable.engine import Engine, Evaluate, MapEngine
from bbans.portable.engines import goes_with_compiled_code
from bbans.portable.layout import Values
from bbans.portable.local import LocalNetwork
from bbans.portable.maps import LoadedContext
from bbans.portable.network import Network


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A :class:`bbans.bitsback.LatentVariableModel`; it holds no state and may be shared by threads."""

    model: Model
    bins: PriorBins
    evaluate_encoder: Evaluate
    evaluate_decoder: Callable[[NDArray[np.int64]], Likelihood]
    refine: RefinedPosterior | None
    maker: Maker

    @staticmethod
    def of(model: Model, posterior: str, engine: Engine, steps: int = 0, climb: Climb | None = None) -> EvaluatedModel:
        """Load both networks on ``engine``, for a posterior refined by ``steps`` steps.

        A ``climb`` other than the format's is for experiments only.
        """
        maker = _maker(engine)
        return EvaluatedModel(
            model,
            PriorBins.of(model.latent_precision),
            _load_encoder(model, posterior, engine),
            _load_decoder(model, engine, maker),
            _refined(model, engine, steps, climb) if steps else None,
            maker,
        )

    def on_threads(self, threads: int) -> EvaluatedModel:
        """The same model, whose posteriors are refined on so many threads."""
        return self if self.refine is None else replace(self, refine=replace(self.refine, threads=threads))

    def prior(self, images: int) -> Uniform:
        return Uniform(images * self.model.latents, self.model.latent_precision)

    def likelihood(self, z: Symbols) -> Likelihood:
        return self.evaluate_decoder(self.bins.centres[z])

    def posterior(self, x: Symbols) -> Distribution:
        outputs = self.evaluate_encoder(x)
        if self.refine is not None:
            outputs = self.refine(outputs, x)
        return posterior_of_outputs(outputs, self.bins, self.maker)


def _load_encoder(model: Model, posterior: str, engine: Engine) -> Evaluate:
    """From pixels int64 ``(images, pixels)`` to encoder outputs."""
    encoder = model.encoder(posterior)
    if isinstance(encoder, Network):
        return engine.load(encoder)
    assert not isinstance(model.decoder, Network)
    pixel_input, channels = model.decoder.pixel_input, model.channels
    if not isinstance(engine, MapEngine):
        from bbans.tensor_likelihoods import load_encoder

        return load_encoder(engine, encoder, pixel_input, channels)
    evaluate = engine.load_convolutions(encoder)

    def outputs(x: Symbols) -> NDArray[np.int64]:
        pixels = np.ascontiguousarray(x.T, np.float32).reshape(*encoder.sizes[0], channels, len(x))
        found = evaluate(pixel_input(pixels))  # rows, columns, channels, images
        return found.transpose(3, 2, 0, 1).reshape(len(x), -1).astype(np.int64)

    return outputs


def _load_decoder(model: Model, engine: Engine, maker: Maker) -> Callable[[NDArray[np.int64]], Likelihood]:
    """From latents' centres int64 ``(images, latents)`` to p(x given z)."""
    decoder = model.decoder
    assert not isinstance(decoder, LocalNetwork)
    if isinstance(decoder, ConvolutionalDecoder):
        upward = _load_upward(engine, decoder.upward)
        return lambda z: _of_map(model, maker, upward(z))
    if not isinstance(engine, MapEngine):
        from bbans.tensor_likelihoods import load_decoder

        return load_decoder(engine, model, decoder, maker)
    if isinstance(decoder, Network):
        evaluate = engine.load(decoder)
        return lambda z: IndependentLikelihood(
            _distribution(model, maker)(evaluate(z).reshape(len(z), model.outputs_per_pixel, -1)), len(z)
        )
    upward = _load_upward(engine, decoder.upward)
    context = LoadedContext.of(engine, decoder.context)
    likelihood = _context_likelihood(context.engine)
    return lambda z: likelihood(context, upward(z), _distribution(model, maker))


def _load_upward(engine: Engine, network: ConvolutionalNetwork) -> Callable[[NDArray[np.int64]], Values]:
    """From latents' centres to the map that a network makes of them."""
    evaluate = engine.load_convolutions(network)
    size, channels = network.sizes[0], network.inputs
    return lambda z: evaluate(z.reshape(len(z), channels, *size).transpose(2, 3, 1, 0).astype(np.float32))


def _context_likelihood(engine: Engine) -> type[ContextLikelihood]:
    """Compiled code codes pixels where it evaluates networks."""
    if engine.name != "numba":
        return ContextLikelihood
    from bbans.lockstep import CompiledContextLikelihood

    return CompiledContextLikelihood


def _of_map(model: Model, maker: Maker, outputs: Values) -> Likelihood:
    """p(x given z) from the results of a convolutional decoder, ``(rows, columns, outputs * channels, images)``."""
    images = outputs.shape[3]
    # Kinds, channels, images, positions.
    kinds = outputs.reshape(-1, model.outputs_per_pixel, model.channels, images).transpose(1, 2, 3, 0)
    if model.likelihood == "channel-linear-logistic":
        mean, log_scale, coefficient = kinds.reshape(*kinds.shape[:2], -1).astype(np.int64)
        pixels = ChannelLinearLogistic.from_outputs(mean, log_scale, coefficient, maker.logistic)
        return ChannelLinearLikelihood(pixels, images)
    by_image = kinds.transpose(2, 0, 3, 1)
    return IndependentLikelihood(_distribution(model, maker)(by_image.reshape(*by_image.shape[:2], -1)), images)


def _distribution(model: Model, maker: Maker) -> Callable[[Outputs], Distribution]:
    """What makes the distributions of pixels."""
    if model.likelihood == "bernoulli":
        return maker.bernoulli
    if model.likelihood == "discretized-logistic":
        return maker.logistic
    return partial(maker.mixture, components=model.components, levels=model.masses)


def _maker(engine: Engine) -> Maker:
    """Compiled code makes distributions where it evaluates networks, and beside a GPU; torch those of pixels."""
    maker: Maker = NumpyMaker()
    if goes_with_compiled_code(engine):
        from bbans.intervals.compiled import CompiledMaker

        maker = CompiledMaker()
    if isinstance(engine, MapEngine):
        return maker
    from bbans.tensor_likelihoods import maker_on

    return maker_on(engine, maker)


def _refined(model: Model, engine: Engine, steps: int, climb: Climb | None) -> RefinedPosterior:
    decoder, log_prob = model.decoder, _log_prob(model)
    assert not isinstance(decoder, LocalNetwork)
    if isinstance(decoder, Network):
        landscape: Landscape = IndependentLandscape(engine.load_gradient(decoder), log_prob)
        return RefinedPosterior(landscape, decoder.input_magnitude, steps, climb or natural_gradient)
    if isinstance(decoder, ConvolutionalDecoder):
        descent = ConvolutionalDescent.of(engine, decoder.upward)
        landscape = IndependentLandscape(descent.linearize, log_prob, model.channels, block=(16, 16))
        return RefinedPosterior(landscape, decoder.upward.input_magnitude, steps, climb or natural_gradient)
    landscape = ContextLandscape(ContextDescent.of(engine, decoder), log_prob)
    return RefinedPosterior(
        landscape, decoder.upward.input_magnitude, steps, climb or antithetic_gradient, copies=COPIES
    )


def _log_prob(model: Model) -> Callable[[Floats32], LogProb]:
    """Of pixels, as a function of a decoder's real outputs."""
    if model.likelihood == "bernoulli":
        return bernoulli.log_prob
    if model.likelihood == "discretized-logistic":
        return logistic.log_prob
    if model.likelihood == "channel-linear-logistic":
        return channel_linear.log_prob
    return partial(mixture_log_prob.log_prob, model.components, model.masses)
