"""A frozen model: what a file is coded with, as one `.safetensors` file of integers.

The file holds the decoder, one encoder for each posterior, and a JSON description under the metadata key
``bbans``. Reading it runs no code and trusts nothing: the networks prove their exactness again when they are
loaded (:mod:`bbans.portable.network`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bbans.errors import ModelError
from bbans.portable.network import Linear, Network

FILE_NAME = "model.safetensors"
FORMAT = 1
IDENTITY_BYTES = 8
SYMBOLS = {"bernoulli": 2, "discretized-logistic": 256}
"""The likelihoods there are, and how many values a pixel has under each."""
OUTPUTS_PER_PIXEL = {"bernoulli": 1, "discretized-logistic": 2}


@dataclass(frozen=True, eq=False)
class Model:
    """p(z), p(x given z) and one or more q(z given x), in integers.

    Raises :class:`bbans.errors.ModelError` if the parts don't fit together.
    """

    name: str
    image_shape: tuple[int, ...]
    likelihood: str
    """A key of :data:`SYMBOLS`."""
    latents: int
    latent_precision: int
    """log2 of the number of bins of a latent."""
    image_bits: int
    """About how many bits an image adds to the stack..."""
    latent_bits: int
    """...and how many it borrows for its latents meanwhile; both decide how fast batches grow."""
    decoder: Network
    encoders: Mapping[str, Network]
    """By the name of the posterior; the first is the default."""

    def __post_init__(self) -> None:
        if self.likelihood not in SYMBOLS:
            raise ModelError(f"model {self.name}: unknown likelihood {self.likelihood!r}")
        if not self.image_shape or min(self.image_shape) < 1 or self.latents < 1 or not self.encoders:
            raise ModelError(f"model {self.name}: it needs a shape, latents and an encoder")
        if not 1 <= self.latent_precision <= 16 or min(self.image_bits, self.latent_bits) < 1:
            raise ModelError(f"model {self.name}: bins of 1 to 16 bits and positive sizes expected")
        _check_width(self, "decoder", self.decoder, self.latents, self.pixels * OUTPUTS_PER_PIXEL[self.likelihood])
        for name, encoder in self.encoders.items():
            _check_width(self, f"encoder {name}", encoder, self.pixels, 2 * self.latents)

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return math.prod(self.image_shape)

    @property
    def symbols(self) -> int:
        """How many values a pixel can take: ``0 .. symbols - 1``."""
        return SYMBOLS[self.likelihood]

    @property
    def default_posterior(self) -> str:
        """The first encoder's name."""
        return next(iter(self.encoders))

    def encoder(self, posterior: str) -> Network:
        """The encoder of a posterior; :class:`bbans.errors.ModelError` if the model has none of that name."""
        try:
            return self.encoders[posterior]
        except KeyError:
            known = ", ".join(self.encoders)
            raise ModelError(f"model {self.name} has no posterior {posterior!r}; it has: {known}") from None

    def identity(self, posterior: str) -> bytes:
        """Eight bytes of a hash of all that decides what a file coded with ``posterior`` holds.

        Names don't count, nor do other encoders: adding one keeps old files readable.
        """
        return self._identities[posterior]

    @cached_property
    def _identities(self) -> dict[str, bytes]:
        generative = {key: value for key, value in _describe(self).items() if key not in ("name", "encoders")}
        generative_hash = _hash(generative, self.decoder)
        return {
            name: hashlib.sha256(generative_hash + _hash(_describe_network(encoder), encoder)).digest()[:IDENTITY_BYTES]
            for name, encoder in self.encoders.items()
        }


def save_model(model: Model, path: Path) -> None:
    """Write the model's file."""
    tensors: dict[str, NDArray[Any]] = {}
    for prefix, network in _networks(model).items():
        for index, layer in enumerate(network.layers):
            tensors[f"{prefix}.{index}.weight"] = layer.weight
            tensors[f"{prefix}.{index}.bias"] = layer.bias
    path.write_bytes(save(tensors, {"bbans": json.dumps(_describe(model))}))


def read_model(path: Path) -> Model:
    """Read a model from its file, or from the folder that holds it.

    Raises :class:`bbans.errors.ModelError` if it is not a whole, sane model.
    """
    if path.is_dir():
        path = path / FILE_NAME
    try:
        with safe_open(path, framework="numpy") as file:
            description = json.loads((file.metadata() or {})["bbans"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        if description["format"] != FORMAT:
            raise ModelError(
                f"{path}: a model of format {description['format']}; this version of bbans reads format {FORMAT}"
            )
        return Model(
            name=str(description["name"]),
            image_shape=tuple(_integer(size) for size in description["image_shape"]),
            likelihood=str(description["likelihood"]),
            latents=_integer(description["latents"]),
            latent_precision=_integer(description["latent_precision"]),
            image_bits=_integer(description["image_bits"]),
            latent_bits=_integer(description["latent_bits"]),
            decoder=_network(description["decoder"], "decoder", tensors),
            encoders={
                str(name): _network(part, f"encoders.{name}", tensors) for name, part in description["encoders"].items()
            },
        )
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a bbans model: {type(error).__name__}: {error}") from error


def _networks(model: Model) -> dict[str, Network]:
    return {"decoder": model.decoder} | {f"encoders.{name}": network for name, network in model.encoders.items()}


def _describe(model: Model) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": model.name,
        "image_shape": list(model.image_shape),
        "likelihood": model.likelihood,
        "latents": model.latents,
        "latent_precision": model.latent_precision,
        "image_bits": model.image_bits,
        "latent_bits": model.latent_bits,
        "decoder": _describe_network(model.decoder),
        "encoders": {name: _describe_network(encoder) for name, encoder in model.encoders.items()},
    }


def _describe_network(network: Network) -> dict[str, Any]:
    return {
        "input_magnitude": network.input_magnitude,
        "layers": [
            {"kind": "linear", "shift": layer.shift, "minimum": layer.minimum, "maximum": layer.maximum}
            for layer in network.layers
        ],
    }


def _network(description: Any, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Network:
    layers = []
    for index, part in enumerate(description["layers"]):
        if part["kind"] != "linear":
            raise ModelError(f"{prefix}: this version of bbans knows no layer of kind {part['kind']!r}")
        weight, bias = tensors[f"{prefix}.{index}.weight"], tensors[f"{prefix}.{index}.bias"]
        if (weight.dtype.str, weight.ndim, bias.dtype.str, bias.ndim) != ("<i2", 2, "<i8", 1) or not weight.size:
            raise ModelError(
                f"{prefix}, layer {index}: expected an int16 matrix and an int64 vector, got {weight.dtype} "
                f"{weight.shape} and {bias.dtype} {bias.shape}"
            )
        numbers = (_integer(part[key]) for key in ("shift", "minimum", "maximum"))
        layers.append(Linear(weight, bias, *numbers))
    return Network(_integer(description["input_magnitude"]), tuple(layers))


def _integer(value: Any) -> int:
    """An integer of a description, refused if it is something else or absurd."""
    if type(value) is not int or abs(value) > 1 << 40:
        raise ModelError(f"expected an integer of at most 40 bits in a model's description, got {value!r:.60}")
    return value


def _hash(description: dict[str, Any], network: Network) -> bytes:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode())
    for layer in network.layers:
        for tensor, kind in ((layer.weight, "<i2"), (layer.bias, "<i8")):
            digest.update(repr(tensor.shape).encode())
            digest.update(np.ascontiguousarray(tensor, kind).tobytes())
    return digest.digest()


def _check_width(model: Model, part: str, network: Network, inputs: int, outputs: int) -> None:
    if (network.inputs, network.outputs) != (inputs, outputs):
        raise ModelError(
            f"model {model.name}, {part}: expected {inputs} inputs and {outputs} outputs, got "
            f"{network.inputs} and {network.outputs}"
        )


def shipped_models() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    package = Path(os.path.dirname(__file__))
    for folder in (package / "models", package.parent / "models"):
        if folder.is_dir():
            return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{FILE_NAME}"))}
    return {}


def load_model(model: str | os.PathLike[str]) -> Model:
    """A model by the name of a shipped one, or by the path of its folder or file.

    >>> load_model("gg-mnist-binary").image_shape
    (28, 28)

    Raises :class:`bbans.errors.ModelError` if there is none.
    """
    shipped = shipped_models()
    if str(model) in shipped:
        return read_model(shipped[str(model)])
    path = Path(model)
    if path.exists():
        return read_model(path)
    raise ModelError(
        f"there is no model {os.fspath(model)!r}: expected a path, or one of: {', '.join(shipped) or '(none shipped)'}"
    )
