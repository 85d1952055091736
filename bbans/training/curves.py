"""The curves of a training as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def plot_curves(logs: Mapping[str, Path], picture: Path) -> bool:
    """Draw the logs (:class:`bbans.training.loop.Epoch`), by the name of the posterior, as a PNG.

    Returns False, and draws nothing, where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots(1, len(logs), squeeze=False)[0]
    for place, (name, log) in zip(axes, logs.items(), strict=True):
        epochs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for key, label in (("train", "objective, training images"), ("held_out", "-ELBO, held-out images")):
            place.plot([epoch["epoch"] + 1 for epoch in epochs], [epoch[key] for epoch in epochs], label=label)
        place.set(title=name, xlabel="epoch", ylabel="bits per dimension")
        place.legend()
    figure.savefig(picture, dpi=120)
    return True
