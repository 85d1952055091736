"""A fully convolutional residual variational autoencoder, as the GG paper has for CIFAR-10.

The encoder halves height and width a few times, and then adds residual blocks to what it has; the decoder begins with
residual blocks and doubles its way back. Given their latents, the pixels of different positions are independent; what
the channels of a position know of each other is the likelihood's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbans.nets.context import of_kind
from bbans.nets.likelihoods import Likelihood
from bbans.nets.map_vae import MapVAE
from bbans.portable.context import PixelInput


@dataclass(frozen=True)
class ResidualShape:
    """The sizes of the networks."""

    latent_channels: int = 4
    encoder_channels: tuple[int, ...] = (48, 96)
    """Of the layers of the encoder that halve height and width; its residual blocks have as many as the last..."""
    encoder_blocks: int = 2
    """...and are so many."""
    decoder_channels: tuple[int, ...] = (96, 48, 32)
    """Of the decoder at each size, from the latents' to the image's; its blocks have as many as the first..."""
    decoder_blocks: int = 2
    """...and are so many."""
    hidden: int = 64
    """Channels between the two convolutions of a residual block."""

    def __post_init__(self) -> None:
        if not self.encoder_channels or len(self.decoder_channels) != len(self.encoder_channels) + 1:
            raise ValueError("a decoder needs channels for every size: one more than an encoder, which needs one")


class ResidualVAE(MapVAE):
    """For images ``(height, width)`` or ``(height, width, channels)``."""

    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(
        self, image_shape: tuple[int, ...], shape: ResidualShape, pixel_input: PixelInput, likelihood: Likelihood
    ) -> None:
        super().__init__(image_shape, shape.latent_channels, len(shape.encoder_channels), pixel_input, likelihood)
        self.encoder = residual_encoder(pixel_input.channels(self.channels), shape)
        self.decoder = residual_decoder(self.sizes, shape, likelihood.outputs_per_pixel * self.channels)
        self._start()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def _start(self) -> None:
        """Keep the size of what goes through the layers, and expect of a pixel, at first, what is 0 to the network."""
        for layer in of_kind(nn.Conv2d, self.modules()):
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            layer.bias.zero_()
        for block in of_kind(ResidualBlock, self.modules()):
            block.change.weight *= 0.3
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight *= 0.1
        bias = torch.tensor(self.likelihood.initial_bias())
        bias[self.likelihood.mean_outputs] += self.pixel_input.centre * self.pixel_input.gain / self.pixel_input.unit
        last.bias.copy_(bias.repeat_interleave(self.channels))

    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        return self.likelihood.log_prob(self.outputs(z), self.images(pixels).flatten(1)).sum(1)

    @torch.no_grad()
    def dream(self, z: Tensor, noise: torch.Generator) -> Tensor:
        x = self.likelihood.sample(self.outputs(z), noise)
        return x.reshape(len(x), self.channels, -1).swapaxes(1, 2).flatten(1)

    def outputs(self, z: Tensor) -> Tensor:
        """What the likelihood takes, ``(images, outputs)``: kinds outermost, then channels, then positions."""
        outputs: Tensor = self.decoder(z.reshape(-1, *self.latent_shape))
        return outputs.flatten(1)


def residual_encoder(inputs: int, shape: ResidualShape) -> nn.Sequential:
    """Convolutions that halve height and width, residual blocks, then the posterior's parameters."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise((inputs, *shape.encoder_channels))):
        kernel = 5 if index == 0 else 3
        layers += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
    channels = shape.encoder_channels[-1]
    layers += [ResidualBlock(channels, shape.hidden) for _ in range(shape.encoder_blocks)]
    return nn.Sequential(*layers, nn.Conv2d(channels, 2 * shape.latent_channels, 1))


def residual_decoder(sizes: list[tuple[int, int]], shape: ResidualShape, outputs: int) -> nn.Sequential:
    """A convolution of the latents, residual blocks, doublings with a convolution each, then the outputs.

    ``sizes`` are height and width of the maps, from the latents' to the image's.
    """
    channels = shape.decoder_channels
    layers: list[nn.Module] = [nn.Conv2d(shape.latent_channels, channels[0], 3, padding=1), nn.ReLU()]
    layers += [ResidualBlock(channels[0], shape.hidden) for _ in range(shape.decoder_blocks)]
    for size, (before, after) in zip(sizes[1:], pairwise(channels), strict=True):
        layers += [Doubling(size), nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], outputs, 3, padding=1))


class ResidualBlock(nn.Module):
    """What two convolutions make of a map, added to it; maps are not below 0."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, hidden, 3, padding=1)
        self.change = nn.Conv2d(hidden, channels, 3, padding=1)

    def mixed(self, h: Tensor) -> Tensor:
        """What the first convolution makes."""
        return torch.relu(self.mix(h))

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(h + self.change(self.mixed(h)))


class Doubling(nn.Module):
    """A map twice as high and wide, each position repeated; cut to ``size``, which halves round up to."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        return functional.interpolate(h, scale_factor=2)[:, :, : self.size[0], : self.size[1]]
