"""Integer networks as float64 matrix products in torch, on a CPU or a CUDA device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.errors import CoreError
from bbans.portable.engine import Cotangent, Differentiate, Evaluate
from bbans.portable.network import GRADIENT_MAXIMUM, BackwardPass, Linear, Network

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
        layers = [self._layer(layer) for layer in network.layers]

        @torch.inference_mode()
        def evaluate(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
            outputs = np.empty((len(inputs), network.outputs), np.int64)
            for first in range(0, len(inputs), self.block):
                x = self._tensor(inputs[first : first + self.block])
                for layer in layers:
                    x = layer(x)
                outputs[first : first + self.block] = x.to(torch.int64).cpu().numpy()
            return outputs

        return evaluate

    def load_gradient(self, network: Network, backward: BackwardPass) -> Differentiate:
        layers = [self._layer(layer) for layer in network.layers]

        @torch.inference_mode()
        def differentiate(inputs: NDArray[np.int64], cotangent: Cotangent) -> NDArray[np.int64]:
            gradients = np.empty(inputs.shape, np.int64)
            for first in range(0, len(inputs), self.block):
                part = slice(first, first + self.block)
                results = [self._tensor(inputs[part])]
                for layer in layers:
                    results.append(layer(results[-1]))
                gradient = self._tensor(cotangent(results[-1].to(torch.int64).cpu().numpy(), part))
                for index in reversed(range(len(layers))):
                    gradient = gradient @ layers[index].weight.t()
                    gradient *= 2.0 ** -backward.shifts[index]
                    gradient.floor_().clamp_(-GRADIENT_MAXIMUM, GRADIENT_MAXIMUM)
                    if index:
                        before, y = layers[index - 1], results[index]
                        gradient *= (y > before.minimum) & (y < before.maximum)
                gradients[part] = gradient.to(torch.int64).cpu().numpy()
            return gradients

        return differentiate

    def _tensor(self, integers: NDArray[np.int64]) -> torch.Tensor:
        return torch.tensor(integers, dtype=torch.float64, device=self.device)

    def _layer(self, layer: Linear) -> _Layer:
        weight, bias = (
            torch.tensor(part.astype(np.float64), device=self.device) for part in (layer.weight, layer.bias)
        )
        return _Layer(weight.t(), bias, 2.0**-layer.shift, layer.minimum, layer.maximum)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer on the device."""

    weight: torch.Tensor
    bias: torch.Tensor
    scale: float
    minimum: int
    maximum: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        # Separate operations: each is exact, or rounds a multiple of a power of two down.
        y = x @ self.weight
        y += self.bias
        y *= self.scale
        return y.floor_().clamp_(self.minimum, self.maximum)
