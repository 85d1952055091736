"""Freezing a residual network: as :mod:`bbans.training.freeze_context`, with a bit more for each activation."""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor, nn

from bbans.errors import ModelError
from bbans.nets.map_vae import pixel_channels
from bbans.nets.residual import Doubling, ResidualBlock, ResidualVAE
from bbans.portable.context import ConvolutionalDecoder
from bbans.portable.convolution import Convolution, ConvolutionalNetwork, Size
from bbans.portable.network import OUTPUT_FRACTION
from bbans.training.freeze_context import fraction_of, round_layer

ACTIVATION_BITS = 12


@torch.no_grad()
def freeze_encoder(network: ResidualVAE, pixels: Tensor) -> ConvolutionalNetwork:
    """The integer twin of the encoder, calibrated on ``pixels``, float ``(images, pixels)``.

    Raises :class:`bbans.errors.ModelError` if exactness can't be proven.
    """
    x = pixel_channels(network.pixel_input, network.images(pixels))
    return _freeze(network.encoder, x, 1 / network.pixel_input.unit, network.pixel_input.magnitude)


@torch.no_grad()
def freeze_decoder(network: ResidualVAE, z: Tensor, latent_unit: float, latent_magnitude: int) -> ConvolutionalDecoder:
    """The integer twin of the decoder, calibrated on latents ``(images, latents)``.

    Latents are integers up to ``latent_magnitude``, in units of ``latent_unit``. Raises
    :class:`bbans.errors.ModelError` if exactness can't be proven.
    """
    x = z.reshape(-1, *network.latent_shape)
    return ConvolutionalDecoder(_freeze(network.decoder, x, latent_unit, latent_magnitude), network.pixel_input)


def _freeze(network: nn.Sequential, x: Tensor, unit: float, magnitude: int) -> ConvolutionalNetwork:
    """Convolutions with a ReLU after each but the last, residual blocks and doublings between them."""
    frozen = _Frozen(_size(x), unit, magnitude)
    modules = list(network)
    for index, module in enumerate(modules):
        if isinstance(module, Doubling):
            x = module(x)
        elif isinstance(module, nn.Conv2d):
            x = module(x)
            if index == len(modules) - 1:
                frozen.add(module, _size(x), OUTPUT_FRACTION, output=True)
                break
            # Maps that are added to each other are in the same unit.
            blocks = list(takewhile(lambda later: isinstance(later, ResidualBlock), modules[index + 2 :]))
            maps = [torch.relu(x)]
            for block in blocks:
                maps.append(block(maps[-1]))
            fraction = fraction_of(torch.cat(maps), ACTIVATION_BITS)
            frozen.add(module, _size(x), fraction)
            for block, before in zip(blocks, maps, strict=False):
                assert isinstance(block, ResidualBlock)
                frozen.add(block.mix, _size(x), fraction_of(block.mixed(before), ACTIVATION_BITS))
                frozen.add(block.change, _size(x), fraction, residual=True)
            x = maps[-1]
        elif not isinstance(module, nn.ReLU | ResidualBlock):
            raise ModelError(f"can freeze convolutions, doublings and residual blocks, got {module} at {index}")
    return ConvolutionalNetwork(magnitude, tuple(frozen.sizes), tuple(frozen.layers))


class _Frozen:
    """The layers so far, and what comes out of the last."""

    def __init__(self, size: Size, unit: float, magnitude: int) -> None:
        self.sizes = [size]
        self.layers: list[Convolution] = []
        self.unit, self.magnitude = unit, magnitude

    def add(
        self, module: nn.Conv2d, size: Size, fraction: int, *, residual: bool = False, output: bool = False
    ) -> None:
        """A convolution to a map of this size, whose results are multiples of ``2**-fraction``."""
        product = round_layer(
            module.weight.flatten(1).double().numpy() * self.unit,
            module.bias,
            fraction,
            self.magnitude,
            bits=ACTIVATION_BITS,
            signed=residual,
            output=output,
        )
        self.layers.append(Convolution(product, module.kernel_size[0], residual))
        self.sizes.append(size)
        self.unit, self.magnitude = 2.0**-fraction, product.output_magnitude


def _size(x: Tensor) -> Size:
    return (x.shape[2], x.shape[3])
