"""Evaluating networks over maps on any engine: convolutions, and what has been seen of an image so far.

Neighbours in a row, with all their channels, lie beside each other in memory, and images innermost. So what a layer
sees of one row beside a position is one operand of a matrix product as it lies there, and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bbans.parallel import unshared_products
from bbans.portable.context import BLOCK, NEAR, ContextNetwork, Head
from bbans.portable.convolution import Convolution, ConvolutionalNetwork, Line, Offsets, Size, halved
from bbans.portable.engine import Call, MapEngine, Product
from bbans.portable.layout import NO_MARGIN, Map, Margin, Place, Run, Scratch, Values
from bbans.portable.network import Linear


def runs_of(offsets: Offsets) -> tuple[tuple[Run, ...], list[int]]:
    """Offsets as runs, and the order in which these go through them.

    >>> runs_of(((0, -1), (-1, 0), (-1, -1)))
    ((Run(row=-1, column=-1, width=2), Run(row=0, column=-1, width=1)), [2, 1, 0])
    """
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    runs: list[Run] = []
    for row, column in (offsets[index] for index in order):
        if runs and (runs[-1].row, runs[-1].column + runs[-1].width) == (row, column):
            runs[-1] = replace(runs[-1], width=runs[-1].width + 1)
        else:
            runs.append(Run(row, column))
    return tuple(runs), order


def _by_place(weight: NDArray[np.int16], order: list[int]) -> NDArray[np.int16]:
    """Weights that take channels, then places, as weights that take places in an order, then channels."""
    places = weight.reshape(len(weight), -1, len(order))[:, :, order]
    return places.swapaxes(1, 2).reshape(weight.shape)


def load_convolutions(engine: MapEngine, network: ConvolutionalNetwork) -> Callable[[Values], Values]:
    """A function that evaluates ``network`` on maps ``(rows, columns, channels, images)`` without margins."""
    magnitudes = [network.input_magnitude, *[layer.product.output_magnitude for layer in network.layers]]
    steps = list(zip(network.layers, network.sizes, network.sizes[1:], strict=False))
    plans, one_by_one = ([plan_of(*step, added_up) for step in steps] for added_up in (True, False))
    suited = engine.suited(list(_layers_of(plans, magnitudes)))
    if suited is not engine and engine.suited(list(_layers_of(one_by_one, magnitudes))) is engine:
        plans = one_by_one  # only weights that were added up are too large for it
    else:
        engine = suited
    products = [
        tuple(_load_phase(engine, plan, phase, magnitude) for phase in plan.phases)
        for plan, magnitude in zip(plans, magnitudes, strict=False)
    ]

    def evaluate(x: Values) -> Values:
        y = np.empty((*network.sizes[-1], network.outputs, x.shape[3]), np.float32)
        walk = None
        with unshared_products():
            for block in engine.layout.map_blocks(x.shape[3], max(width for _, width in network.sizes)):
                part = x[:, :, :, block]
                if walk is None or walk.images != part.shape[3]:
                    walk = _Walk.of(engine, network.sizes, plans, products, part.shape[3])
                y[:, :, :, block] = walk(part)
        return y

    return evaluate


@dataclass(frozen=True, eq=False)
class Phase:
    """Of each ``step`` by ``step`` positions of a result, those that come ``down`` rows and ``right`` columns after the
    first.
    """

    down: int
    right: int
    layer: Linear
    """Takes places as ``runs`` go through them, and channels within."""
    runs: tuple[Run, ...]
    """Beside a position of what the layer sees."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One convolution."""

    phases: tuple[Phase, ...]
    step: int
    """2 if the map is doubled, by looking at each position once for each phase."""
    stride: int
    """Of the positions that are looked at."""
    channels: int
    """Of the input."""
    reach: int
    after: Size
    repeated: bool
    """Whether the map is doubled by repeating its positions: the result may have an odd size."""
    residual: bool

    @property
    def positions(self) -> Size:
        """That are looked at."""
        return self.after[0] // self.step, self.after[1] // self.step


def _load_phase(engine: MapEngine, plan: Plan, phase: Phase, magnitude: int) -> Product:
    places = sum(run.width for run in phase.runs)
    return engine.load_product(phase.layer, magnitude, [plan.channels] * places, phase.layer.maximum)


def _layers_of(plans: list[Plan], magnitudes: list[int]) -> Iterator[tuple[Linear, int]]:
    """All layers, with the magnitude of what goes into each, or is added to it."""
    for plan, magnitude in zip(plans, magnitudes, strict=False):
        for phase in plan.phases:
            yield phase.layer, max(magnitude, phase.layer.output_magnitude if plan.residual else 0)


def plan_of(layer: Convolution, before: Size, after: Size, added_up: bool) -> Plan:
    """How to get from a map of size ``before`` to one of size ``after``; if it doubles, by weights ``added_up``."""
    reach = layer.kernel // 2
    if added_up and after == (2 * before[0], 2 * before[1]):
        return Plan(_doubling(layer), 2, 1, layer.channels, reach, after, False, layer.residual)
    weight = _by_place(layer.product.weight, list(range(layer.kernel**2)))
    runs = tuple(Run(row, -reach, layer.kernel) for row in range(-reach, reach + 1))
    stride = 2 if before != after == halved(before) else 1
    phase = Phase(0, 0, replace(layer.product, weight=weight), runs)
    repeated = before != after and before == halved(after)
    return Plan((phase,), 1, stride, layer.channels, reach, after, repeated, layer.residual)


def _doubling(layer: Convolution) -> tuple[Phase, ...]:
    """A convolution of a map doubled, without doubling it: of the four positions that come of one, each sees its
    neighbours several times over, and their weights are added up instead.
    """
    outputs, reach = len(layer.product.weight), layer.kernel // 2
    weight = layer.product.weight.reshape(outputs, layer.channels, layer.kernel, layer.kernel)
    phases = []
    for down, right in np.ndindex(2, 2):
        rows, columns = ([(side + reached) // 2 for reached in range(-reach, reach + 1)] for side in (down, right))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        summed = np.zeros((outputs, height, width, layer.channels), np.int32)
        for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
            summed[:, row - rows[0], column - columns[0]] += weight[:, :, i, j]
        runs = tuple(Run(row, columns[0], width) for row in range(rows[0], rows[-1] + 1))
        phases.append(Phase(down, right, replace(layer.product, weight=summed.reshape(outputs, -1)), runs))
    return tuple(phases)


@dataclass(frozen=True, eq=False)
class _Walk:
    """Convolutions on an engine, with the maps between them for so many images."""

    engine: MapEngine
    images: int
    source: Map
    stages: tuple[tuple[tuple[Map, Map] | None, Callable[[], None]], ...]
    """What is done at once; before it, if there are two maps, the first is doubled into the second."""
    found: Map
    last: Product

    @staticmethod
    def of(
        engine: MapEngine, sizes: Sequence[Size], plans: list[Plan], products: list[tuple[Product, ...]], images: int
    ) -> _Walk:
        """Each map has the margin that the layer which takes it needs."""
        margins = [Margin(plan.reach, plan.reach, plan.reach, plan.reach) for plan in plans]
        layout = engine.layout
        source = before = x = Map.empty(layout, images, sizes[0], layout.groups(plans[0].channels), margins[0])
        stages: list[tuple[tuple[Map, Map] | None, list[tuple[Call, Size]]]] = [(None, [])]
        for plan, loaded, margin, following in zip(plans, products, margins, [*margins[1:], NO_MARGIN], strict=True):
            if plan.repeated:
                doubled = Map.empty(layout, images, plan.after, x.stored.shape[3], margin)
                stages.append(((x, doubled), []))
                x = doubled
            y = Map.empty(layout, images, plan.after, loaded[0].groups, following)
            for phase, layer in zip(plan.phases, loaded, strict=True):
                here = Run(phase.down, phase.right)
                parts = tuple(Place(x, run, step=plan.stride) for run in phase.runs)
                added = Place(before, here, step=plan.step) if plan.residual else None
                stages[-1][1].append((Call(layer, parts, Place(y, here, step=plan.step), added), plan.positions))
            before, x = x, y
        evaluated = tuple((maps, engine.load_map_calls(calls)) for maps, calls in stages if calls)
        return _Walk(engine, images, source, evaluated, x, products[-1][0])

    def __call__(self, values: Values) -> Values:
        self.engine.layout.store(values, self.source.inside)
        for maps, evaluate in self.stages:
            if maps is not None:
                _double(*maps)
            evaluate()
        return self.last.read(self.found.inside, self.images)


def _double(small: Map, large: Map) -> None:
    """Repeat each position twice in both directions, as far as there is room."""
    height, width = large.size
    large.inside[...] = small.inside.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]


@dataclass(frozen=True, eq=False)
class LoadedContext:
    """A context network on an engine."""

    network: ContextNetwork
    engine: MapEngine
    window: Product
    blocks: tuple[tuple[Product, Product], ...]
    heads: tuple[tuple[Product, Product], ...]
    window_runs: tuple[Run, ...]
    block_runs: tuple[Run, ...]
    near_runs: tuple[Run, ...]

    @staticmethod
    def of(engine: MapEngine, network: ContextNetwork) -> LoadedContext:
        layers = arranged(network)
        engine = engine.suited([(layer, magnitude) for layer, magnitude, _ in layers])
        first, *products = [engine.load_product(*layer, network.hidden_maximum) for layer in layers]
        pairs = tuple(zip(products[::2], products[1::2], strict=True))
        blocks, heads = pairs[: len(network.blocks)], pairs[len(network.blocks) :]
        runs = (runs_of(offsets)[0] for offsets in (network.window_offsets, BLOCK, NEAR))
        return LoadedContext(network, engine, first, blocks, heads, *runs)

    def start(self, features: Values) -> ContextState:
        """Images of which nothing is known but their features, ``(rows, columns, features, images)``."""
        network = self.network
        height, width, _, images = features.shape
        channels = network.pixel_input.channels(len(network.heads)) + 1
        layout, size = self.engine.layout, (height, width)
        seen = Map.empty(layout, images, size, layout.groups(network.features))
        layout.store(features, seen.inside)
        pixels = np.zeros((height, width, channels, images), np.float32)
        pixels[:, :, -1] = network.pixel_input.unit
        known = Map.empty(layout, images, size, layout.groups(channels), margin_of(network))
        layout.store(pixels, known.inside)

        def scratch(product: Product) -> Place:
            return Place(Scratch(layout.empty(images, (max(size), product.groups))))

        def hidden() -> Place:
            return Place(Map.empty(layout, images, size, self.window.groups, Margin(above=1, left=1, right=1)))

        found = hidden()
        calls = [Call(self.window, (*(Place(known, run) for run in self.window_runs), Place(seen)), found)]
        for mix, project in self.blocks:
            mixed, before, found = scratch(mix), found, hidden()
            calls.append(Call(mix, tuple(Place(before.map, run) for run in self.block_runs), mixed))
            calls.append(Call(project, (mixed,), found, before))
        near = [Place(known, run) for run in self.near_runs]
        outputs = scratch(max((second for _, second in self.heads), key=lambda product: product.groups))
        heads = []
        for channel, (first, second) in enumerate(self.heads):
            earlier = [Place(known, groups=layout.groups(channel))] if channel else []
            units, of_head = scratch(first), replace(outputs, groups=second.groups)
            calls_of_head = [Call(first, (found, *earlier), units), Call(second, (units, *near, *earlier), of_head)]
            heads.append((self.engine.load_calls(calls_of_head), of_head))
        return ContextState(self, images, seen, known, self.engine.load_calls(calls), tuple(heads))


def arranged(network: ContextNetwork) -> list[tuple[Linear, int, list[int]]]:
    """All layers, in the order of :attr:`.ContextNetwork.layers`, that take places as :func:`runs_of` goes through
    them, all channels of each; the largest magnitude of what each takes; and the channels of what lies side by side.
    """
    pixel, hidden = network.pixel_input.magnitude, network.window.output_magnitude
    seen, width = network.pixel_input.channels(len(network.heads)) + 1, len(network.window.weight)
    window_order, block_order, near_order = (runs_of(offsets)[1] for offsets in (network.window_offsets, BLOCK, NEAR))
    places = len(window_order) * seen
    window = np.concatenate(
        [_by_place(network.window.weight[:, :places], window_order), network.window.weight[:, places:]], axis=1
    )
    layers = [
        (
            replace(network.window, weight=window),
            max(pixel, network.pixel_input.unit, network.feature_magnitude),
            [*[seen] * len(window_order), network.features],
        )
    ]
    for block in network.blocks:
        mix = replace(block.mix, weight=_by_place(block.mix.weight, block_order))
        layers.append((mix, hidden, [width] * len(BLOCK)))
        layers.append((block.project, block.mix.output_magnitude, [len(block.mix.weight)]))
    for channel, head in enumerate(network.heads):
        earlier = [channel] if channel else []
        output = replace(head.output, weight=_output_weight(network, head, near_order))
        magnitude = max(head.hidden.output_magnitude, pixel, network.pixel_input.unit)
        layers.append((head.hidden, max(hidden, pixel), [width, *earlier]))
        layers.append((output, magnitude, [len(head.hidden.weight), *[seen] * len(NEAR), *earlier]))
    return layers


def margin_of(network: ContextNetwork) -> Margin:
    """Around a map of pixels: what the network sees beyond its edges."""
    return Margin(max(2, network.rows), 0, max(2, network.columns), max(1, network.columns))


def _output_weight(network: ContextNetwork, head: Head, order: list[int]) -> NDArray[np.int16]:
    """Weights of a head's output that take all that there is at the places near by, not only the values."""
    weight, channels = head.output.weight, len(network.heads)
    first = len(head.hidden.weight)
    last = first + len(order) * channels
    near = np.zeros((len(weight), len(order), network.pixel_input.channels(channels) + 1), np.int16)
    near[:, :, :channels] = weight[:, first:last].reshape(len(near), -1, channels)[:, order]
    return np.concatenate([weight[:, :first], near.reshape(len(near), -1), weight[:, last:]], axis=1)


@dataclass(frozen=True, eq=False)
class ContextState:
    """What is known of a batch of images, filled in as it becomes known."""

    loaded: LoadedContext
    images: int
    features: Map
    pixels: Map
    """What the pixel input makes of the pixels, and :attr:`PixelInput.unit` inside the images."""
    look: Callable[[Line], None]
    """Finds what the network makes of positions whose neighbours are known, not of their own pixels."""
    heads: tuple[tuple[Callable[[Line], None], Place], ...]
    """For each channel what finds its parameters from that, and where these are then: for all in the same memory."""

    def learn(self, line: Line, channel: int, x: Values) -> None:
        """Fill in one channel of pixels, ``(positions, images)``."""
        network, known = self.loaded.network, self.pixels.at(line)
        for kind, values in enumerate(network.pixel_input(x[:, None]).swapaxes(0, 1)):
            self.loaded.engine.layout.write(known, kind * len(network.heads) + channel, values)

    def parameters(self, line: Line, channel: int) -> Values:
        """Of the distributions of one channel, ``(positions, outputs, images)``, from what :attr:`look` found; good
        until the next call.
        """
        find, outputs = self.heads[channel]
        find(line)
        return self.loaded.heads[channel][1].read(outputs.at(line), self.images)
