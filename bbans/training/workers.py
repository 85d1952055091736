"""Where training runs: a device, alone or as one of several processes under ``torchrun``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from bbans.errors import CoreError


@dataclass(frozen=True)
class Workers:
    """The place of one process among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @staticmethod
    def join(device: str = "auto") -> Workers:
        """Train on ``cpu``, ``cuda`` or ``auto`` (CUDA where it is), with the others that ``torchrun`` started.

        Raises :class:`bbans.errors.CoreError` if there is no such device.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise CoreError("torch sees no CUDA device; use --device cpu or auto")
        on_cuda = device != "cpu" and torch.cuda.is_available()
        if "WORLD_SIZE" not in os.environ:
            return Workers(torch.device("cuda" if on_cuda else "cpu"))
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if on_cuda else "gloo")
        place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if on_cuda else "cpu"
        return Workers(torch.device(place), torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def together(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over all processes."""
        return nn.parallel.DistributedDataParallel(module) if self.size > 1 else module

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            torch.distributed.barrier()

    def any(self, here: bool) -> bool:
        """Whether something is so in any of the processes."""
        if self.size == 1:
            return here
        found = torch.tensor(float(here), device=self.device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return bool(found.item())

    def noise(self, seed: int, epoch: int) -> torch.Generator:
        """The source of all noise of an epoch, another one in each process."""
        return torch.Generator(self.device).manual_seed((seed * 1_000_003 + epoch) * 1009 + self.rank)


ALONE = Workers(torch.device("cpu"))
