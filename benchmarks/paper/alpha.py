"""Figure 4: how much of a batch should be dreams: alpha of 0, 0.5 and 1, and forward sleep.

python benchmarks/paper/alpha.py DATA
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from setting import BINARY, Setting, refit, settings, spread, vae, write

from bbans.training.recipe import PosteriorRecipe

OBJECTIVES = {
    "alpha = 0 (wake)": ("reverse-half-asleep", 0.0),
    "alpha = 0.5 (half-asleep)": ("reverse-half-asleep", 0.5),
    "alpha = 1 (reverse sleep)": ("reverse-half-asleep", 1.0),
    "sleep": ("sleep", 0.5),
}


@click.command()
@settings
def main(**values: Any) -> None:
    setting = Setting(**values)
    result = {}
    for name, (objective, alpha) in OBJECTIVES.items():
        curves = []
        for seed in range(setting.seeds):
            network, before = vae(setting, BINARY, seed)
            posterior = PosteriorRecipe(objective, setting.further_epochs, alpha=alpha)
            curve = refit(setting, BINARY, seed, network, str(setting.epochs), posterior)[1]
            curves.append([before[-1], *curve])
        result[name] = spread(curves)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in result.items():
        mean, deviation = np.array(curve["mean"]), np.array(curve["deviation"])
        axes.plot(mean, label=name)
        axes.fill_between(np.arange(len(mean)), mean - deviation, mean + deviation, alpha=0.3)
    axes.set(title="binary MNIST (figure 4)", xlabel="further epochs of the encoder", ylabel="test bits/dim")
    axes.legend()
    write("alpha", setting, {"curves": result}, figure)


if __name__ == "__main__":
    main()
