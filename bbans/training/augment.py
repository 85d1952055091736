"""Random small deformations of images, to keep a network from learning its training set by heart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def deform(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, shear, scale and bend each image a little, at random.

    ``images`` is float ``(images, height, width)``; so is the result, interpolated bilinearly, with zeros
    beyond the edge.
    """
    count, height, width = images.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device)

    linear = torch.eye(2, device=images.device) + 0.08 * normal(count, 2, 2)
    shift = 0.01 * normal(count, 2, 1)
    grid = functional.affine_grid(torch.cat([linear, shift], dim=2), [count, 1, height, width], align_corners=False)
    coarse = 0.035 * normal(count, 2, 5, 5)
    bend = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    grid = grid + bend.permute(0, 2, 3, 1)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
