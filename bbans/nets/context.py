"""A convolutional variational autoencoder whose likelihood also sees the pixels that are already coded.

Latents say what an image looks like from afar; its neighbours say more about a pixel than they can. So the decoder
turns a map of latents into *features* at full resolution, and a *context network* turns the features of a pixel, a
window of the pixels before it (in the order of reading: rows above, and what lies to the left), and what its earlier
layers made of the neighbours, into the parameters of its distribution. The channels of a pixel come one after the
other, each seeing those before it.

No layer knows the size of an image. Everything that a pixel depends on lies in rows above it, at most ``columns`` to
the right, or to its left: that is what lets a decoder go along diagonals (:mod:`bbans.portable.context`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbans.nets.likelihoods import Likelihood
from bbans.nets.map_vae import MapVAE, pixel_channels
from bbans.portable.context import NEAR, PixelInput

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class ContextShape:
    """The sizes of the networks."""

    latent_channels: int = 2
    encoder_channels: tuple[int, ...] = (32, 64, 64)
    """Of the layers of the encoder: each halves height and width."""
    decoder_channels: tuple[int, ...] = (64, 48, 32)
    """Of the layers of the decoder: after each, height and width are doubled."""
    features: int = 16
    """That the decoder gives for each pixel."""
    rows: int = 5
    """Rows of the window above a pixel..."""
    columns: int = 5
    """...and columns to either side of it."""
    hidden: int = 48
    """Channels of the context network."""
    blocks: int = 1
    """How often it looks at what it made of the neighbours."""
    head: int = 32
    """Units for each channel of a pixel, the last before its distribution."""

    def __post_init__(self) -> None:
        if len(self.encoder_channels) != len(self.decoder_channels):
            raise ValueError("an encoder and a decoder need as many layers as each other")


class ContextVAE(MapVAE):
    """For images ``(height, width)`` or ``(height, width, channels)``."""

    encoder: nn.Sequential
    decoder: ContextDecoder

    def __init__(
        self, image_shape: tuple[int, ...], shape: ContextShape, pixel_input: PixelInput, likelihood: Likelihood
    ) -> None:
        super().__init__(image_shape, shape.latent_channels, len(shape.encoder_channels), pixel_input, likelihood)
        inputs = pixel_input.channels(self.channels)
        self.encoder = convolutional_encoder(inputs, shape)
        self.decoder = ContextDecoder(self.channels, inputs, self.sizes, shape, pixel_input, likelihood)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def log_likelihood(self, pixels: Tensor, z: Tensor) -> Tensor:
        x = self.images(pixels)
        outputs = self.decoder(z.reshape(-1, *self.latent_shape), x)
        parts = [
            self.likelihood.log_prob(part.flatten(1), x[:, channel].flatten(1)).sum(1)
            for channel, part in enumerate(outputs)
        ]
        return torch.stack(parts).sum(0)

    @torch.no_grad()
    def dream(self, z: Tensor, noise: torch.Generator) -> Tensor:
        features = self.decoder.features(z.reshape(-1, *self.latent_shape))
        x = torch.zeros(len(z), self.channels, *self.size, device=z.device)
        for row in range(self.size[0]):
            for column in range(self.size[1]):
                for channel in range(self.channels):
                    outputs = self.decoder.distributions(x[:, :, : row + 1], features[:, :, : row + 1])[channel]
                    x[:, channel, row, column] = self.likelihood.sample(outputs[:, :, row, column], noise)[:, 0]
        return x.permute(0, 2, 3, 1).flatten(1)


def of_kind(kind: type[Layer], layers: Iterable[nn.Module]) -> list[Layer]:
    """The layers that are of a kind, known to be."""
    return [layer for layer in layers if isinstance(layer, kind)]


def convolutional_encoder(inputs: int, shape: ContextShape) -> nn.Sequential:
    """Convolutions that halve height and width, then one that doesn't, then the posterior's parameters."""
    layers: list[nn.Module] = []
    before = inputs
    for index, after in enumerate(shape.encoder_channels):
        kernel = 5 if index == 0 else 3
        layers += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
        before = after
    layers += [nn.Conv2d(before, before, 3, padding=1), nn.ReLU(), nn.Conv2d(before, 2 * shape.latent_channels, 1)]
    return nn.Sequential(*layers)


class ContextDecoder(nn.Module):
    """From latents and pixels to what the likelihood needs to know of each pixel."""

    def __init__(
        self,
        channels: int,
        inputs: int,
        sizes: list[tuple[int, int]],
        shape: ContextShape,
        pixel_input: PixelInput,
        likelihood: Likelihood,
    ) -> None:
        """``sizes`` are height and width of the maps, from the latents' to the image's."""
        super().__init__()
        self.channels = channels
        self.sizes = sizes
        self.pixel_input = pixel_input
        widths = [shape.latent_channels, *shape.decoder_channels, shape.features]
        self.upward = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.rows, self.columns = shape.rows, shape.columns
        # One channel more says what lies inside the image.
        self.window = nn.Conv2d(inputs + 1, shape.hidden, (shape.rows + 1, 2 * shape.columns + 1))
        self.window_mask: Tensor
        self.register_buffer("window_mask", before(shape.rows + 1, shape.columns, 0), persistent=False)
        self.of_features = nn.Conv2d(shape.features, shape.hidden, 1, bias=False)
        self.blocks = nn.ModuleList(ContextBlock(shape.hidden) for _ in range(shape.blocks))
        seen = [len(NEAR) * channels + channel for channel in range(channels)]
        self.heads = nn.ModuleList(nn.Conv2d(shape.hidden + channel, shape.head, 1) for channel in range(channels))
        self.outputs = nn.ModuleList(nn.Conv2d(shape.head + near, likelihood.outputs_per_pixel, 1) for near in seen)
        for channel, output in enumerate(of_kind(nn.Conv2d, self.outputs)):
            self._start(output, channel, shape.head, likelihood)

    def features(self, z: Tensor) -> Tensor:
        """From latents ``(images, latent channels, height, width)`` to features at the image's size."""
        h = z
        for index, layer in enumerate(self.upward):
            if index:
                height, width = self.sizes[index]
                h = functional.interpolate(torch.relu(h), scale_factor=2)[:, :, :height, :width]
            h = layer(h)
        return h

    def distributions(self, x: Tensor, features: Tensor) -> list[Tensor]:
        """For each channel ``(images, outputs of the likelihood, height, width)``, where no output depends on its own
        pixel or one after it.
        """
        pixels = pixel_channels(self.pixel_input, x)
        h = self.hidden(pixels, features)[0][-1]
        values = pixels[:, : self.channels]
        near = [moved(values, rows, columns) for rows, columns in NEAR]
        parts = []
        for channel, (head, output) in enumerate(zip(self.heads, self.outputs, strict=True)):
            earlier = values[:, :channel]
            hidden = torch.relu(head(torch.cat([h, earlier], dim=1)))
            parts.append(output(torch.cat([hidden, *near, earlier], dim=1)))
        return parts

    def hidden(self, pixels: Tensor, features: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What is known of each pixel from what is before it, before the first block and after each; and what the
        blocks made of the neighbours.
        """
        inside = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        padded = functional.pad(inside, (self.columns, self.columns, self.rows, 0))
        window = functional.conv2d(padded, self.window.weight * self.window_mask, self.window.bias)
        known = [torch.relu(window + self.of_features(features))]
        mixed = []
        for block in of_kind(ContextBlock, self.blocks):
            mixed.append(block.mixed(known[-1]))
            known.append(torch.relu(known[-1] + block.project(mixed[-1])))
        return known, mixed

    def forward(self, z: Tensor, x: Tensor) -> list[Tensor]:
        return self.distributions(x, self.features(z))

    def _start(self, output: nn.Conv2d, channel: int, head: int, likelihood: Likelihood) -> None:
        """Expect of a pixel, at first, its left neighbour, moved by what the channels before it moved by."""
        with torch.no_grad():
            output.weight *= 0.1
            assert output.bias is not None
            output.bias.copy_(torch.tensor(likelihood.initial_bias()))
            means = output.weight[likelihood.mean_outputs]
            means[:, head:] = 0.0
            means[:, head + channel] = 1.0
            for earlier in range(channel):
                means[:, head + earlier] = -1.0 / channel
                means[:, head + len(NEAR) * self.channels + earlier] = 1.0 / channel
            output.weight[likelihood.mean_outputs] = means
            output.bias[likelihood.mean_outputs] += (
                self.pixel_input.centre * self.pixel_input.gain / self.pixel_input.unit
            )


class ContextBlock(nn.Module):
    """What a pixel and the four neighbours before it were found to be, added to what the pixel is found to be."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(hidden, hidden, (2, 3))
        self.project = nn.Conv2d(hidden, hidden, 1)
        self.mix_mask: Tensor
        self.register_buffer("mix_mask", before(2, 1, 1), persistent=False)
        with torch.no_grad():
            self.project.weight *= 0.3

    def mixed(self, h: Tensor) -> Tensor:
        """What a pixel and the neighbours before it make together."""
        padded = functional.pad(h, (1, 1, 1, 0))
        return torch.relu(functional.conv2d(padded, self.mix.weight * self.mix_mask, self.mix.bias))

    def forward(self, h: Tensor) -> Tensor:
        return torch.relu(h + self.project(self.mixed(h)))


def before(rows: int, columns: int, own: int) -> Tensor:
    """1 for what comes before a pixel in a window that ends in its row (and for itself if ``own``), 0 for the rest."""
    mask = torch.ones(rows, 2 * columns + 1)
    mask[-1, columns + own :] = 0.0
    return mask


def moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """For each pixel the one so many rows and columns away; 0 where there is none."""
    height, width = x.shape[2:]
    left, right = max(0, -columns), max(0, columns)
    padded = functional.pad(x, (left, right, -rows, 0))
    return padded[:, :, :height, columns + left : columns + left + width]
