"""Integer networks as float64 matrix products in torch, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.errors import CoreError
from bbans.portable.convolution import Line, Size
from bbans.portable.descent import FIRST_LIMIT, LIMIT, TINY, Descent, Floats32
from bbans.portable.engine import Call, Evaluate, Linearize, Product, PullBack, Rows, Sums, in_turn, over_maps
from bbans.portable.layout import PlainLayout, Stored, Values
from bbans.portable.network import FLOAT32_EXACT, OUTPUT_FRACTION, Linear, Network, largest_sum

DEVICE_NAMES = ("auto", "cpu", "cuda")


class TorchEngine:
    """An :class:`bbans.portable.engine.Engine` on torch.

    All products are in float64: torch may be set to round what goes into float32 products to fewer bits (TF32,
    bfloat16).
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

    @property
    def layout(self) -> PlainLayout:
        return PlainLayout()

    def suited(self, layers: Sequence[tuple[Linear, int]]) -> TorchEngine:
        return self

    def load_product(
        self, layer: Linear, input_magnitude: int, channels: Sequence[int], added_maximum: int = 0
    ) -> Product:
        return _Product(self._layer(layer), self.device, added_maximum)

    def load_calls(self, calls: Sequence[Call]) -> Callable[[Line], None]:
        return in_turn(calls)

    def load_map_calls(self, calls: Sequence[tuple[Call, Size]]) -> Callable[[], None]:
        return over_maps(calls)

    def load_sums(self, weight: NDArray[np.int16], input_magnitude: int) -> Sums:
        kind = torch.float32 if largest_sum(weight, input_magnitude) <= FLOAT32_EXACT else torch.float64
        loaded = self._tensor(weight)

        @torch.inference_mode()
        def sums(columns: NDArray[Any]) -> NDArray[Any]:
            result: NDArray[Any] = torch.matmul(loaded, self._tensor(columns)).to(kind).cpu().numpy()
            return result

        return sums

    def load_gradient(self, network: Network) -> Linearize:
        forward = [self._layer(layer) for layer in network.layers]
        descent = Descent.of(network)
        first = self._tensor(descent.first_weight)
        backward = [(self._tensor(layer.weight), float(layer.step)) for layer in descent.layers]

        @torch.inference_mode()
        def linearize(inputs: NDArray[np.int64]) -> tuple[Floats32, PullBack]:
            x = self._tensor(inputs)
            results = []
            for layer in forward:
                x = layer(x)
                results.append(x)

            @torch.inference_mode()
            def pull_back(gradient: Floats32, rows: Rows) -> NDArray[np.float64]:
                g = torch.from_numpy(gradient).to(self.device)
                chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)
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

            real: Floats32 = (x * 2.0**-OUTPUT_FRACTION).float().cpu().numpy()
            return real, pull_back

        return linearize

    def _tensor(self, integers: NDArray[Any]) -> torch.Tensor:
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
        return self.finish(y)

    def finish(self, sums: torch.Tensor) -> torch.Tensor:
        sums *= self.scale
        return sums.floor_().clamp_(self.minimum, self.maximum)


@dataclass(frozen=True, eq=False)
class _Product:
    """A :class:`bbans.portable.engine.Product`."""

    layer: _Layer
    device: torch.device
    added_maximum: int

    @property
    def groups(self) -> int:
        return self.layer.weight.shape[1]

    @torch.inference_mode()
    def __call__(self, parts: Sequence[Stored], added: Stored | None = None, out: Stored | None = None) -> Stored:
        x = torch.cat([torch.from_numpy(part[0]).to(self.device, torch.float64) for part in parts], dim=1)
        y = torch.matmul(self.layer.weight.t(), x)
        y += self.layer.bias[:, None]
        y = self.layer.finish(y)
        if added is not None:
            y += torch.from_numpy(added[0]).to(self.device)
            y.clamp_(0, self.added_maximum)
        result: Stored = y.float().cpu().numpy()[None]
        if out is None:
            return result
        out[...] = result
        return out

    def read(self, found: Stored, images: int) -> Values:
        values: Values = found[0]
        return values


def _quantize(v: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers up to ``limit`` for each row, and the unit that they are in, ``(rows, 1)``."""
    largest = v.abs().amax(dim=1, keepdim=True).clamp_(min=TINY)
    limits = torch.full_like(largest, limit)  # where a number is enough, torch may multiply by a reciprocal
    return (v * (limits / largest)).round_(), largest / limits
