"""Figures 2, 5 and 6 and table 1: how test rates rise as a VAE is trained on, whose fault it is, and what helps.

python benchmarks/paper/overfitting.py DATA
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from setting import BINARY, FASHION, GREY, DataSet, Setting, at_epoch, optimal, refit, settings, spread, vae, write

from bbans.training.recipe import PosteriorRecipe

LEARNING_RATE = 5e-4
DEVIATIONS = (0.1, 0.2, 0.4, 0.8, 1.0)
SETS = (BINARY, GREY, FASHION)


def figures_2_and_5(setting: Setting, data: DataSet) -> dict[str, Any]:
    """Amortized, optimal and reverse half-asleep inference for the VAE of every fourth part of the training."""
    half_asleep = PosteriorRecipe("reverse-half-asleep", setting.further_epochs, learning_rate=LEARNING_RATE)
    curve = vae(setting, data, 0)[1]
    epochs = [setting.epochs * part // 4 for part in (1, 2, 3, 4)]
    rates: dict[str, list[float]] = {
        "amortized": [curve[epoch - 1] for epoch in epochs],
        "optimal": [],
        "half-asleep": [],
    }
    for epoch in epochs:
        network = at_epoch(setting, data, 0, epoch)
        rates["optimal"].append(optimal(setting, data, 0, network, str(epoch), LEARNING_RATE)[1][-1])
        rates["half-asleep"].append(refit(setting, data, 0, network, str(epoch), half_asleep)[1][-1])
    return {"epochs": epochs, **rates}


def figure_6(setting: Setting, data: DataSet) -> dict[str, Any]:
    """The test rate after every epoch of the VAE, and of the encoder trained on alone, over the seeds."""
    objectives = {
        "wake": PosteriorRecipe("wake", setting.further_epochs, learning_rate=LEARNING_RATE),
        "half-asleep": PosteriorRecipe("reverse-half-asleep", setting.further_epochs, learning_rate=LEARNING_RATE),
    }
    curves: dict[str, list[list[float]]] = {"vae": [], "wake": [], "half-asleep": []}
    for seed in range(setting.seeds):
        network, curve = vae(setting, data, seed)
        curves["vae"].append(curve)
        for name, objective in objectives.items():
            curves[name].append(refit(setting, data, seed, network, str(setting.epochs), objective)[1])
    return {name: spread(of_seeds) for name, of_seeds in curves.items()}


def table_1(setting: Setting, data: DataSet) -> dict[str, float]:
    """Test rates with the encoder trained on by denoising (GG 18), against reverse half-asleep."""
    network, curve = vae(setting, data, 0)
    rates = {"vae": curve[-1]}
    for deviation in DEVIATIONS:
        posterior = PosteriorRecipe(
            "denoising", setting.further_epochs, noise_deviation=deviation, learning_rate=LEARNING_RATE
        )
        rates[f"denoising {deviation}"] = refit(setting, data, 0, network, str(setting.epochs), posterior)[1][-1]
    half_asleep = PosteriorRecipe("reverse-half-asleep", setting.further_epochs, learning_rate=LEARNING_RATE)
    rates["half-asleep"] = refit(setting, data, 0, network, str(setting.epochs), half_asleep)[1][-1]
    return rates


def draw(data: DataSet, result: dict[str, Any], epochs: int) -> Figure:
    """Figures 5 and 6 side by side."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for inference in ("amortized", "optimal", "half-asleep"):
        left.plot(result["figure 5"]["epochs"], result["figure 5"][inference], marker="o", label=inference)
    left.set(title=f"{data.name} (figure 5)", xlabel="epochs of the VAE", ylabel="test bits/dim")
    left.legend()
    for inference, start in (("vae", 0), ("wake", epochs), ("half-asleep", epochs)):
        mean, deviation = (np.array(result["figure 6"][inference][key]) for key in ("mean", "deviation"))
        steps = start + 1 + np.arange(len(mean))
        right.plot(steps, mean, label=inference)
        right.fill_between(steps, mean - deviation, mean + deviation, alpha=0.3)
    lowest = min(result["figure 6"]["half-asleep"]["mean"] + result["figure 6"]["vae"]["mean"])
    right.set(title="every epoch (figure 6)", xlabel="epochs, then of the encoder alone", ylabel="test bits/dim")
    right.set_ylim(0.99 * lowest, 1.01 * max(result["figure 6"]["vae"]["mean"][-1], 1.02 * lowest))
    right.legend()
    return figure


@click.command()
@settings
@click.option(
    "--set", "names", multiple=True, type=click.Choice([data.file_name for data in SETS]), help="[default: all]"
)
def main(names: tuple[str, ...], **values: Any) -> None:
    setting = Setting(**values)
    for data in SETS:
        if not names or data.file_name in names:
            result: dict[str, Any] = {"figure 6": figure_6(setting, data), "figure 5": figures_2_and_5(setting, data)}
            write(f"overfitting-{data.file_name}", setting, result, draw(data, result, setting.epochs))
            result["table 1"] = table_1(setting, data)
            write(f"overfitting-{data.file_name}", setting, result, draw(data, result, setting.epochs))


if __name__ == "__main__":
    main()
