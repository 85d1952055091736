"""Checkpoints: all that a training run needs to go on as if it had never stopped, in one `.safetensors` file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bbans.errors import RecipeError
from bbans.npy import whole_file

Network = TypeVar("Network", bound=nn.Module)
NUMBERS = ("epoch", "step", "best_epoch", "best_rate")


@dataclass
class State(Generic[Network]):
    """A training run between two epochs."""

    network: Network
    average: Network
    best: Network
    optimizer: torch.optim.Optimizer
    best_rate: float
    best_epoch: int = 0
    epoch: int = 0
    """How many epochs are done."""
    step: int = 0

    def modules(self) -> dict[str, nn.Module]:
        """The networks, by the name that the file gives them."""
        return {"network": self.network, "average": self.average, "best": self.best}


def save_checkpoint(path: Path, state: State[Any], recipe: str) -> None:
    """Write the state; ``recipe`` says what run it belongs to."""
    tensors: dict[str, Tensor] = {}
    for name, module in state.modules().items():
        tensors |= {f"{name}/{key}": value.contiguous() for key, value in module.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value.contiguous() for key, value in moments.items()}
    numbers = {name: getattr(state, name) for name in NUMBERS} | {"recipe": recipe}
    with whole_file(path) as file:
        file.write(save(tensors, {"state": json.dumps(numbers)}))


def load_checkpoint(path: Path, state: State[Any], recipe: str) -> None:
    """Bring ``state`` to where the file left off.

    Raises :class:`bbans.errors.RecipeError` if the file is damaged or belongs to another recipe.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        if numbers["recipe"] != recipe:
            raise RecipeError(f"{path} is a checkpoint of another recipe; remove it to start anew")
        for name, module in state.modules().items():
            module.load_state_dict(_part(tensors, name))
        optimizer = state.optimizer.state_dict()
        count = len(optimizer["param_groups"][0]["params"])
        optimizer["state"] = {index: _part(tensors, f"optimizer/{index}") for index in range(count)}
        state.optimizer.load_state_dict(optimizer)
        for name in NUMBERS:
            setattr(state, name, numbers[name])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{path} is not a checkpoint of this run, remove it to start anew: {error}") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
