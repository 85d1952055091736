"""Networks as a description in JSON and a list of layers, which is how they are stored, hashed and embedded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ModelError
from bbans.portable.context import Block, ContextDecoder, ContextNetwork, Head, PixelInput
from bbans.portable.convolution import Convolution, ConvolutionalNetwork
from bbans.portable.network import Linear, Network

AnyNetwork = Network | ConvolutionalNetwork | ContextDecoder
Tensors = tuple[NDArray[np.int16], NDArray[np.int64]]
"""Weights and biases of a layer."""


def layers_of(network: AnyNetwork) -> tuple[Linear, ...]:
    """All layers, in the order of the description."""
    if isinstance(network, Network):
        return network.layers
    if isinstance(network, ConvolutionalNetwork):
        return tuple(layer.product for layer in network.layers)
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
            "layers": [{"kernel": layer.kernel, **_describe(layer.product)} for layer in network.layers],
        }
    context, pixel_input = network.context, network.context.pixel_input
    return {
        "kind": "context",
        "upward": describe_network(network.upward),
        "symbols": pixel_input.symbols,
        "centre": pixel_input.centre,
        "gain": pixel_input.gain,
        "unit": pixel_input.unit,
        "ranges": [list(part) for part in pixel_input.ranges],
        "rows": context.rows,
        "columns": context.columns,
        "feature_magnitude": context.feature_magnitude,
        "features": context.features,
        "window": _describe(context.window),
        "blocks": [[_describe(block.mix), _describe(block.project)] for block in context.blocks],
        "heads": [[_describe(head.hidden), _describe(head.output)] for head in context.heads],
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
        layers = (Convolution(_linear(part, tensors), integer(part["kernel"])) for part in description["layers"])
        return ConvolutionalNetwork(integer(description["input_magnitude"]), sizes, tuple(layers))
    if kind == "context":
        upward = build_network(description["upward"], tensors)
        if not isinstance(upward, ConvolutionalNetwork):
            raise ModelError("a context decoder starts with convolutions")
        return ContextDecoder(upward, _context(description, tensors))
    raise ModelError(f"this version of bbans knows no network of kind {kind!r}")


def _context(description: Any, tensors: Iterator[Tensors]) -> ContextNetwork:
    ranges = tuple((integer(first), integer(last)) for first, last in description["ranges"])
    window = _linear(description["window"], tensors)
    blocks = [Block(_linear(mix, tensors), _linear(project, tensors)) for mix, project in description["blocks"]]
    heads = [Head(_linear(hidden, tensors), _linear(output, tensors)) for hidden, output in description["heads"]]
    return ContextNetwork(
        PixelInput(
            integer(description["symbols"]),
            integer(description["centre"]),
            integer(description["gain"]),
            integer(description["unit"]),
            ranges,
        ),
        integer(description["rows"]),
        integer(description["columns"]),
        window,
        integer(description["feature_magnitude"]),
        integer(description["features"]),
        tuple(blocks),
        tuple(heads),
    )


def integer(value: Any) -> int:
    """An integer of a description, refused if it is something else or absurd."""
    if type(value) is not int or abs(value) > 1 << 40:
        raise ModelError(f"expected an integer of at most 40 bits in a model's description, got {value!r:.60}")
    return value


def _describe(layer: Linear) -> dict[str, int]:
    return {"shift": layer.shift, "minimum": layer.minimum, "maximum": layer.maximum}


def _linear(description: Any, tensors: Iterator[Tensors]) -> Linear:
    numbers = (integer(description[key]) for key in ("shift", "minimum", "maximum"))
    try:
        return Linear(*next(tensors), *numbers)
    except StopIteration:
        raise ModelError("a network has fewer weights than its description asks for") from None
