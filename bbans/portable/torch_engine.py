"""Integer networks as exact matrix products in torch, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.portable.convolution import ConvolutionalNetwork
from bbans.portable.descent import FIRST_LIMIT, LIMIT, TINY, Descent, Floats32
from bbans.portable.engine import Evaluate, Linearize, PullBack, Rows, Sums
from bbans.portable.layout import Values
from bbans.portable.network import FLOAT32_EXACT, OUTPUT_FRACTION, Network, largest_sum
from bbans.portable.torch_device import Device
from bbans.portable.torch_maps import Step, TensorConvolutions, by_blocks
from bbans.portable.torch_product import DoubleProduct, load_product


class TorchEngine:
    """An :class:`bbans.portable.engine.Engine` on torch.

    What it evaluates may also be had as functions of tensors on its device, ``*_tensors``, to be called within
    :meth:`.Device.working`: integers held in float64 to the same.
    """

    name = "torch"

    def __init__(self, device: str = "auto", block: int = 4096) -> None:
        """At most ``block`` images are evaluated at once, to bound the memory of the device."""
        self.block = block
        self.device = Device(device)

    def __reduce__(self) -> tuple[type[TorchEngine], tuple[str, int]]:
        """For other processes, which have their own streams."""
        return TorchEngine, (self.device.torch.type, self.block)

    def load(self, network: Network) -> Evaluate:
        step = self.load_tensors(network)

        def evaluate(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
            with self.device.working():
                outputs: NDArray[np.int64] = step(self._tensor(inputs)).to(torch.int64).cpu().numpy()
            return outputs

        return evaluate

    def load_tensors(self, network: Network) -> Step:
        """From ``(images, inputs)`` to ``(images, outputs)``."""
        products = [
            load_product(layer, magnitude, self.device)
            for layer, magnitude in zip(network.layers, network.magnitudes, strict=True)
        ]

        def step(x: torch.Tensor) -> torch.Tensor:
            for product in products:
                x = product(x)
            return x

        return by_blocks(step, max(layer.weight.shape[1] for layer in network.layers), self.device, self.block)

    def load_convolutions(self, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
        step = self.load_convolutions_tensors(network)

        def evaluate(x: Values) -> Values:
            with self.device.working():
                found: Values = step(self._tensor(x).permute(3, 0, 1, 2)).permute(1, 2, 3, 0).float().cpu().numpy()
            return found

        return evaluate

    def load_convolutions_tensors(self, network: ConvolutionalNetwork) -> Step:
        """From and to maps ``(images, rows, columns, channels)``."""
        convolutions = TensorConvolutions.of(network, self.device)
        return by_blocks(convolutions, convolutions.elements, self.device, self.block)

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        kind = torch.float32 if largest_sum(weight, input_magnitude) <= FLOAT32_EXACT else torch.float64
        loaded = self._tensor(weight)

        def sums(columns: NDArray[Any]) -> NDArray[Any]:
            with self.device.working():
                result: NDArray[Any] = torch.matmul(loaded, self._tensor(columns)).to(kind).cpu().numpy()
            return result

        return sums

    def load_gradient(self, network: Network) -> Linearize:
        with self.device.working():
            forward = [DoubleProduct.of(layer, self.device.torch) for layer in network.layers]
        descent = Descent.of(network)
        first = self._tensor(descent.first_weight)
        backward = [(self._tensor(layer.weight), float(layer.step)) for layer in descent.layers]

        def linearize(inputs: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
            results = []
            with self.device.working():
                x = self._tensor(inputs)
                for layer in forward:
                    x = layer(x)
                    results.append(x)
                real: Floats32 = (x * 2.0**-OUTPUT_FRACTION).float().cpu().numpy()

            def pull_back(gradient: Floats32, rows: Rows) -> NDArray[np.float64]:
                with self.device.working():
                    g = torch.from_numpy(gradient).to(self.device.torch)
                    chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device.torch)
                    for index in range(len(backward), 0, -1):
                        weight, step = backward[index - 1]
                        quantized, unit = _quantize(g, LIMIT)
                        g = (quantized.double() @ weight).float()
                        g *= unit * step
                        g *= results[index - 1][chosen] > forward[index - 1].minimum
                    quantized, unit = _quantize(g, FIRST_LIMIT)
                    back: NDArray[np.float64] = (
                        ((quantized.double() @ first) * (unit.double() * descent.first_step)).cpu().numpy()
                    )
                return back

            return real, pull_back

        return linearize

    def _tensor(self, integers: NDArray[Any]) -> torch.Tensor:
        with self.device.working():
            return torch.tensor(integers, dtype=torch.float64, device=self.device.torch)


def _quantize(v: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers up to ``limit`` for each row, and the unit that they are in, ``(rows, 1)``."""
    largest = v.abs().amax(dim=1, keepdim=True).clamp_(min=TINY)
    limits = torch.full_like(largest, limit)  # where a number is enough, torch may multiply by a reciprocal
    return (v * (limits / largest)).round_(), largest / limits
