"""From files to a trained model: which kind of model, where nobody says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from bbans.errors import RecipeError
from bbans.training.data import read_any_size
from bbans.training.local import run_local
from bbans.training.local_recipe import LocalRecipe, default_local_recipe, suits_local
from bbans.training.recipe import default_recipe, load_recipe
from bbans.training.run import run
from bbans.training.workers import Workers


def train_on(
    data: list[Path],
    recipe: Path | None,
    folder: Path,
    progress: bool = False,
    device: str = "auto",
    deadline: float = math.inf,
) -> dict[str, tuple[float, float]]:
    """Train as a recipe says, or as suits the images; the rest is as in :func:`bbans.training.run.run`.

    Returns bits per dimension on held-out images, of the network and of the frozen model, by what is to be said of the
    model to name its posterior; nothing in all but the first of several processes.
    """
    how = load_recipe(recipe) if recipe else None
    images = read_any_size(data, how.channels if isinstance(how, LocalRecipe) else None)
    if how is None:
        how = (
            default_local_recipe(folder.name, images)
            if suits_local(images)
            else default_recipe(folder.name, np.stack(images))
        )
    if isinstance(how, LocalRecipe):
        local = run_local(how, images, folder, progress, deadline)
        return {"": (local.trained, local.frozen)}
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise RecipeError(f"recipe {how.name} trains on images of one shape, got {len(shapes)} shapes")
    measured = run(how, np.stack(images), folder, progress, Workers.join(device), deadline)
    if measured is None:
        return {}
    return {f", {name}": (measured.trained[name], frozen) for name, frozen in measured.frozen.items()}
