"""Freezing a local network: as :mod:`bbans.training.freeze_context`, with the weights that differences stand for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bbans.nets.context import ContextBlock, of_kind
from bbans.nets.local import CENTRE, UNIT, LocalNetwork
from bbans.portable import local
from bbans.portable.context import NEAR, Block, Head, PixelInput
from bbans.portable.network import OUTPUT_FRACTION
from bbans.training.freeze_context import fraction_of, round_layer

Matrix = NDArray[np.float64]
ACTIVATION_BITS = 13
"""Two more than where images are small: photographs are smoother, and what there is to tell is finer."""


@torch.no_grad()
def freeze_local(network: LocalNetwork, images: Tensor, bits: int = ACTIVATION_BITS) -> local.LocalNetwork:
    """The integer twin, calibrated on images ``(images, channels, height, width)`` with levels 0 to 255.

    Raises :class:`bbans.errors.ModelError` if exactness can't be proven.
    """
    pixel_input = PixelInput(256, CENTRE, gain=1, unit=UNIT, ranges=())
    x, pixel_unit, channels = (images - CENTRE) / UNIT, 1 / UNIT, network.channels
    hidden, mixed = network.hidden(x)
    fraction = fraction_of(torch.cat(hidden), bits)
    unit = 2.0**-fraction

    weight = network.raw_window().double()[:, :, network.window_mask.bool()]  # outputs, channels, places
    window = round_layer(
        _matrix(weight.swapaxes(1, 2)) * pixel_unit, network.window.bias, fraction, pixel_input.magnitude, bits=bits
    )
    blocks = []
    for block, mix in zip(of_kind(ContextBlock, network.blocks), mixed, strict=True):
        mix_fraction = fraction_of(mix, bits)
        mix_weight = _matrix(block.mix.weight.double()[:, :, block.mix_mask.bool()]) * unit
        first = round_layer(mix_weight, block.mix.bias, mix_fraction, window.output_magnitude, bits=bits)
        project_weight = _matrix(block.project.weight.double()) * 2.0**-mix_fraction
        second = round_layer(
            project_weight, block.project.bias, fraction, first.output_magnitude, bits=bits, signed=True
        )
        blocks.append(Block(first, second))

    heads = []
    known, seen = hidden[-1].permute(0, 2, 3, 1), network.seen(x)
    both = of_kind(nn.Linear, network.heads), of_kind(nn.Linear, network.outputs)
    for channel, (head, output) in enumerate(zip(*both, strict=True)):
        near = len(NEAR) * channels + channel
        raw = network.raw(head, channel)
        units = torch.relu(torch.cat([known, seen[..., :near]], dim=3) @ raw.T + head.bias)
        units_fraction = fraction_of(units, bits)
        scale = np.array([unit] * known.shape[3] + [pixel_unit] * near)
        magnitude = max(window.output_magnitude, pixel_input.magnitude)
        first = round_layer(_matrix(raw.double()) * scale, head.bias, units_fraction, magnitude, bits=bits)
        scale = np.array([2.0**-units_fraction] * units.shape[3] + [pixel_unit] * near)
        magnitude = max(first.output_magnitude, pixel_input.magnitude)
        weight = _matrix(network.raw(output, channel).double()) * scale
        heads.append(Head(first, round_layer(weight, output.bias, OUTPUT_FRACTION, magnitude, output=True)))
    shape = network.shape
    return local.LocalNetwork(pixel_input, shape.rows, shape.columns, window, tuple(blocks), tuple(heads))


def _matrix(weight: Tensor) -> Matrix:
    matrix: Matrix = weight.flatten(1).numpy()
    return matrix
