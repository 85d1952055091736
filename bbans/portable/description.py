"""Networks as a description in JSON and a list of layers, which is how they are stored, hashed and embedded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.context import Block, ContextDecoder, ContextNetwork, ConvolutionalDecoder, Head, PixelInput
from bbans.portable.convolution import Convolution, ConvolutionalNetwork
from bbans.portable.local import LocalNetwork
from bbans.portable.network import Linear, Network

AnyNetwork = Network | ConvolutionalNetwork | ContextDecoder | ConvolutionalDecoder | LocalNetwork
Tensors = tuple[NDArray[np.int16], NDArray[np.int64]]
"""Weights and biases of a layer."""


def layers_of(network: AnyNetwork) -> tuple[Linear, ...]:
    """All layers, in the order of the description."""
    if isinstance(network, Network | LocalNetwork):
        return network.layers
    if isinstance(network, ConvolutionalNetwork):
        return tuple(layer.product for layer in network.layers)
    if isinstance(network, ConvolutionalDecoder):
        return layers_of(network.upward)
    return (*layers_of(network.upward), *network.context.layers)


def describe_network(network: AnyNetwork) -> dict[str, Any]:
    """All of a network but weights and biases."""
    if isinstance(network, Network):
        return {
            "input_magnitude": network.input_magnitude,
            "layers": [{"kind": "linear", **_describe(layer)} for layer in network.layers],
        }
    if isinstance(network, ConvolutionalNetwork):
        return {
            "kind": "convolutional",
            "input_magnitude": network.input_magnitude,
            "sizes": [list(size) for size in network.sizes],
            "layers": [_describe_convolution(layer) for layer in network.layers],
        }
    if isinstance(network, ConvolutionalDecoder):
        upward = describe_network(network.upward)
        return {"kind": "convolutional-decoder", "upward": upward, **_describe_pixel_input(network.pixel_input)}
    if isinstance(network, LocalNetwork):
        return {"kind": "local", **_describe_context(network)}
    context = network.context
    return {
        "kind": "context",
        "upward": describe_network(network.upward),
        **_describe_context(context),
        "feature_magnitude": context.feature_magnitude,
        "features": context.features,
    }


def _describe_context(network: ContextNetwork | LocalNetwork) -> dict[str, Any]:
    return {
        **_describe_pixel_input(network.pixel_input),
        "rows": network.rows,
        "columns": network.columns,
        "window": _describe(network.window),
        "blocks": [[_describe(block.mix), _describe(block.project)] for block in network.blocks],
        "heads": [[_describe(head.hidden), _describe(head.output)] for head in network.heads],
    }


def build_network(description: Any, tensors: Iterator[Tensors]) -> AnyNetwork:
    """The network of a description, with the tensors of its layers in order.

    Raises :class:`bbans.errors.ModelError` if it makes no sense, and :class:`KeyError`, :class:`TypeError` or
    :class:`ValueError` if it is not a description at all.
    """
    kind = description.get("kind", "linear")
    if kind == "linear":
        parts = description["layers"]
        for part in parts:
            if part["kind"] != "linear":
                raise ModelError(f"this version of bbans knows no layer of kind {part['kind']!r}")
        return Network(integer(description["input_magnitude"]), tuple(_linear(part, tensors) for part in parts))
    if kind == "convolutional":
        sizes = tuple((integer(height), integer(width)) for height, width in description["sizes"])
        layers = (_convolution(part, tensors) for part in description["layers"])
        return ConvolutionalNetwork(integer(description["input_magnitude"]), sizes, tuple(layers))
    if kind in ("context", "convolutional-decoder"):
        upward = build_network(description["upward"], tensors)
        if not isinstance(upward, ConvolutionalNetwork):
            raise ModelError("a decoder of maps starts with convolutions")
        if kind == "convolutional-decoder":
            return ConvolutionalDecoder(upward, _pixel_input(description))
        return ContextDecoder(upward, _context(description, tensors))
    if kind == "local":
        return LocalNetwork(*_size(description), *_layers(description, tensors))
    raise ModelError(f"this version of bbans knows no network of kind {kind!r}")


def _context(description: Any, tensors: Iterator[Tensors]) -> ContextNetwork:
    window, blocks, heads = _layers(description, tensors)
    features = integer(description["feature_magnitude"]), integer(description["features"])
    return ContextNetwork(*_size(description), window, *features, blocks, heads)


def _size(description: Any) -> tuple[PixelInput, int, int]:
    """What a network with context is given, and how many rows and columns of it."""
    return _pixel_input(description), integer(description["rows"]), integer(description["columns"])


def _layers(description: Any, tensors: Iterator[Tensors]) -> tuple[Linear, tuple[Block, ...], tuple[Head, ...]]:
    """The layers of a network with context."""
    window = _linear(description["window"], tensors)
    blocks = [Block(_linear(mix, tensors), _linear(project, tensors)) for mix, project in description["blocks"]]
    heads = [Head(_linear(hidden, tensors), _linear(output, tensors)) for hidden, output in description["heads"]]
    return window, tuple(blocks), tuple(heads)


def _describe_pixel_input(pixel_input: PixelInput) -> dict[str, Any]:
    return {
        "symbols": pixel_input.symbols,
        "centre": pixel_input.centre,
        "gain": pixel_input.gain,
        "unit": pixel_input.unit,
        "ranges": [list(part) for part in pixel_input.ranges],
    }


def _pixel_input(description: Any) -> PixelInput:
    ranges = tuple((integer(first), integer(last)) for first, last in description["ranges"])
    symbols, centre, gain, unit = (integer(description[key]) for key in ("symbols", "centre", "gain", "unit"))
    return PixelInput(symbols, centre, gain, unit, ranges)


def integer(value: Any) -> int:
    """An integer of a description, refused if it is something else or absurd."""
    if type(value) is not int or abs(value) > 1 << 40:
        raise ModelError(f"expected an integer of at most 40 bits in a model's description, got {value!r:.60}")
    return value


def _describe(layer: Linear) -> dict[str, int]:
    return {"shift": layer.shift, "minimum": layer.minimum, "maximum": layer.maximum}


def _describe_convolution(layer: Convolution) -> dict[str, int | bool]:
    residual = {"residual": True} if layer.residual else {}
    return {"kernel": layer.kernel, **residual, **_describe(layer.product)}


def _convolution(description: Any, tensors: Iterator[Tensors]) -> Convolution:
    residual = description.get("residual", False)
    if type(residual) is not bool:
        raise ModelError(f"expected a residual layer to be true or false, got {residual!r:.60}")
    return Convolution(_linear(description, tensors), integer(description["kernel"]), residual)


def _linear(description: Any, tensors: Iterator[Tensors]) -> Linear:
    numbers = (integer(description[key]) for key in ("shift", "minimum", "maximum"))
    try:
        return Linear(*next(tensors), *numbers)
    except StopIteration:
        raise ModelError("a network has fewer weights than its description asks for") from None
