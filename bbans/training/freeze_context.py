"""Freezing a convolutional network with context: as :mod:`bbans.portable.freeze`, in fewer bits.

These networks are evaluated for every pixel, so they are made for products in float32: activations get fewer bits, and
weights as many as keep every sum of a layer below 2**24. Only the last layers, whose results need many bits, get all
of them, and float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bbans.errors import ModelError
from bbans.nets.context import ContextBlock, ContextVAE, of_kind
from bbans.nets.map_vae import pixel_channels
from bbans.portable.context import NEAR, Block, ContextDecoder, ContextNetwork, Head
from bbans.portable.convolution import Convolution, ConvolutionalNetwork, halved
from bbans.portable.freeze import OUTPUT_MAXIMUM, WEIGHT_MAXIMUM
from bbans.portable.network import OUTPUT_FRACTION, Linear

ACTIVATION_BITS = 11
LARGEST_SUM = (1 << 31) - 1
"""Compiled code sums in 32 bits; NumPy takes float64. Weights so coarse that float32 would hold the sums cost colour
images 0.2% of their rate.
"""
HEADROOM = 1.25
"""Activations may become larger than they were in calibration by so much before they are clipped."""

Matrix = NDArray[np.float64]


@torch.no_grad()
def freeze_encoder(network: ContextVAE, pixels: Tensor) -> ConvolutionalNetwork:
    """The integer twin of the encoder, calibrated on ``pixels``, float ``(images, pixels)``.

    Raises :class:`bbans.errors.ModelError` if exactness can't be proven.
    """
    x = pixel_channels(network.pixel_input, network.images(pixels))
    modules = list(network.encoder)
    layers: list[Convolution] = []
    sizes = [network.size]
    unit, magnitude = 1 / network.pixel_input.unit, network.pixel_input.magnitude
    for index, module in enumerate(modules):
        if not isinstance(module, nn.Conv2d):
            continue
        last = index == len(modules) - 1
        x = module(x) if last else torch.relu(module(x))
        fraction = OUTPUT_FRACTION if last else fraction_of(x)
        weight = module.weight.flatten(1).double().numpy() * unit
        layer = round_layer(weight, module.bias, fraction, magnitude, output=last)
        layers.append(Convolution(layer, module.kernel_size[0]))
        sizes.append(halved(sizes[-1]) if module.stride[0] == 2 else sizes[-1])
        unit, magnitude = 2.0**-fraction, layer.output_magnitude
    return ConvolutionalNetwork(network.pixel_input.magnitude, tuple(sizes), tuple(layers))


@torch.no_grad()
def freeze_decoder(
    network: ContextVAE, z: Tensor, pixels: Tensor, latent_unit: float, latent_magnitude: int
) -> ContextDecoder:
    """The integer twin of the decoder, calibrated on latents ``(images, latents)`` and their pixels.

    Latents are integers up to ``latent_magnitude``, in units of ``latent_unit``. Raises
    :class:`bbans.errors.ModelError` if exactness can't be proven.
    """
    decoder, pixel_input = network.decoder, network.pixel_input
    upward, features, feature_unit = _freeze_upward(network, z, latent_unit, latent_magnitude)
    feature_magnitude = upward.layers[-1].product.output_magnitude

    x = pixel_channels(pixel_input, network.images(pixels))
    hidden, mixed = decoder.hidden(x, features)
    fraction = fraction_of(torch.cat(hidden))
    unit = 2.0**-fraction
    pixel_unit = 1 / pixel_input.unit

    mask = decoder.window_mask.bool()
    window_weight = decoder.window.weight.double()[:, :, mask].flatten(1).numpy() * pixel_unit
    of_features = decoder.of_features.weight.double().flatten(1).numpy() * feature_unit
    window = round_layer(
        np.concatenate([window_weight, of_features], axis=1),
        decoder.window.bias,
        fraction,
        max(pixel_input.magnitude, feature_magnitude),
    )
    blocks = []
    for block, mix in zip(of_kind(ContextBlock, decoder.blocks), mixed, strict=True):
        mix_fraction = fraction_of(mix)
        mix_weight = block.mix.weight.double()[:, :, block.mix_mask.bool()].flatten(1).numpy() * unit
        first = round_layer(mix_weight, block.mix.bias, mix_fraction, window.output_magnitude)
        project_weight = block.project.weight.double().flatten(1).numpy() * 2.0**-mix_fraction
        second = round_layer(project_weight, block.project.bias, fraction, first.output_magnitude, signed=True)
        blocks.append(Block(first, second))

    heads = []
    channels = decoder.channels
    both = of_kind(nn.Conv2d, decoder.heads), of_kind(nn.Conv2d, decoder.outputs)
    for channel, (head, output) in enumerate(zip(*both, strict=True)):
        seen = torch.relu(head(torch.cat([hidden[-1], x[:, :channel]], dim=1)))
        seen_fraction = fraction_of(seen)
        scale = np.array([unit] * hidden[-1].shape[1] + [pixel_unit] * channel)
        magnitude = max(window.output_magnitude, pixel_input.magnitude)
        first = round_layer(head.weight.double().flatten(1).numpy() * scale, head.bias, seen_fraction, magnitude)
        scale = np.array([2.0**-seen_fraction] * seen.shape[1] + [pixel_unit] * (len(NEAR) * channels + channel))
        magnitude = max(first.output_magnitude, pixel_input.magnitude)
        weight = output.weight.double().flatten(1).numpy() * scale
        heads.append(Head(first, round_layer(weight, output.bias, OUTPUT_FRACTION, magnitude, output=True)))
    context = ContextNetwork(
        pixel_input,
        decoder.rows,
        decoder.columns,
        window,
        feature_magnitude,
        upward.outputs,
        tuple(blocks),
        tuple(heads),
    )
    return ContextDecoder(upward, context)


def _freeze_upward(
    network: ContextVAE, z: Tensor, latent_unit: float, latent_magnitude: int
) -> tuple[ConvolutionalNetwork, Tensor, float]:
    """The convolutions from latents to features, the features, and their unit."""
    decoder = network.decoder
    h = z.reshape(-1, *network.latent_shape)
    unit, magnitude = latent_unit, latent_magnitude
    layers: list[Convolution] = []
    sizes = [decoder.sizes[0]]
    for index, module in enumerate(of_kind(nn.Conv2d, decoder.upward)):
        if index:
            height, width = decoder.sizes[index]
            h = functional.interpolate(h, scale_factor=2)[:, :, :height, :width]
        h = module(h)
        last = index == len(decoder.upward) - 1
        if not last:
            h = torch.relu(h)
        fraction = fraction_of(h)
        weight = module.weight.double().flatten(1).numpy() * unit
        layer = round_layer(weight, module.bias, fraction, magnitude, signed=last)
        layers.append(Convolution(layer, module.kernel_size[0]))
        sizes.append(decoder.sizes[index])
        unit, magnitude = 2.0**-fraction, layer.output_magnitude
    return ConvolutionalNetwork(latent_magnitude, tuple(sizes), tuple(layers)), h, unit


def fraction_of(x: Tensor, bits: int = ACTIVATION_BITS) -> int:
    """How many of an activation's bits are behind the point: not more for what is hardly ever anything but 0."""
    return bits - math.ceil(math.log2(HEADROOM * max(float(x.abs().max()), 2.0**-4)))


def round_layer(
    weight: Matrix,
    bias: Tensor | None,
    fraction: int,
    input_magnitude: int,
    *,
    bits: int = ACTIVATION_BITS,
    signed: bool = False,
    output: bool = False,
) -> Linear:
    """Round a layer whose results, of so many bits, are to be multiples of ``2**-fraction``, for integer inputs.

    Its results are not below 0 unless ``signed`` or ``output``, and its sums at most :data:`LARGEST_SUM`.
    """
    assert bias is not None
    offset = bias.double().numpy()
    largest = OUTPUT_MAXIMUM if output else (1 << bits) - 1
    precision = math.floor(math.log2(WEIGHT_MAXIMUM / np.abs(weight).max()))
    while True:
        shift = precision - fraction
        if shift < 1:
            raise ModelError(f"the weights are too large to be frozen: a shift of {shift} bits is left")
        layer = Linear(
            np.rint(np.ldexp(weight, precision)).astype(np.int16),
            np.rint(np.ldexp(offset, precision)).astype(np.int64) + (1 << (shift - 1)),
            shift,
            -largest if signed or output else 0,
            largest,
        )
        if layer.bound(input_magnitude) <= LARGEST_SUM:
            return layer
        precision -= 1
