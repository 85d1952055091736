"""Encoders fitted to a frozen decoder, to see what a better one would save on new images.

Each starts as the model's own encoder and takes the same number of steps on the same training images: that encoder as
it is, one that is three times as wide, and that encoder on a mixture of images and dreams (reverse half-asleep, GG-17).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from bbans.analysis.run import Analysis, Images
from bbans.nets import VAE
from bbans.nets.residual import ResidualBlock
from bbans.sampling import sample_images
from bbans.training.objectives import Objective, from_bank, reverse_half_asleep, wake

FURTHER, LARGER, HALF_ASLEEP = "fitted further", "three times as wide", "fitted half-asleep"
WIDTH = 2
"""What is put beside an encoder to make a larger one is so many times as wide."""
BATCH = 100
DREAMS = 2000


@dataclass(frozen=True)
class EncoderFitting:
    """How encoders are fitted: Adam's steps, at a rate that falls to 0."""

    steps: int = 1000
    learning_rate: float = 3e-4


def fit_encoders(
    analysis: Analysis, images: Images, how: EncoderFitting, progress: Callable[[], object]
) -> dict[str, VAE]:
    """Networks with the encoders, by their name, fitted to training images uint8 ``(images, pixels)``.

    ``progress`` is called after each step.
    """
    network, seed = analysis.network, analysis.seed
    dreams = analysis.pixels(sample_images(analysis.model, DREAMS, seed).reshape(DREAMS, -1))
    objectives: dict[str, tuple[bool, Objective]] = {
        FURTHER: (False, wake),
        LARGER: (True, wake),
        HALF_ASLEEP: (False, reverse_half_asleep(dreams=from_bank(dreams))),
    }
    fitted = {}
    for name, (larger, objective) in objectives.items():
        candidate = copy.deepcopy(network)
        if larger:
            assert isinstance(candidate.encoder, nn.Sequential)
            with torch.random.fork_rng(devices=[]):  # layers are born with random weights
                candidate.encoder = Beside(candidate.encoder, Generator().manual_seed(seed)).to(analysis.device)
        candidate.encoder.requires_grad_(True)
        optimizer = torch.optim.Adam(candidate.encoder.parameters(), lr=how.learning_rate)
        noise = Generator(analysis.device).manual_seed(seed)
        order = np.random.default_rng(seed)
        for step in range(how.steps):
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
            batch = analysis.pixels(images[order.integers(len(images), size=BATCH)])
            optimizer.zero_grad(set_to_none=True)
            objective(candidate, batch, step, noise).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress()
        fitted[name] = candidate.requires_grad_(False)
    return fitted


class Beside(nn.Module):
    """An encoder, and a wider one whose outputs, 0 at first, are added to its."""

    def __init__(self, encoder: nn.Sequential, noise: Generator) -> None:
        super().__init__()
        self.encoder = encoder
        layers = [_wider(module, first=index == 0) for index, module in enumerate(list(encoder)[:-1])]
        self.wider = nn.Sequential(*layers, _resized(encoder[-1], WIDTH, 1))
        with torch.no_grad():
            for part in self.wider.modules():
                if isinstance(part, nn.Linear | nn.Conv2d):
                    inputs = part.weight[0].numel()
                    part.weight.copy_(torch.randn(part.weight.shape, generator=noise) * math.sqrt(2 / inputs))
                    assert part.bias is not None
                    part.bias.zero_()
            last = self.wider[-1]
            assert isinstance(last, nn.Linear | nn.Conv2d)
            last.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.encoder(x) + self.wider(x)
        return outputs


def _wider(module: nn.Module, first: bool) -> nn.Module:
    """A layer of its kind, with more inputs, unless it is the ``first``, and more outputs."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        return _resized(module, 1 if first else WIDTH, WIDTH)
    if isinstance(module, ResidualBlock):
        return ResidualBlock(WIDTH * module.mix.in_channels, WIDTH * module.mix.out_channels)
    return copy.deepcopy(module)


def _resized(module: nn.Module, inputs: int, outputs: int) -> nn.Module:
    if isinstance(module, nn.Linear):
        return nn.Linear(inputs * module.in_features, outputs * module.out_features)
    assert isinstance(module, nn.Conv2d)
    return nn.Conv2d(
        inputs * module.in_channels,
        outputs * module.out_channels,
        module.kernel_size,  # type: ignore[arg-type]
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
    )
