"""Figures 7 and 8: rate and time of whole files against K, from both encoders of a model trained as in the paper.

    bbans train mnist_train.npy --recipe benchmarks/paper/recipes/plain-mnist-binary.toml -o WORK/plain-mnist-binary
    python benchmarks/paper/compression.py DATA --model WORK/plain-mnist-binary

Every byte is counted, initial bits too. Beside the steps that files are written with, the negative ELBO after as many
of the paper's.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

import bbans
from bbans.evaluated import EvaluatedModel
from bbans.inference.adam import adam
from bbans.portable.engines import engine_named
from bbans.training.run import frozen_bits_per_dimension

sys.path.insert(0, str(Path(__file__).parent.parent))
from data import RESULTS, points_of_steps, save, test_images

IMAGES = 1000
STEPS = range(11)
REPEATS = 2
PAPER = {
    "plain-mnist-binary": {
        "amortized": [.1854, .1841, .1832, .1827, .1817, .1810, .1801, .1789, .1786, .1779, .1769],
        "half-asleep": [.1789, .1784, .1778, .1773, .1763, .1755, .1752, .1746, .1737, .1731, .1725],
    },
    "plain-mnist": {
        "amortized": [1.5624, 1.5590, 1.5569, 1.5547, 1.5527, 1.5515, 1.5495, 1.5480, 1.5464, 1.5446, 1.5439],
        "half-asleep": [1.5519, 1.5496, 1.5479, 1.5465, 1.5447, 1.5428, 1.5408, 1.5402, 1.5396, 1.5376, 1.5366],
    },
}  # fmt: skip
"""Its rates for K = 0 to 10, initial bits not counted."""


def draw(rows: list[dict[str, Any]], title: str, paper: dict[str, list[float]]) -> Figure:
    """Rate against K, and against the time to encode."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for posterior, colour in (("amortized", "C0"), ("half-asleep", "C1")):
        own = [row for row in rows if row["posterior"] == posterior]
        rates = [row["bits_per_dimension"] for row in own]
        left.plot(STEPS, rates, "o-", color=colour, label=posterior)
        left.plot(
            STEPS, [row["elbo_with_the_papers_steps"] for row in own], ":", color=colour, label="the paper's steps"
        )
        left.plot(STEPS, paper[posterior], "--", color=colour, alpha=0.4, label="the paper's model and steps")
        right.plot([1000 * row["encode_seconds_per_image"] for row in own], rates, "o-", color=colour, label=posterior)
    left.set(title=f"{title} (figure 7)", xlabel="K", ylabel="bits/dim of the file")
    right.set(title="(figure 8)", xlabel="ms an image to encode")
    left.legend(fontsize=7)
    right.legend()
    return figure


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--model", "path", type=click.Path(path_type=Path), required=True)
def main(data: Path, path: Path) -> None:
    model = bbans.load_model(path)
    images = test_images(data, model.name)[:IMAGES]
    x = images.reshape(IMAGES, -1).astype(np.int64)
    rows = []
    points = points_of_steps(model, images, STEPS, REPEATS)
    print("timed; what follows need not be alone on the machine", flush=True)
    for point in points:
        evaluated = EvaluatedModel.of(model, point.posterior, engine_named(), point.steps, adam)
        rows.append({**asdict(point), "elbo_with_the_papers_steps": frozen_bits_per_dimension(x, evaluated)})
        print(rows[-1], flush=True)
    save(f"paper-compression-{model.name}", {"images": IMAGES, "files": rows, "paper": PAPER[model.name]})
    draw(rows, model.name, PAPER[model.name]).savefig(RESULTS / f"paper-compression-{model.name}.png", dpi=120)


if __name__ == "__main__":
    main()
