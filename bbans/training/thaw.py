"""From a frozen model back to networks that have gradients: freezing (:mod:`bbans.training.export`), backwards.

Weights are the integers of the model, scaled. What coding rounds, activations and the parameters of distributions, is
not rounded here, and activations are not clipped at their maximum, which few ever reach: what the two say of an image
differs by a few hundredths of a percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from bbans.errors import ModelError
from bbans.intervals import bernoulli
from bbans.intervals.gaussian import CENTRE_FRACTION
from bbans.intervals.location_scale import PRECISION
from bbans.model import Model
from bbans.nets import (
    VAE,
    Bernoulli,
    ChannelLinearLogistic,
    ContextShape,
    ContextVAE,
    DiscretizedLogistic,
    FullyConnectedVAE,
    Likelihood,
    LogisticMixture,
    ResidualShape,
    ResidualVAE,
)
from bbans.nets.context import ContextBlock, of_kind
from bbans.nets.context import ContextDecoder as NetworkDecoder
from bbans.nets.local import LocalNetwork, LocalShape
from bbans.nets.residual import ResidualBlock
from bbans.portable import local
from bbans.portable.context import NEAR, Block, ContextDecoder, ConvolutionalDecoder
from bbans.portable.convolution import Convolution, ConvolutionalNetwork
from bbans.portable.network import OUTPUT_FRACTION, Linear, Network

LATENT_UNIT = 2.0**-CENTRE_FRACTION
OUTPUT_UNIT = 2.0**-OUTPUT_FRACTION

Units = float | NDArray[np.float64]
"""What 1 stands for in the integers that a layer takes: all of them, or each."""


@dataclass(frozen=True)
class CodedLikelihood:
    """A likelihood whose probabilities are those of intervals: no value has less than one part in ``2**precision``."""

    exact: Likelihood
    precision: int

    @property
    def name(self) -> str:
        return self.exact.name

    @property
    def symbols(self) -> int:
        return self.exact.symbols

    @property
    def outputs_per_pixel(self) -> int:
        return self.exact.outputs_per_pixel

    @property
    def mean_outputs(self) -> slice:
        return self.exact.mean_outputs

    def initial_bias(self) -> tuple[float, ...]:
        return self.exact.initial_bias()

    def log_prob(self, outputs: Tensor, pixels: Tensor) -> Tensor:
        least = 2.0**-self.precision
        log_prob = self.exact.log_prob(outputs, pixels) + math.log1p(-self.symbols * least)
        return torch.logaddexp(log_prob, torch.full_like(log_prob, math.log(least)))

    def sample(self, outputs: Tensor, noise: Generator) -> Tensor:
        return self.exact.sample(outputs, noise)


def thaw(model: Model) -> dict[str, VAE]:
    """Networks with the decoder of a model, by the name of the posterior whose encoder they have; in float32.

    Raises :class:`bbans.errors.ModelError` if a network is of a kind that :mod:`bbans.nets` doesn't have, or the model
    has no latents.
    """
    if model.any_size:
        raise ModelError(f"model {model.name} has no latents, and so no posterior to analyse")
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # modules are born with random weights
            return {name: _thawed(model, name).eval().requires_grad_(False) for name in model.encoders}
    except (RuntimeError, ValueError, IndexError) as error:  # shapes that don't fit
        raise ModelError(
            f"model {model.name} has a network of a kind that can't be analysed; expected those of bbans train: {error}"
        ) from error


def _thawed(model: Model, posterior: str) -> VAE:
    decoder, encoder, likelihood = model.decoder, model.encoder(posterior), _likelihood(model)
    assert not isinstance(decoder, local.LocalNetwork)
    if isinstance(decoder, Network):
        assert isinstance(encoder, Network)
        widths, encoder_widths = ([len(layer.bias) for layer in part.layers[:-1]] for part in (decoder, encoder))
        plain = FullyConnectedVAE(model.pixels, model.latents, widths, likelihood, encoder_widths)
        _thaw_dense(plain.decoder, decoder, LATENT_UNIT)
        _thaw_dense(plain.encoder, encoder, 1 / (model.symbols - 1))
        return plain
    assert isinstance(encoder, ConvolutionalNetwork)
    pixel_unit = 1 / decoder.pixel_input.unit
    if isinstance(decoder, ConvolutionalDecoder):
        residual_shape = _residual_shape(encoder, decoder)
        residual = ResidualVAE(model.image_shape, residual_shape, decoder.pixel_input, likelihood)
        _thaw_residual(residual.decoder, decoder.upward, LATENT_UNIT)
        _thaw_residual(residual.encoder, encoder, pixel_unit)
        return residual
    context = ContextVAE(model.image_shape, _context_shape(encoder, decoder), decoder.pixel_input, likelihood)
    _thaw_context(context.decoder, decoder)
    _thaw_convolutions(of_kind(nn.Conv2d, context.encoder), encoder, pixel_unit, OUTPUT_UNIT)
    return context


@torch.no_grad()
def thaw_local(model: Model) -> LocalNetwork:
    """The network of a model for images of any size, in float32, ready to be trained further."""
    frozen = model.decoder
    assert isinstance(frozen, local.LocalNetwork)
    head = len(frozen.heads[0].hidden.bias)
    shape = LocalShape(frozen.rows, frozen.columns, frozen.hidden, len(frozen.blocks), head)
    with torch.random.fork_rng(devices=[]):
        network = LocalNetwork(frozen.channels, shape, LogisticMixture(model.components, model.masses))
    pixel_unit = 1 / frozen.pixel_input.unit
    window = torch.zeros(frozen.window.weight.shape)
    unit = _thaw_layer(window, network.window.bias, frozen.window, pixel_unit, None)
    raw = torch.zeros_like(network.window.weight)
    places = window.reshape(len(window), -1, frozen.channels + 1)
    raw[:, :, network.window_mask.bool()] = places.swapaxes(1, 2)
    network.set_raw_window(raw)
    _thaw_blocks(of_kind(ContextBlock, network.blocks), frozen.blocks, unit)
    both = of_kind(nn.Linear, network.heads), of_kind(nn.Linear, network.outputs)
    for channel, (hidden, output, layers) in enumerate(zip(*both, frozen.heads, strict=True)):
        near = [pixel_unit] * (len(NEAR) * frozen.channels + channel)
        weight = torch.zeros_like(hidden.weight)
        seen = _thaw_layer(weight, hidden.bias, layers.hidden, np.array([unit] * frozen.hidden + near), None)
        network.set_raw(hidden, channel, weight)
        weight = torch.zeros_like(output.weight)
        _thaw_layer(weight, output.bias, layers.output, np.array([seen] * head + near), OUTPUT_UNIT)
        network.set_raw(output, channel, weight)
    return network


def _likelihood(model: Model) -> Likelihood:
    exact: dict[str, Likelihood] = {
        "bernoulli": Bernoulli(),
        "discretized-logistic": DiscretizedLogistic(),
        "channel-linear-logistic": ChannelLinearLogistic(),
        "logistic-mixture": LogisticMixture(model.components, model.masses),
    }
    precision = bernoulli.PRECISION if model.likelihood == "bernoulli" else PRECISION
    return CodedLikelihood(exact[model.likelihood], precision)


def _outputs(layer: Convolution) -> int:
    return len(layer.product.bias)


def _residual_shape(encoder: ConvolutionalNetwork, decoder: ConvolutionalDecoder) -> ResidualShape:
    upward = decoder.upward
    halving = [layer for layer, size in zip(encoder.layers, pairwise(encoder.sizes), strict=True) if size[0] != size[1]]
    doubling = [layer for layer, size in zip(upward.layers, pairwise(upward.sizes), strict=True) if size[0] != size[1]]
    changes = [layer for layer in (*encoder.layers, *upward.layers) if layer.residual]
    return ResidualShape(
        latent_channels=upward.inputs,
        encoder_channels=tuple(map(_outputs, halving)),
        encoder_blocks=sum(layer.residual for layer in encoder.layers),
        decoder_channels=tuple(map(_outputs, (upward.layers[0], *doubling))),
        decoder_blocks=sum(layer.residual for layer in upward.layers),
        hidden=changes[0].channels if changes else 1,
    )


def _context_shape(encoder: ConvolutionalNetwork, decoder: ContextDecoder) -> ContextShape:
    context = decoder.context
    return ContextShape(
        latent_channels=decoder.upward.inputs,
        encoder_channels=tuple(map(_outputs, encoder.layers[:-2])),
        decoder_channels=tuple(map(_outputs, decoder.upward.layers[:-1])),
        features=context.features,
        rows=context.rows,
        columns=context.columns,
        hidden=len(context.window.bias),
        blocks=len(context.blocks),
        head=len(context.heads[0].hidden.bias),
    )


def _thaw_dense(network: nn.Sequential, frozen: Network, unit: float) -> None:
    for module, layer in zip(of_kind(nn.Linear, network), frozen.layers, strict=True):
        last = layer is frozen.layers[-1]
        unit = _thaw_layer(module.weight, module.bias, layer, unit, OUTPUT_UNIT if last else None)


def _thaw_convolutions(
    modules: list[nn.Conv2d], frozen: ConvolutionalNetwork, unit: float, output_unit: float | None
) -> float:
    """Convolutions one after the other; returns the unit of what comes out."""
    for module, layer in zip(modules, frozen.layers, strict=True):
        last = layer is frozen.layers[-1]
        unit = _thaw_layer(module.weight, module.bias, layer.product, unit, output_unit if last else None)
    return unit


def _thaw_residual(network: nn.Sequential, frozen: ConvolutionalNetwork, unit: float) -> None:
    layers = iter(frozen.layers)
    for module in network:
        if isinstance(module, nn.Conv2d):
            wanted = OUTPUT_UNIT if module is network[-1] else None
            unit = _thaw_layer(module.weight, module.bias, next(layers).product, unit, wanted)
        elif isinstance(module, ResidualBlock):
            mixed = _thaw_layer(module.mix.weight, module.mix.bias, next(layers).product, unit, None)
            _thaw_layer(module.change.weight, module.change.bias, next(layers).product, mixed, unit)


def _thaw_context(network: NetworkDecoder, frozen: ContextDecoder) -> None:
    context = frozen.context
    upward = of_kind(nn.Conv2d, network.upward)
    feature_unit = _thaw_convolutions(upward, frozen.upward, LATENT_UNIT, None)
    pixel_unit = 1 / context.pixel_input.unit

    places = context.window.weight.shape[1] - context.features
    window = torch.zeros(len(context.window.bias), places + context.features)
    units = np.array([pixel_unit] * places + [feature_unit] * context.features)
    unit = _thaw_layer(window, network.window.bias, context.window, units, None)
    mask = network.window_mask.bool()
    network.window.weight[:, :, mask] = window[:, :places].reshape(len(window), -1, int(mask.sum()))
    _copy(network.of_features.weight, window[:, places:])

    _thaw_blocks(of_kind(ContextBlock, network.blocks), context.blocks, unit)

    both = of_kind(nn.Conv2d, network.heads), of_kind(nn.Conv2d, network.outputs)
    for channel, (hidden, output, head) in enumerate(zip(*both, context.heads, strict=True)):
        units = np.array([unit] * len(context.window.bias) + [pixel_unit] * channel)
        seen = _thaw_layer(hidden.weight, hidden.bias, head.hidden, units, None)
        near = len(NEAR) * len(context.heads) + channel
        units = np.array([seen] * len(head.hidden.bias) + [pixel_unit] * near)
        _thaw_layer(output.weight, output.bias, head.output, units, OUTPUT_UNIT)


def _thaw_blocks(modules: Sequence[ContextBlock], blocks: Sequence[Block], unit: float) -> None:
    for module, block in zip(modules, blocks, strict=True):
        mix = torch.zeros(block.mix.weight.shape)
        mixed = _thaw_layer(mix, module.mix.bias, block.mix, unit, None)
        mask = module.mix_mask.bool()
        module.mix.weight[:, :, mask] = mix.reshape(len(mix), -1, int(mask.sum()))
        _thaw_layer(module.project.weight, module.project.bias, block.project, mixed, unit)


def _thaw_layer(weight: Tensor, bias: Tensor | None, layer: Linear, unit: Units, output_unit: float | None) -> float:
    """Write what an integer layer does, given the units of what goes into it; returns that of what comes out.

    That of hidden layers is not known any more, nor does it matter: one is taken that makes weights as large as those
    that training starts from.
    """
    assert bias is not None
    product = np.ldexp(layer.weight.astype(np.float64), -layer.shift) / unit
    if output_unit is None:
        usual = math.sqrt(2 / product.shape[1])
        output_unit = 2.0 ** round(math.log2(usual / max(float(np.sqrt((product**2).mean())), 1e-30)))
    half = 1 << (layer.shift - 1) if layer.shift else 0
    _copy(weight, torch.from_numpy(product * output_unit))
    _copy(bias, torch.from_numpy(np.ldexp((layer.bias - half).astype(np.float64), -layer.shift) * output_unit))
    return output_unit


def _copy(to: Tensor, values: Tensor) -> None:
    to.copy_(values.reshape(to.shape))
