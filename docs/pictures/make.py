"""Draw the pictures of "how it works": python docs/pictures/make.py"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

import bbans
from bbans.ans import HEAD_MINIMUM, Stack, core_named
from bbans.evaluated import EvaluatedModel
from bbans.intervals import UniformBelow, pop, push
from bbans.portable.engines import engine_named
from bbans.sets import plan

HERE = Path(__file__).parent
RESULTS = HERE.parent.parent / "benchmarks" / "results"
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bbans", "font.size": 9})

Box = tuple[float, float, float, str, str]
"""Left, bottom, width, name and what it does."""
ROOMS: list[Box] = [
    (0, 5, 10, "cli.py, api.py", "the front door"),
    (0, 4, 4.9, "codec.py, reader.py", "arrays to files and back"),
    (5.1, 4, 4.9, "container.py", "the format and nothing else"),
    (0, 3, 4.9, "chunk.py", "images to bytes, with little waste"),
    (5.1, 3, 4.9, "evaluated.py", "a frozen model on an engine"),
    (0, 2, 4.9, "bitsback.py", "Algorithms 1 and 2"),
    (5.1, 2, 4.9, "inference/", "where q comes from: amortized, K steps"),
    (0, 1, 3.2, "ans/", "the stack of intervals"),
    (3.4, 1, 3.2, "intervals/", "distributions in integers"),
    (6.8, 1, 3.2, "portable/", "networks in exact integers"),
    (0, 0, 4.9, "nets/, training/", "floating point: never imported by coding"),
    (5.1, 0, 4.9, "models/", "what training leaves, frozen"),
]


def save(name: str) -> None:
    plt.savefig(HERE / f"{name}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close()


def house() -> None:
    _, axes = plt.subplots(figsize=(7.2, 4))
    for left, bottom, width, name, what in ROOMS:
        colour = "#eeeeee" if bottom == 0 else "#dce9f5"
        axes.add_patch(FancyBboxPatch((left, bottom), width, 0.8, boxstyle="round,pad=0,rounding_size=0.1", fc=colour))
        axes.text(left + width / 2, bottom + 0.54, name, ha="center", va="center", family="monospace", weight="bold")
        axes.text(left + width / 2, bottom + 0.24, what, ha="center", va="center", fontsize=8)
    axes.annotate("", (-0.35, 1), (-0.35, 5.8), arrowprops={"arrowstyle": "->"})
    axes.text(-0.55, 3.4, "imports", rotation=90, ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.8, 10.1)
    axes.set_ylim(-0.1, 5.9)
    axes.axis("off")
    save("house")


def bits(stack: Stack) -> float:
    """What the stack holds."""
    words = stack.to_words()
    return float(np.log2((int(words[0]) << 32 | int(words[1])) / HEAD_MINIMUM)) + 32 * stack.tail_words


def stack(images: int = 6) -> None:
    """What the stack holds while the first images are encoded, one by one."""
    model = bbans.load_model("gg-mnist-binary")
    evaluated = EvaluatedModel.of(model, model.default_posterior, engine_named("numpy"))
    x = bbans.sample_images(model, images).reshape(images, -1).astype(np.int64)
    start = np.random.default_rng(0).integers(0, 1 << 32, 5, np.uint32)
    held = core_named("numpy").from_words(np.concatenate([np.array([0, HEAD_MINIMUM], np.uint32), start]), 1)
    points = [bits(held)]
    for image in x[:, None]:
        z = pop(held, evaluated.posterior(image)).reshape(1, -1)
        points.append(bits(held))
        evaluated.likelihood(z).push(held, image)
        points.append(bits(held))
        push(held, evaluated.prior(1), z.ravel())
        points.append(bits(held))
    _, axes = plt.subplots(figsize=(7.2, 3.2))
    axes.plot(points, color="#888888", linewidth=0.8)
    for operation, (label, colour) in enumerate(
        [("pop z with q(z | x): bits come back", "C2"), ("push x with p(x | z)", "C0"), ("push z with p(z)", "C1")]
    ):
        for image in range(images):
            first = 3 * image + operation
            axes.plot([first, first + 1], points[first : first + 2], color=colour, linewidth=2.5, label=label)
            label = ""
    mark_images(axes, images, 3)
    axes.set_ylabel("bits on the stack")
    axes.legend(frameon=False, fontsize=8)
    save("stack")


def mark_images(axes: Axes, images: int, operations: int) -> None:
    middles = [operations * (image + 0.5) for image in range(images)]
    axes.set_xticks(middles, [f"image {image + 1}" for image in range(images)])
    for image in range(1, images):
        axes.axvline(operations * image, color="#dddddd", linewidth=0.8, zorder=0)


def sets(images: int = 5, of: int = 60_000) -> None:
    """What the stack holds while the first images of a set are encoded, and what two chunks of a set draw."""
    model = bbans.load_model("gg-mnist-binary")
    evaluated = EvaluatedModel.of(model, model.default_posterior, engine_named("numpy"))
    x = bbans.sample_images(model, images).reshape(images, -1).astype(np.int64)
    start = np.random.default_rng(0).integers(0, 1 << 32, 6, np.uint32)
    held = core_named("numpy").from_words(np.concatenate([np.array([0, HEAD_MINIMUM], np.uint32), start]), 1)
    points = [bits(held)]
    for number, image in enumerate(x[:, None]):
        pop(held, UniformBelow(np.array([of - number])))
        points.append(bits(held))
        z = pop(held, evaluated.posterior(image)).reshape(1, -1)
        points.append(bits(held))
        evaluated.likelihood(z).push(held, image)
        points.append(bits(held))
        push(held, evaluated.prior(1), z.ravel())
        points.append(bits(held))
    _, (above, below) = plt.subplots(2, 1, figsize=(7.2, 4.6), height_ratios=(2.6, 1))
    above.plot(points, color="#888888", linewidth=0.8)
    operations = [
        (f"pop which of the {of:,} comes next", "C3"),
        ("pop z with q(z | x)", "C2"),
        ("push x with p(x | z)", "C0"),
        ("push z with p(z)", "C1"),
    ]
    for operation, (label, colour) in enumerate(operations):
        for image in range(images):
            first = 4 * image + operation
            above.plot([first, first + 1], points[first : first + 2], color=colour, linewidth=2.5, label=label)
            label = ""
    mark_images(above, images, 4)
    above.set_ylabel("bits on the stack")
    above.legend(frameon=False, fontsize=8)
    draws = plan(5000, 1, model.image_bits, model.latent_bits, 10_000)
    for chunk in range(2):
        done = 0
        for number, draw in enumerate(draws):
            below.barh(chunk, draw.rows, 0.75, left=done, color=f"C{number % 2 * 9}", alpha=0.75, edgecolor="white")
            if draw.rows > 400:
                below.text(done + draw.rows / 2, chunk, f"round {number + 1}", ha="center", va="center", fontsize=8)
            done += draw.rows
    below.set_yticks([0, 1], ["chunk 0", "chunk 1"])
    below.invert_yaxis()
    below.set_xlabel("images, in the order in which they are drawn and coded")
    for side in ("top", "right", "left"):
        below.spines[side].set_visible(False)
    below.tick_params(left=False)
    save("sets")


def steps() -> None:
    """Rate against K, from `benchmarks/results/steps.json`."""
    rows = json.loads((RESULTS / "steps.json").read_text())["models"]["gg-mnist-binary"]["files"]
    _, axes = plt.subplots(figsize=(7.2, 3))
    for posterior in ("amortized", "half-asleep"):
        own = [row for row in rows if row["posterior"] == posterior]
        axes.plot([row["steps"] for row in own], [row["bits_per_dimension"] for row in own], "o-", label=posterior)
    axes.set_xlabel("K, steps that refine the posterior of every image")
    axes.set_ylabel("bits/dim, whole file")
    axes.legend(frameon=False)
    save("steps")


if __name__ == "__main__":
    house()
    stack()
    sets()
    steps()
