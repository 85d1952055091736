"""Where the time goes in models with context: each stage of coding 512 images, on one thread.

python benchmarks/stages.py DATA
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from data import save, shipped, test_images

import bbans
from bbans.intervals import pop, push
from bbans.likelihoods import ContextLikelihood

IMAGES = 512
LANES = 2048
REPEATS = 3

Result = TypeVar("Result")


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of processor time, the least of several."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return best, result


def measure(name: str, images: np.ndarray) -> dict[str, float] | None:
    """Milliseconds an image of every stage."""
    model = bbans.load_model(name)
    codec = bbans.Codec.of(model)
    evaluated, core = codec.evaluated, codec.core
    assert evaluated is not None
    x = images[:IMAGES].reshape(IMAGES, -1).astype(np.int64)
    words = np.random.default_rng(0).integers(0, 1 << 32, 1 << 22, dtype=np.uint32)
    words[:LANES] = 1 << 30
    stack = core.from_words(words, LANES)
    seconds = {}
    seconds["encoder network"], q = timed(lambda: evaluated.posterior(x))
    z = pop(stack, q).reshape(IMAGES, -1)
    seconds["decoder network, features"], likelihood = timed(lambda: evaluated.likelihood(z))
    if not isinstance(likelihood, ContextLikelihood):
        return None
    seconds["context network and intervals, all at once"], _ = timed(lambda: likelihood.bits(x))
    with_push, _ = timed(lambda: likelihood.push(stack, x))
    seconds["push"] = max(0.0, with_push - seconds["context network and intervals, all at once"])
    stacks = [core.from_words(stack.to_words(), LANES) for _ in range(REPEATS)]
    seconds["context network, intervals and pop, in lock-step"], found = timed(lambda: likelihood.pop(stacks.pop()))
    assert (found == x).all()
    seconds["latents, pop and push"], _ = timed(lambda: push(stack, q, pop(stack, q)))
    return {stage: 1000 * value / IMAGES for stage, value in seconds.items()}


if __name__ == "__main__":
    found = {name: measure(name, test_images(Path(sys.argv[1]), name)) for name in shipped()}
    save("stages", {"milliseconds_an_image": {name: row for name, row in found.items() if row is not None}})
