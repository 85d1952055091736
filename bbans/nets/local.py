"""A network that tells a pixel's distribution from the pixels before it, for images of any height and width.

It is the context network of :mod:`bbans.nets.context` without latents, and sees more of the neighbours where a pixel's
channels are told apart. Source: M. Zhang, A. Zhang, S. McDonagh, "On the Out-of-distribution Generalization of
Probabilistic Image Modelling" (2021), of which it is a relative: local context alone carries over to images of any
kind.

Neighbours are given as differences to the left one. That is the same network as one that is given their values, and
frozen as such; but differences of a few levels are most of what there is to learn in a photograph, and learnt sooner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bbans.nets.context import ContextBlock, before, moved, of_kind
from bbans.nets.likelihoods import Likelihood
from bbans.portable.context import NEAR

CENTRE = 128
UNIT = 128
"""Levels that are 1 to the network; it is given them as integers, and divides."""
DIFFERENCE_GAIN = 8.0
"""By how much more a difference of levels counts than a level: of a photograph's, most are a few levels large."""


@dataclass(frozen=True)
class LocalShape:
    """The sizes of the network."""

    rows: int = 3
    """Rows of the window above a pixel..."""
    columns: int = 3
    """...and columns to either side of it."""
    hidden: int = 64
    """Channels of what is known of a pixel."""
    blocks: int = 2
    """How often the network looks at what it made of the neighbours."""
    head: int = 48
    """Units for each channel of a pixel, the last before its distribution."""


class LocalNetwork(nn.Module):
    """For images of so many channels, 8 bits each."""

    def __init__(self, channels: int, shape: LocalShape, likelihood: Likelihood) -> None:
        super().__init__()
        self.channels, self.shape, self.likelihood = channels, shape, likelihood
        # One channel more says what lies inside the image.
        self.window = nn.Conv2d(channels + 1, shape.hidden, (shape.rows + 1, 2 * shape.columns + 1))
        self.window_mask: Tensor
        self.register_buffer("window_mask", before(shape.rows + 1, shape.columns, 0), persistent=False)
        self.blocks = nn.ModuleList(ContextBlock(shape.hidden) for _ in range(shape.blocks))
        near = [len(NEAR) * channels + channel for channel in range(channels)]
        self.heads = nn.ModuleList(nn.Linear(shape.hidden + seen, shape.head) for seen in near)
        self.outputs = nn.ModuleList(nn.Linear(shape.head + seen, likelihood.outputs_per_pixel) for seen in near)
        for channel, output in enumerate(of_kind(nn.Linear, self.outputs)):
            self._start(output, channel)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Log-probability (nats) of each value of images ``(images, channels, height, width)``, each of its levels
        0 to 255: ``(images, height, width, channels)``.
        """
        parts = []
        for channel, outputs in enumerate(self.distributions(x)):
            kinds = outputs.flatten(0, 2).T[None].flatten(1)
            found = self.likelihood.log_prob(kinds, x[:, channel].reshape(1, -1))
            parts.append(found.reshape(len(x), *x.shape[2:]))
        return torch.stack(parts, dim=3)

    def distributions(self, x: Tensor) -> list[Tensor]:
        """For each channel ``(images, height, width, outputs of the likelihood)``, where no output depends on its own
        value or one after it.
        """
        pixels = (x - CENTRE) / UNIT
        h = self.hidden(pixels)[0][-1].permute(0, 2, 3, 1)
        seen = self.seen(pixels)
        parts = []
        layers = of_kind(nn.Linear, self.heads), of_kind(nn.Linear, self.outputs)
        for channel, (head, output) in enumerate(zip(*layers, strict=True)):
            near = seen[..., : len(NEAR) * self.channels + channel]
            known = torch.relu(functional.linear(torch.cat([h, near], dim=3), self.raw(head, channel), head.bias))
            parts.append(functional.linear(torch.cat([known, near], dim=3), self.raw(output, channel), output.bias))
        return parts

    def hidden(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What is known of each pixel from what is before it, before the first block and after each; and what the
        blocks made of the neighbours.
        """
        columns = self.shape.columns
        inside = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        padded = functional.pad(inside, (columns, columns, self.shape.rows, 0))
        known = [torch.relu(functional.conv2d(padded, self.raw_window(), self.window.bias))]
        mixed = []
        for block in of_kind(ContextBlock, self.blocks):
            mixed.append(block.mixed(known[-1]))
            known.append(torch.relu(known[-1] + block.project(mixed[-1])))
        return known, mixed

    def seen(self, pixels: Tensor) -> Tensor:
        """What a head may see of a pixel, channels last: values near by, place after place, and its own."""
        near = [moved(pixels, rows, columns) for rows, columns in NEAR]
        return torch.cat([*near, pixels], dim=1).permute(0, 2, 3, 1)

    def raw_window(self) -> Tensor:
        """The window's weights for values, not differences."""
        weight = self.window.weight * self.window_mask
        values = DIFFERENCE_GAIN * weight[:, : self.channels]
        left = (self.shape.rows, self.shape.columns - 1)
        own = weight[:, : self.channels, left[0], left[1]]
        others = values.sum((2, 3)) - values[:, :, left[0], left[1]]
        place = torch.zeros_like(self.window_mask)
        place[left] = 1.0
        values = values * (1.0 - place) + (own - others)[:, :, None, None] * place
        return torch.cat([values, weight[:, self.channels :]], dim=1)

    def raw(self, layer: nn.Linear, channel: int) -> Tensor:
        """The weights of a head's layer for values, not differences; :data:`bbans.portable.context.NEAR` begins with
        the left neighbour.
        """
        weight, near = layer.weight, len(NEAR) * self.channels + channel
        units, left = weight[:, :-near], weight[:, -near : self.channels - near or None]
        others = DIFFERENCE_GAIN * weight[:, self.channels - near :]
        return torch.cat([units, left - self._beside(others, channel), others], dim=1)

    def set_raw_window(self, raw: Tensor) -> None:
        """The inverse of :meth:`raw_window`."""
        left = (self.shape.rows, self.shape.columns - 1)
        values = raw[:, : self.channels] * self.window_mask
        differences = values / DIFFERENCE_GAIN
        differences[:, :, left[0], left[1]] = values.sum((2, 3))
        self.window.weight.copy_(torch.cat([differences, raw[:, self.channels :]], dim=1))

    def set_raw(self, layer: nn.Linear, channel: int, raw: Tensor) -> None:
        """The inverse of :meth:`raw`."""
        near = len(NEAR) * self.channels + channel
        units, left, others = (
            raw[:, :-near],
            raw[:, -near : self.channels - near or None],
            raw[:, self.channels - near :],
        )
        layer.weight.copy_(torch.cat([units, left + self._beside(others, channel), others / DIFFERENCE_GAIN], dim=1))

    def _beside(self, others: Tensor, channel: int) -> Tensor:
        """Of weights for what is near but the left neighbour, the sum for each channel."""
        above = (len(NEAR) - 1) * self.channels
        earlier = functional.pad(others[:, above:], (0, self.channels - channel))
        return others[:, :above].reshape(len(others), -1, self.channels).sum(1) + earlier

    def _start(self, output: nn.Linear, channel: int) -> None:
        """Expect of a value, at first, its left neighbour, moved by what the channels before it moved by."""
        with torch.no_grad():
            output.weight *= 0.1
            output.bias.copy_(torch.tensor(self.likelihood.initial_bias()))
            means = output.weight[self.likelihood.mean_outputs]
            means[:, self.shape.head :] = 0.0
            means[:, self.shape.head + channel] = 1.0
            for earlier in range(channel):
                means[:, self.shape.head + len(NEAR) * self.channels + earlier] = 1.0 / channel / DIFFERENCE_GAIN
            output.weight[self.likelihood.mean_outputs] = means
