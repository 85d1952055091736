"""Posteriors over two latents, drawn: what they are, and what an encoder, a Gaussian and a flow make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from bbans.analysis.estimates import log_joint_of
from bbans.analysis.gaps import AMORTIZATION, APPROXIMATION, INFERENCE, Effort
from bbans.analysis.posteriors import ImageFlow, fit_flow, fit_gaussian
from bbans.errors import AnalysisError
from bbans.nets import VAE, DiagonalGaussian

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATENTS = 2
GRID = 60
"""Points to a side."""
REACH = 3.0
"""In deviations of the Gaussians."""
DRAWN = 2000
"""Of the flow, whose density is not known."""
SMOOTHING = 0.2
"""Of its draws, in deviations of the best Gaussian."""
LEVELS = (0.1, 0.5)
"""Of the largest density of each."""
TRUE = "true posterior"
COLORS = {"encoder": "C0", "best Gaussian": "C1", "best flow": "C2"}


def check_latents(latents: int) -> None:
    """Raise :class:`bbans.errors.AnalysisError` unless there are two latents, which is what can be drawn."""
    if latents != LATENTS:
        raise AnalysisError(f"pictures are drawn of models with {LATENTS} latents, this one has {latents}")


def draw(
    figure: Figure, network: VAE, start: DiagonalGaussian, pixels: Tensor, effort: Effort, noise: Generator
) -> None:
    """Some images ``(images, pixels)``, a panel each: the true posterior in grey, and the outlines of the others.

    ``start`` holds what the encoder says of them.
    """
    check_latents(network.latents)
    log_joint = log_joint_of(network, pixels)
    fitted = fit_gaussian(log_joint, start, effort.gaussian, noise).gaussian
    best = DiagonalGaussian(fitted.mean.detach(), fitted.log_deviation.detach())
    fitted_flow = fit_flow(log_joint, ImageFlow.of_gaussian(best, effort.flow_hidden, noise), effort.flow, noise)
    flow = fitted_flow.draw(DRAWN, noise)[0].detach()
    deviation = torch.exp(torch.stack([start.log_deviation, best.log_deviation]))
    means = torch.stack([start.mean, best.mean])
    low = torch.minimum((means - REACH * deviation).amin(0), flow.quantile(0.005, dim=0))
    high = torch.maximum((means + REACH * deviation).amax(0), flow.quantile(0.995, dim=0))
    unit = torch.linspace(0, 1, GRID, device=low.device)
    grid = torch.stack(torch.meshgrid(unit, unit, indexing="xy"), -1).reshape(-1, 1, LATENTS)
    grid = low + (high - low) * grid  # (points, images, latents)
    with torch.no_grad():
        densities = {
            TRUE: _relative(log_joint(grid)),
            "encoder": _relative(start.log_prob(grid)),
            "best Gaussian": _relative(best.log_prob(grid)),
            "best flow": _smoothed(flow.cpu().numpy(), grid.cpu().numpy(), deviation[1].cpu().numpy()),
        }
    from matplotlib.lines import Line2D

    for index, axes in enumerate(np.atleast_1d(figure.subplots(1, len(pixels)))):
        places = grid[:, index].cpu().numpy().reshape(GRID, GRID, LATENTS).transpose(2, 0, 1)
        for name, density in densities.items():
            values = density[:, index].reshape(GRID, GRID)
            if name == TRUE:
                axes.contourf(*places, values, np.linspace(0, 1, 11), cmap="Greys")
            else:
                axes.contour(*places, values, LEVELS, colors=COLORS[name])
        axes.set_title("ABCDEFGH"[index])
    colors = {TRUE: "grey", **COLORS}
    lines = [Line2D([], [], color=color, linewidth=6 if name == TRUE else 2) for name, color in colors.items()]
    figure.legend(lines, list(colors), loc="outside lower center", ncols=len(colors))


def telling(gaps: dict[str, Tensor]) -> list[int]:
    """Four images worth looking at: those with the largest amortization and approximation gaps, the one with the median
    inference gap, and the one with the smallest.
    """
    order = torch.argsort(gaps[INFERENCE]).tolist()
    chosen = [int(gaps[AMORTIZATION].argmax()), int(gaps[APPROXIMATION].argmax()), order[len(order) // 2], order[0]]
    return list(dict.fromkeys(chosen))


def _relative(log_density: Tensor) -> NDArray[np.float64]:
    """To the largest, ``(points, images)``."""
    relative: NDArray[np.float64] = torch.exp(log_density - log_density.amax(0)).double().cpu().numpy()
    return relative


def _smoothed(
    drawn: NDArray[np.float64], grid: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A density of draws ``(draws, images, 2)`` at points ``(points, images, 2)``, relative to the largest."""
    densities = []
    for image in range(drawn.shape[1]):
        width = SMOOTHING * deviation[image]
        near = np.zeros(len(grid))
        for part in np.array_split(drawn[:, image] / width, 10):
            squares = ((grid[:, None, image] / width - part) ** 2).sum(-1)
            near += np.exp(-0.5 * squares).sum(1)
        densities.append(near / near.max())
    return np.stack(densities, axis=1)
