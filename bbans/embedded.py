"""A model inside a `.bba` file: its decoder and the one encoder that the file uses, entropy coded.

Weights look random but for their size, so their sizes are what is coded: each weight falls into one of
:data:`CLASSES` classes, whose frequencies are stored for each layer, and within its class all values are taken to
be equally likely. All of it is integers, on the stack that pixels are coded on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bbans.ans import HEAD_MINIMUM, core_named
from bbans.ans.stack import Integers, Words
from bbans.chunk import WORD
from bbans.container import ModelReference
from bbans.errors import FormatError, ModelError, StackUnderflow
from bbans.fields import FieldReader, varint
from bbans.intervals import pop, push
from bbans.intervals.distribution import Symbols
from bbans.model import Model, build, describe
from bbans.portable.description import Tensors, build_network, layers_of
from bbans.portable.network import Linear

WEIGHTS_MAXIMUM = 1 << 26
"""More are neither written nor read: weights can cost no bits at all, so a small file could ask for any amount."""
WEIGHTS_PER_LANE = 1 << 11
PIECE_BLOCKS = 64
"""So many blocks of weights, one for each lane, are converted at a time."""
FREQUENCY_BITS = 14

_WIDTH_BITS = np.array([0] * 8 + [bits for bits in range(1, 14) for _ in range(4)])
CLASSES = len(_WIDTH_BITS)
_STARTS = np.concatenate([[0], np.cumsum(1 << _WIDTH_BITS)[:-1]])
WIDTH_BITS_MAXIMUM = 13


@dataclass(frozen=True, eq=False)
class WeightClasses:
    """``count`` weights of a layer, each class with the frequency that the layer gives it.

    A :class:`bbans.intervals.Distribution`. A weight counts as the integer 0, 1, 2, ... in the order 0, -1, 1, -2, ...;
    classes are the integers below 8 and then each quarter of an octave.
    """

    count: int
    start: Symbols
    """Where each class starts, int64 ``(CLASSES,)``..."""
    unit: Symbols
    """...and the frequency of one value in it."""
    found: NDArray[np.intp]
    """The class that holds each multiple of ``2**WIDTH_BITS_MAXIMUM``."""
    precision: int = FREQUENCY_BITS + WIDTH_BITS_MAXIMUM

    @staticmethod
    def of(count: int, frequency: Symbols) -> WeightClasses:
        """From the frequencies of the classes on ``2**FREQUENCY_BITS``, int64 ``(CLASSES,)``."""
        start = (np.cumsum(frequency) - frequency) << WIDTH_BITS_MAXIMUM
        found = np.repeat(np.arange(CLASSES), frequency)
        return WeightClasses(count, start, frequency << (WIDTH_BITS_MAXIMUM - _WIDTH_BITS), found)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, block: slice) -> WeightClasses:
        count = len(range(*block.indices(self.count)))
        return WeightClasses(count, self.start, self.unit, self.found)

    def interval(self, symbols: Symbols) -> tuple[Integers, Integers]:
        value = _unsigned(symbols)
        number = _class_of(value)
        unit = self.unit[number]
        return (self.start[number] + (value - _STARTS[number]) * unit).astype(np.uint64), unit.astype(np.uint64)

    def locate(self, values: Integers) -> tuple[Symbols, Integers, Integers]:
        shown = values.astype(np.int64)
        number = self.found[shown >> WIDTH_BITS_MAXIMUM]
        start, unit = self.start[number], self.unit[number]
        inside = (shown - start) // unit
        value = _STARTS[number] + inside
        symbols = (value >> 1) ^ -(value & 1)
        return symbols, (start + inside * unit).astype(np.uint64), unit.astype(np.uint64)


def class_frequencies(weights: NDArray[np.int16]) -> Symbols:
    """How often weights are of each class, int64 ``(CLASSES,)``: at least 1 if any is, ``2**FREQUENCY_BITS`` in all."""
    counts = np.bincount(_class_of(_unsigned(weights.ravel().astype(np.int64))), minlength=CLASSES)
    frequency = np.where(counts > 0, 1 + counts * ((1 << FREQUENCY_BITS) - CLASSES) // weights.size, 0)
    frequency[np.argmax(counts)] += (1 << FREQUENCY_BITS) - frequency.sum()
    return frequency


def _unsigned(weights: Symbols) -> Symbols:
    """0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return (weights << 1) ^ (weights >> 63)


def _class_of(values: Symbols) -> NDArray[np.intp]:
    return np.searchsorted(_STARTS, values, side="right") - 1


def embed(model: Model, posterior: str) -> bytes:
    """What :func:`extract` reads: ``model`` with one encoder.

    Raises :class:`bbans.errors.ModelError` if it has no such posterior, or too many weights.
    """
    model.identity(posterior)  # which says so if there is no such posterior
    encoders = {"": model.encoders[posterior]} if model.encoders else {}
    networks = (model.decoder, *encoders.values())
    layers = [layer for network in networks for layer in layers_of(network)]
    weights = sum(layer.weight.size for layer in layers)
    if weights > WEIGHTS_MAXIMUM:
        raise ModelError(f"model {model.name} has {weights:,} weights; {WEIGHTS_MAXIMUM:,} at most can be embedded")
    description = describe(replace(model, name="", encoders=encoders))
    text = json.dumps(description, separators=(",", ":")).encode()
    head = varint(len(text)) + text + varint(len(layers)) + b"".join(_layer_head(layer) for layer in layers)

    lanes = _lanes(weights)
    stack = core_named().from_words(_empty(lanes), lanes)
    for layer in reversed(layers):  # popped first to last
        flat = layer.weight.ravel()
        classes = WeightClasses.of(flat.size, class_frequencies(flat))
        for piece in _pieces(flat.size, lanes):
            push(stack, classes[piece], flat[piece].astype(np.int64))
    return head + stack.to_words().astype(WORD).tobytes()


def extract(data: bytes, reference: ModelReference) -> Model:
    """The model that :func:`embed` wrote, under the names that the file gives it and its encoder.

    Raises :class:`bbans.errors.FormatError` if it is not a whole, sane model, or not the one that the file names.
    No more memory is taken than :data:`WEIGHTS_MAXIMUM` weights need.
    """
    try:
        model = _read(FieldReader(data), reference)
    except (ModelError, StackUnderflow) as error:
        raise FormatError(f"the embedded model is damaged: {error}") from error
    if model.identity(reference.posterior) != reference.identity:
        raise FormatError("the embedded model is not the one that the file was written with: the file is damaged")
    return model


def _read(reader: FieldReader, reference: ModelReference) -> Model:
    description = reader.take(reader.varint())
    heads = [_read_layer_head(reader) for _ in range(reader.varint())]
    weights = sum(math.prod(head.shape) for head in heads)
    if not 1 <= weights <= WEIGHTS_MAXIMUM:
        raise ModelError(f"it should have {weights:,} weights; {WEIGHTS_MAXIMUM:,} at most are read")

    lanes = _lanes(weights)
    words = reader.rest()
    if len(words) % WORD.itemsize or len(words) < 2 * lanes * WORD.itemsize:
        raise ModelError(f"its weights can't be {len(words)} bytes long")
    stack = core_named().from_words(np.frombuffer(words, WORD).astype(np.uint32), lanes)
    tensors = []
    for head in heads:
        flat = np.empty(math.prod(head.shape), np.int16)
        classes = WeightClasses.of(flat.size, head.frequency)
        for piece in reversed(_pieces(flat.size, lanes)):
            flat[piece] = pop(stack, classes[piece])
        tensors.append((flat.reshape(head.shape), head.bias))
    if not np.array_equal(stack.to_words(), _empty(lanes)):
        raise ModelError("something is left over after its last weight")
    return _build(description, iter(tensors), reference)


def _build(text: bytes, tensors: Iterator[Tensors], reference: ModelReference) -> Model:
    """The model of a description."""
    try:
        description = json.loads(text)
        found = list(description["encoders"].values())
        if len(found) > 1:
            raise ModelError(f"it has {len(found)} encoders")
        encoders = dict(zip([reference.posterior], found, strict=False))
        description |= {"name": reference.name, "encoders": encoders}
        networks = {"decoder": description["decoder"]}
        networks |= {f"encoders.{posterior}": encoder for posterior, encoder in encoders.items()}
        return build(description, {name: build_network(part, tensors) for name, part in networks.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"its description is none: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, eq=False)
class _LayerHead:
    """What a layer's weights are decoded with, and its biases."""

    shape: tuple[int, int]
    frequency: Symbols
    bias: NDArray[np.int64]


def _layer_head(layer: Linear) -> bytes:
    width = next(width for width in range(1, 9) if _fits(layer.bias, width))
    head = b"".join(map(varint, (*layer.weight.shape, *class_frequencies(layer.weight).tolist())))
    return head + bytes([width]) + layer.bias.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def _read_layer_head(reader: FieldReader) -> _LayerHead:
    outputs, inputs = reader.varint(), reader.varint()
    frequencies = [reader.varint() for _ in range(CLASSES)]
    if sum(frequencies) != 1 << FREQUENCY_BITS:
        raise ModelError(f"the frequencies of a layer add up to {sum(frequencies)}, not {1 << FREQUENCY_BITS}")
    width = reader.byte()
    if not 1 <= width <= 8 or not outputs or not inputs:
        raise ModelError(f"{outputs} biases of {width} bytes for {inputs} inputs make no sense")
    low = np.frombuffer(reader.take(outputs * width), np.uint8).reshape(outputs, width)
    wide = np.repeat(np.where(low[:, -1:] < 0x80, 0, 0xFF).astype(np.uint8), 8, axis=1)
    wide[:, :width] = low
    bias = wide.view("<i8").ravel().astype(np.int64)
    return _LayerHead((outputs, inputs), np.array(frequencies, np.int64), bias)


def _fits(bias: NDArray[np.int64], width: int) -> bool:
    """Whether all biases are integers of ``width`` bytes."""
    half = 1 << (8 * width - 1)
    return -half <= int(bias.min()) and int(bias.max()) < half


def _lanes(weights: int) -> int:
    return weights // WEIGHTS_PER_LANE + 1


def _empty(lanes: int) -> Words:
    """A flattened stack that holds nothing."""
    return np.concatenate([np.zeros(lanes, np.uint32), np.full(lanes, HEAD_MINIMUM, np.uint32)])


def _pieces(size: int, lanes: int) -> list[slice]:
    """A layer's weights cut into whole blocks, so that coding them piece by piece is coding them at once."""
    step = lanes * PIECE_BLOCKS
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]
