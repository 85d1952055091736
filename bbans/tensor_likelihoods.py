"""Networks and likelihoods on a device of torch: only symbols, their intervals and stacks travel.

The pixels of a context model are decoded where the network is, stack and all (:mod:`bbans.ans.tensor_stack`): a line
of positions is always the same sequence of operations on tensors that stay where they are, so on CUDA it is a graph,
and a batch is a hundred or two of launches that wait for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from bbans.ans.numpy_core import NumpyStack
from bbans.ans.stack import Stack
from bbans.ans.tensor_stack import HostLanes, TensorStack
from bbans.bitsback import Likelihood
from bbans.intervals import Maker
from bbans.intervals.distribution import Integers, Symbols
from bbans.intervals.tensors import (
    BernoulliStarts,
    LogisticStarts,
    MixtureStarts,
    Starts,
    Tabled,
    TensorMaker,
    interval,
    locate,
)
from bbans.likelihoods import IndependentLikelihood, push_intervals
from bbans.model import Model
from bbans.portable.context import ContextDecoder, PixelInput, diagonals
from bbans.portable.convolution import ConvolutionalNetwork
from bbans.portable.engine import Engine, Evaluate
from bbans.portable.layout import cut
from bbans.portable.network import Network
from bbans.portable.torch_device import Device
from bbans.portable.torch_engine import TorchEngine
from bbans.portable.torch_maps import LockStep, TensorContext, given, pixel_table

TABLED_BLOCKS = 3
"""From so many blocks of lanes on, which are few images then, all starts are found before the first is popped."""

Make = Callable[[torch.Tensor], Starts]
"""From outputs int64 ``(n, kinds)`` to distributions."""


def maker_on(engine: Engine, without: Maker) -> TensorMaker:
    """Of distributions, with another maker for those that are not on a device."""
    return TensorMaker(_torch(engine).device, without)


def load_encoder(engine: Engine, encoder: ConvolutionalNetwork, pixel_input: PixelInput, channels: int) -> Evaluate:
    """From pixels int64 ``(images, pixels)`` to encoder outputs."""
    device = _torch(engine).device
    table, step = pixel_table(pixel_input, device), _torch(engine).load_convolutions_tensors(encoder)

    def evaluate(x: Symbols) -> NDArray[np.int64]:
        with device.working():
            pixels = _uploaded(x, device).view(len(x), *encoder.sizes[0], channels)
            found = step(given(table, pixels)).permute(0, 3, 1, 2).flatten(1)
            outputs: NDArray[np.int64] = found.to(torch.int64).cpu().numpy()
        return outputs

    return evaluate


def load_decoder(
    engine: Engine, model: Model, decoder: Network | ContextDecoder, maker: Maker
) -> Callable[[NDArray[np.int64]], Likelihood]:
    """From latents' centres int64 ``(images, latents)`` to p(x given z)."""
    if isinstance(decoder, ContextDecoder):
        return LoadedDecoder(_torch(engine), model, decoder).likelihood
    device, step = _torch(engine).device, _torch(engine).load_tensors(decoder)
    assert isinstance(maker, TensorMaker)
    distribution = maker.bernoulli if model.likelihood == "bernoulli" else maker.logistic
    if model.likelihood == "logistic-mixture":
        distribution = partial(maker.mixture, components=model.components, levels=model.masses)

    def likelihood(z: NDArray[np.int64]) -> Likelihood:
        with device.working():
            outputs = step(torch.from_numpy(z).to(device.torch, torch.float64))
        return IndependentLikelihood(distribution(outputs.view(len(z), model.outputs_per_pixel, -1)), len(z))

    return likelihood


class LoadedDecoder:
    """A decoder with context on a device; it may be shared by threads."""

    def __init__(self, engine: TorchEngine, model: Model, decoder: ContextDecoder) -> None:
        self.device, self.decoder = engine.device, decoder
        self.upward = engine.load_convolutions_tensors(decoder.upward)
        self.context = TensorContext.of(decoder.context, engine.device)
        self.make = _make(model)
        self.size = decoder.upward.sizes[-1]
        self.channels = len(decoder.context.heads)
        self.lines = diagonals(self.size, decoder.context.columns + 1)
        self.idle = Idle(engine.device.idle_memory)

    def likelihood(self, z: NDArray[np.int64]) -> TensorContextLikelihood:
        """p(x given z)."""
        upward = self.decoder.upward
        with self.device.working():
            centres = torch.from_numpy(z).to(self.device.torch, torch.float64)
            features = self.upward(centres.view(len(z), upward.inputs, *upward.sizes[0]).permute(0, 2, 3, 1))
        return TensorContextLikelihood(self, features)

    @cached_property
    def order(self) -> torch.Tensor:
        """All channels of all positions, ``position * channels + channel``, in the order in which they are popped."""
        places = [
            [(row * self.size[1] + column) * self.channels + channel for row, column in zip(*line.index, strict=True)]
            for line in self.lines
            for channel in range(self.channels)
        ]
        return torch.from_numpy(np.concatenate(places)).to(self.device.torch)

    def workspace(self, images: int, lanes: int) -> Workspace:
        """One that no other thread uses."""
        workspace = self.idle.take(images, lanes)
        if workspace is None:
            with self.device.working_alone():
                workspace = Workspace(self, images, lanes)
        return workspace


@dataclass(frozen=True, eq=False)
class TensorContextLikelihood:
    """A :class:`bbans.bitsback.Likelihood`: as :class:`bbans.likelihoods.ContextLikelihood`."""

    loaded: LoadedDecoder
    features: torch.Tensor
    """``(images, rows, columns, features)``."""

    def push(self, stack: Stack, x: Symbols) -> None:
        start, frequency, precision = self._intervals(x)
        last = len(start)
        for line in reversed(self.loaded.lines):
            for _ in range(self.loaded.channels):
                block = slice(last - line.count * len(x), last)
                push_intervals(stack, start[block], frequency[block], precision)
                last = block.start

    def pop(self, stack: Stack) -> Symbols:
        workspace = self.loaded.workspace(len(self.features), stack.lanes)
        try:
            with self.loaded.device.working():
                return workspace.pop(stack, self.features)
        finally:
            self.loaded.idle.put(workspace)

    def bits(self, x: Symbols) -> float:
        _, frequency, precision = self._intervals(x)
        return float(frequency.size * precision - np.log2(frequency.astype(np.float64)).sum())

    def bits_each(self, x: Symbols) -> NDArray[np.float64]:
        _, frequency, precision = self._intervals(x)
        bits = np.empty(x.shape)
        bits[:, self.loaded.order.cpu().numpy()] = (
            (precision - np.log2(frequency.astype(np.float64))).reshape(-1, len(x)).T
        )
        return bits

    def _intervals(self, x: Symbols) -> tuple[Integers, Integers, int]:
        """Start and frequency of all pixels, in the order in which they are popped, and their precision."""
        loaded, precision = self.loaded, 0
        height, width = loaded.size
        with loaded.device.working():
            pixels = _uploaded(x, loaded.device).view(len(x), height, width, loaded.channels)
            found = torch.empty((2, *pixels.shape), dtype=torch.int32, device=pixels.device)
            at_once = max(1, loaded.device.elements // (height * width * loaded.context.elements))
            for block in cut(len(x), at_once):
                part = pixels[block]
                for channel, outputs in enumerate(loaded.context.parameters(self.features[block], part)):
                    starts = loaded.make(outputs.flatten(0, 2).to(torch.int64))
                    intervals = torch.stack(interval(starts, part[..., channel].flatten()))
                    found[:, block, :, :, channel] = intervals.view(2, *part.shape[:3])
                    precision = starts.precision
            in_order = found.permute(0, 2, 3, 4, 1).flatten(1, 3).index_select(1, loaded.order)
            start, frequency = in_order.flatten(1).cpu().numpy().astype(np.uint64)
        return start, frequency, precision


class Workspace:
    """All that decoding so many images over so many lanes needs on the device. To be made while no other thread works
    there.
    """

    def __init__(self, loaded: LoadedDecoder, images: int, lanes: int) -> None:
        device, lines = loaded.device.torch, loaded.lines
        self.loaded, self.images = loaded, images
        self.state = LockStep(loaded.context, images, loaded.size, max(line.count for line in lines))
        self.stack = TensorStack(lanes, images * loaded.size[0] * loaded.size[1] * loaded.channels, device)
        self.line = torch.zeros(1, dtype=torch.int64, device=device)
        """That comes next."""
        counts = sorted({line.count for line in lines})
        self.places = {count: torch.from_numpy(self._places(count)).to(device) for count in counts}
        self.recorder = loaded.device.recorder()
        with self.recorder.working():
            self.steps = {count: self.recorder.record(partial(self.step, count, self.stack)) for count in counts}

    def _places(self, count: int) -> NDArray[np.int64]:
        """The positions of all lines of so many, ``(lines, count)``; of others, the first position."""
        places = np.full((len(self.loaded.lines), count), self.state.place(0, 0), np.int64)
        for index, line in enumerate(self.loaded.lines):
            if line.count == count:
                places[index] = [self.state.place(row, column) for row, column in zip(*line.index, strict=True)]
        return places

    @property
    def key(self) -> tuple[int, int]:
        return self.images, self.stack.lanes

    def step(self, count: int, stack: TensorStack | HostLanes) -> None:
        """Pop the next line, which has so many positions."""
        here = self.places[count].index_select(0, self.line).view(-1)
        self.state.look(here)
        for channel in range(self.loaded.channels):
            starts = self.loaded.make(self.state.parameters(here, channel).to(torch.int64))
            blocks, found = cut(count * self.images, stack.lanes), []
            if len(blocks) >= TABLED_BLOCKS:
                starts = Tabled.of(starts, count * self.images, here.device)
            for block in reversed(blocks):
                values = stack.peek(block.stop - block.start, starts.precision)
                symbols, start, frequency = locate(starts[block], values)
                stack.pop(start, frequency, starts.precision)
                found.append(symbols)
            self.state.learn(here, channel, torch.cat(found[::-1]))
        self.line += 1

    def pop(self, stack: Stack, features: torch.Tensor) -> Symbols:
        """All pixels, int64 ``(images, pixels)``."""
        with self.recorder.working():
            self.state.inside(self.state.features).copy_(features)
            self.line.zero_()
            if isinstance(stack, NumpyStack):
                self.stack.load(stack)
                for line in self.loaded.lines:
                    self.steps[line.count]()
                self.stack.store(stack)
            else:
                lanes = HostLanes(stack, self.line.device)
                for line in self.loaded.lines:
                    self.step(line.count, lanes)
            x = self.state.inside(self.state.symbols).flatten(1).to(torch.uint8).cpu().numpy()
        return x.astype(np.int64)


class Idle:
    """Workspaces that wait to be used again, up to so many bytes: the oldest go first."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.lock = threading.Lock()
        self.waiting: list[Workspace] = []

    def take(self, images: int, lanes: int) -> Workspace | None:
        """One for so many images and lanes, if there is one."""
        with self.lock:
            for index in reversed(range(len(self.waiting))):
                if self.waiting[index].key == (images, lanes):
                    return self.waiting.pop(index)
        return None

    def put(self, workspace: Workspace) -> None:
        with self.lock:
            self.waiting.append(workspace)
            while sum(other.state.size_in_bytes for other in self.waiting) > self.memory:
                self.waiting.pop(0)


def _torch(engine: Engine) -> TorchEngine:
    assert isinstance(engine, TorchEngine), "the only engine that keeps maps on a device"
    return engine


def _make(model: Model) -> Make:
    if model.likelihood == "bernoulli":
        return BernoulliStarts.of
    if model.likelihood == "discretized-logistic":
        return LogisticStarts.of
    return partial(MixtureStarts.of, components=model.components, levels=model.masses)


def _uploaded(x: Symbols, device: Device) -> torch.Tensor:
    """Symbols below 256, int64 on the device; a byte each on the way."""
    return torch.from_numpy(x.astype(np.uint8)).to(device.torch).to(torch.int64)
