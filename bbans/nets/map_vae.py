"""What convolutional variational autoencoders share: the sizes of their maps, and an encoder that sees images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bbans.nets.gaussian import DiagonalGaussian
from bbans.nets.likelihoods import Likelihood
from bbans.nets.vae import VAE, gaussian_of_outputs
from bbans.portable.context import PixelInput


def pixel_channels(pixel_input: PixelInput, x: Tensor) -> Tensor:
    """What ``pixel_input`` makes of pixels ``(images, channels, height, width)``, divided by its unit."""
    parts = [(x - pixel_input.centre) * (pixel_input.gain / pixel_input.unit)]
    parts += [((x > first - 0.5) & (x < last + 0.5)).to(x.dtype) for first, last in pixel_input.ranges]
    return torch.cat(parts, dim=1)


class MapVAE(VAE):
    """For images ``(height, width)`` or ``(height, width, channels)``, whose latents are a map."""

    encoder: nn.Module

    def __init__(
        self,
        image_shape: tuple[int, ...],
        latent_channels: int,
        halvings: int,
        pixel_input: PixelInput,
        likelihood: Likelihood,
    ) -> None:
        """Height and width are halved so often, rounding up."""
        height, width = image_shape[:2]
        self.channels = image_shape[2] if len(image_shape) == 3 else 1
        self.sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in reversed(range(halvings + 1))]
        """Of the maps, from the latents' to the image's."""
        self.latent_shape = (latent_channels, *self.sizes[0])
        latents = latent_channels * self.sizes[0][0] * self.sizes[0][1]
        super().__init__(height * width * self.channels, latents, likelihood)
        self.pixel_input = pixel_input

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.sizes[-1]

    def posterior(self, pixels: Tensor) -> DiagonalGaussian:
        return gaussian_of_outputs(self.encoder(self.encoder_input(pixels)).flatten(1))

    def encoder_input(self, pixels: Tensor) -> Tensor:
        return pixel_channels(self.pixel_input, self.images(pixels))

    def images(self, pixels: Tensor) -> Tensor:
        """As ``(images, channels, height, width)``."""
        return pixels.reshape(len(pixels), *self.size, self.channels).permute(0, 3, 1, 2)
