"""Figure 3: with a known generator, sleep and above all reverse sleep generalize better than wake.

python benchmarks/paper/consistency.py DATA
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from setting import BINARY, Setting, kept, recipe, settings, spread, vae, write

from bbans.training.loop import build, fit_posterior
from bbans.training.recipe import PosteriorRecipe

OBJECTIVES = ("wake", "sleep", "reverse-sleep")
TRAINING, TEST = 10_000, 1000
LEARNING_RATE = 1e-3


@click.command()
@settings
def main(**values: Any) -> None:
    setting = Setting(**values)
    generator = vae(setting, BINARY, 0)[0]
    noise = torch.Generator().manual_seed(0)
    dreams = generator.dream(generator.prior_sample(TRAINING + TEST, noise), noise)
    images = (255 * dreams).to(torch.uint8).numpy().reshape(-1, 28, 28)
    curves: dict[str, list[list[float]]] = {objective: [] for objective in OBJECTIVES}
    for seed in range(setting.seeds):
        how = replace(recipe(setting, BINARY, seed), validation_images=TEST)
        fresh = build(replace(how, seed=100 + seed))
        fresh.decoder.load_state_dict(generator.decoder.state_dict())
        for objective, found in curves.items():
            posterior = PosteriorRecipe(objective, setting.further_epochs, learning_rate=LEARNING_RATE)
            key = f"consistency-{objective}-{setting.further_epochs}-{seed}"

            def fit(journal, posterior=posterior, fresh=fresh, how=how):
                return fit_posterior(fresh, posterior, how, images, journal)

            found.append(kept(setting.work, key, how, fit)[1])
    result = {objective: spread(of_seeds) for objective, of_seeds in curves.items()}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for objective, curve in result.items():
        mean, deviation = np.array(curve["mean"]), np.array(curve["deviation"])
        epochs = 1 + np.arange(len(mean))
        axes.plot(epochs, mean, label=objective)
        axes.fill_between(epochs, mean - deviation, mean + deviation, alpha=0.3)
    best = min(min(curve["mean"]) for curve in result.values())
    axes.set(title="A known generator (figure 3)", xlabel="epochs of the encoder", ylabel="test bits/dim")
    axes.set_ylim(0.98 * best, 1.3 * best)
    axes.legend()
    write("consistency", setting, {"curves": result}, figure)


if __name__ == "__main__":
    main()
