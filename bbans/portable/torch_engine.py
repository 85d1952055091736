"""Integer networks as float64 matrix products in torch, on a CPU or a CUDA device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.errors import CoreError
from bbans.portable.engine import Evaluate
from bbans.portable.network import Network

DEVICE_NAMES = ("auto", "cpu", "cuda")


class TorchEngine:
    """An :class:`bbans.portable.engine.Engine` on torch.

    It computes in float64 alone: torch may be set to round float32 products to fewer bits (TF32, bfloat16).
    """

    name = "torch"

    def __init__(self, device: str = "auto", block: int = 4096) -> None:
        """``block`` images are evaluated at once, to bound the memory of the device."""
        if device not in DEVICE_NAMES:
            raise CoreError(f"there is no device {device!r}; expected one of: {', '.join(DEVICE_NAMES)}")
        if device == "cuda" and not torch.cuda.is_available():
            raise CoreError("torch sees no CUDA device; use --device cpu or auto")
        self.block = block
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")

    def load(self, network: Network) -> Evaluate:
        layers = [
            (
                torch.from_numpy(layer.weight.astype(np.float64)).to(self.device).t(),
                torch.from_numpy(layer.bias.astype(np.float64)).to(self.device),
                2.0**-layer.shift,
                layer.minimum,
                layer.maximum,
            )
            for layer in network.layers
        ]

        @torch.inference_mode()
        def evaluate(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
            outputs = np.empty((len(inputs), network.outputs), np.int64)
            for first in range(0, len(inputs), self.block):
                x = torch.tensor(inputs[first : first + self.block], dtype=torch.float64, device=self.device)
                for weight, bias, scale, minimum, maximum in layers:
                    # Separate operations: each is exact, or rounds a multiple of a power of two down.
                    x = x @ weight
                    x += bias
                    x *= scale
                    x = x.floor_().clamp_(minimum, maximum)
                outputs[first : first + self.block] = x.to(torch.int64).cpu().numpy()
            return outputs

        return evaluate
