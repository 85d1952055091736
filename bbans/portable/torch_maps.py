"""Networks over maps on torch tensors, which stay on their device from the first layer to the last.

A map is float64 ``(images, rows, columns, channels)``, and holds integers. So the neighbours in a row, with all their
channels, lie beside each other, and what a layer sees of all positions is a matrix of a few such runs, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from bbans.portable.context import BLOCK, NEAR, ContextNetwork, PixelInput
from bbans.portable.convolution import ConvolutionalNetwork, Offsets, Size
from bbans.portable.layout import Margin, Run, cut
from bbans.portable.maps import Plan, arranged, margin_of, plan_of, runs_of
from bbans.portable.network import Linear
from bbans.portable.torch_device import Device
from bbans.portable.torch_product import TensorProduct, load_product

Step = Callable[[torch.Tensor], torch.Tensor]
BESIDE = Margin(above=1, left=1, right=1)
"""What a block sees beyond the edges."""


def surround(x: torch.Tensor, margin: Margin) -> torch.Tensor:
    """A map in a margin of zeros."""
    return functional.pad(x, (0, 0, margin.left, margin.right, margin.above, margin.below))


def seen(x: torch.Tensor, margin: Margin, runs: Sequence[Run], size: Size, stride: int = 1) -> list[torch.Tensor]:
    """What a map in a margin holds at each run beside each position, ``(images, *size, places * channels)``: views."""
    image, row, column, channel = x.stride()
    found = []
    for run in runs:
        offset = (margin.above + run.row) * row + (margin.left + run.column) * column
        shape = (len(x), *size, run.width * x.shape[3])
        strides = (image, stride * row, stride * column, channel)
        found.append(x.as_strided(shape, strides, x.storage_offset() + offset))
    return found


def apply(product: TensorProduct, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """A layer on maps whose channels it takes one after the other."""
    x = torch.cat(list(parts), dim=-1) if len(parts) > 1 else parts[0]
    return product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


@dataclass(frozen=True, eq=False)
class TensorConvolutions:
    """A convolutional network on a device."""

    network: ConvolutionalNetwork
    plans: tuple[Plan, ...]
    products: tuple[tuple[TensorProduct, ...], ...]

    @staticmethod
    def of(network: ConvolutionalNetwork, device: Device) -> TensorConvolutions:
        sizes = zip(network.layers, network.sizes, network.sizes[1:], strict=False)
        plans = tuple(plan_of(*step, added_up=True) for step in sizes)
        magnitudes = [network.input_magnitude, *[layer.product.output_magnitude for layer in network.layers]]
        products = tuple(
            tuple(load_product(phase.layer, magnitude, device) for phase in plan.phases)
            for plan, magnitude in zip(plans, magnitudes, strict=False)
        )
        return TensorConvolutions(network, plans, products)

    @property
    def elements(self) -> int:
        """The largest number of elements that a matrix takes for an image."""
        return max(
            plan.positions[0] * plan.positions[1] * int(phase.layer.weight.shape[1])
            for plan in self.plans
            for phase in plan.phases
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        for plan, products, layer in zip(self.plans, self.products, self.network.layers, strict=True):
            margin = Margin(plan.reach, plan.reach, plan.reach, plan.reach)
            inside = surround(doubled(x, plan.after) if plan.repeated else x, margin)
            found = [
                apply(product, seen(inside, margin, phase.runs, plan.positions, plan.stride))
                for phase, product in zip(plan.phases, products, strict=True)
            ]
            y = found[0]
            if plan.step > 1:
                y = x.new_empty((len(x), *plan.after, y.shape[3]))
                for phase, part in zip(plan.phases, found, strict=True):
                    y[:, phase.down :: plan.step, phase.right :: plan.step] = part
            if plan.residual:
                y = (y + before).clamp_(0, layer.product.maximum)
            before, x = x, y
        return x


def doubled(x: torch.Tensor, size: Size) -> torch.Tensor:
    """Each position repeated twice in both directions, as far as there is room."""
    images, height, width, channels = x.shape
    twice = x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
    return twice.reshape(images, 2 * height, 2 * width, channels)[:, : size[0], : size[1]]


def by_blocks(step: Step, elements: int, device: Device, block: int) -> Step:
    """``step`` on at most ``block`` images at once, and not so many that a matrix becomes too large."""

    def evaluate(x: torch.Tensor) -> torch.Tensor:
        blocks = cut(len(x), min(block, max(1, device.elements // elements))) or [slice(0, 0)]
        parts = [step(x[images]) for images in blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return evaluate


def pixel_table(pixel_input: PixelInput, device: Device) -> torch.Tensor:
    """What a network is given of each symbol, float64 ``(symbols, kinds)``."""
    kinds = pixel_input(np.arange(pixel_input.symbols, dtype=np.float32)[None])
    with device.working():
        return torch.from_numpy(kinds.T.astype(np.float64)).to(device.torch)


def given(table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """What a network is given of images int64 ``(..., channels)``: kind after kind, of each all channels."""
    return table[x].transpose(-1, -2).flatten(-2)


@dataclass(frozen=True, eq=False)
class TensorContext:
    """A context network on a device: see :class:`bbans.portable.maps.LoadedContext`."""

    network: ContextNetwork
    table: torch.Tensor
    window: TensorProduct
    blocks: tuple[tuple[TensorProduct, TensorProduct], ...]
    heads: tuple[tuple[TensorProduct, TensorProduct], ...]
    elements: int
    """The largest number that a matrix takes for a position."""

    @staticmethod
    def of(network: ContextNetwork, device: Device) -> TensorContext:
        layers: list[tuple[Linear, int, list[int]]] = arranged(network)
        window, *products = [load_product(layer, magnitude, device) for layer, magnitude, _ in layers]
        pairs = tuple(zip(products[::2], products[1::2], strict=True))
        blocks, heads = pairs[: len(network.blocks)], pairs[len(network.blocks) :]
        elements = max(layer.weight.shape[1] for layer, _, _ in layers)
        return TensorContext(network, pixel_table(network.pixel_input, device), window, blocks, heads, elements)

    def blank(self, images: int, size: Size, margin: Margin) -> torch.Tensor:
        """Images of which nothing is known but where they are, in a margin."""
        unit = self.table.new_full((images, *size, 1), self.network.pixel_input.unit)
        kinds = self.table.shape[1] * len(self.heads)
        return surround(functional.pad(unit, (kinds, 0)), margin)

    def parameters(self, features: torch.Tensor, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of each channel of images all of whose pixels are known, int64 ``(images, rows, columns, channels)``: float64
        ``(images, rows, columns, outputs)``.
        """
        network, size = self.network, (x.shape[1], x.shape[2])
        margin, values = margin_of(network), given(self.table, x)
        known = surround(functional.pad(values, (0, 1), value=network.pixel_input.unit), margin)
        h = apply(self.window, [*seen(known, margin, runs_of(network.window_offsets)[0], size), features])
        for mix, project in self.blocks:
            mixed = apply(mix, seen(surround(h, BESIDE), BESIDE, runs_of(BLOCK)[0], size))
            h = (apply(project, [mixed]) + h).clamp_(0, network.hidden_maximum)
        near = seen(known, margin, runs_of(NEAR)[0], size)
        for channel, (hidden, output) in enumerate(self.heads):
            earlier = [values[..., :channel]] if channel else []
            yield apply(output, [apply(hidden, [h, *earlier]), *near, *earlier])


class LockStep:
    """What is known of a batch of images that are decoded together, in tensors that stay where they are.

    Maps are ``(images, places, channels)``: all places of an image in its margin, row by row. Positions are given as
    int64 ``(count,)``, on the device; the same for all images.
    """

    def __init__(self, context: TensorContext, images: int, size: Size, longest: int) -> None:
        """For lines of up to so many positions."""
        self.context, self.size, self.images, self.longest = context, size, images, longest
        network = context.network
        self.margin = margin = margin_of(network)
        self.width = margin.left + size[1] + margin.right
        empty = surround(context.table.new_zeros((images, *size, 1)), margin).flatten(1, 2)
        self.known = context.blank(images, size, margin).flatten(1, 2)
        self.features = empty.expand(-1, -1, network.features).contiguous()
        hidden = len(network.window.weight)
        self.hidden = [empty.expand(-1, -1, hidden).contiguous() for _ in context.blocks]
        """What goes into each block."""
        self.current = empty.new_zeros((images * longest, hidden))
        """What comes out of the last one, for the positions of a line."""
        self.symbols = torch.zeros_like(empty, dtype=torch.int64).expand(-1, -1, len(context.heads)).contiguous()
        self.window, self.block, self.near = (
            self._offsets(offsets) for offsets in (network.window_offsets, BLOCK, NEAR)
        )

    def _offsets(self, offsets: Offsets) -> torch.Tensor:
        """From a position to places, in the order of :func:`.runs_of`."""
        moves = [row * self.width + column for row, column in sorted(offsets)]
        return torch.tensor(moves, device=self.context.table.device)

    @property
    def size_in_bytes(self) -> int:
        """Of all maps."""
        maps = [self.known, self.features, self.symbols, self.current, *self.hidden]
        return sum(part.numel() * part.element_size() for part in maps)

    def place(self, row: int, column: int) -> int:
        """A position of the images."""
        return (self.margin.above + row) * self.width + self.margin.left + column

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        """A map without its margin, ``(images, rows, columns, channels)``: a view."""
        height, width = self.size
        whole = x.view(self.images, -1, self.width, x.shape[2])
        margin = self.margin
        return whole[:, margin.above : margin.above + height, margin.left : margin.left + width]

    def look(self, here: torch.Tensor) -> None:
        """Find what the network makes of positions whose neighbours are known."""
        context = self.context
        h = context.window(torch.cat([_at(self.known, here, self.window), _at(self.features, here)], dim=1))
        for x, (mix, project) in zip(self.hidden, context.blocks, strict=True):
            x.index_copy_(1, here, h.view(self.images, len(here), -1))
            h = (project(mix(_at(x, here, self.block))) + h).clamp_(0, context.network.hidden_maximum)
        self.current[: len(h)] = h

    def parameters(self, here: torch.Tensor, channel: int) -> torch.Tensor:
        """Of the distributions of one channel from what :meth:`look` found, ``(positions * images, outputs)``: all
        images of a position before those of the next.
        """
        hidden, output = self.context.heads[channel]
        earlier = [_at(self.known, here)[:, :channel]] if channel else []
        units = hidden(torch.cat([self.current[: self.images * len(here)], *earlier], dim=1))
        found = output(torch.cat([units, _at(self.known, here, self.near), *earlier], dim=1))
        return found.view(self.images, len(here), -1).transpose(0, 1).reshape(len(found), -1)

    def learn(self, here: torch.Tensor, channel: int, symbols: torch.Tensor) -> None:
        """Fill in one channel of positions, in the order of :meth:`parameters`."""
        x = symbols.view(len(here), self.images).t()
        self.symbols[:, :, channel].index_copy_(1, here, x)
        channels = len(self.context.heads)
        kinds = self.known[:, :, channel : self.context.table.shape[1] * channels : channels]
        kinds.index_copy_(1, here, self.context.table[x])


def _at(x: torch.Tensor, here: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
    """What a map holds at positions, or at places beside each, ``(images * positions, places * channels)``."""
    places = here if offsets is None else (here[:, None] + offsets).view(-1)
    return x.index_select(1, places).view(len(x) * len(here), -1)
