"""A frozen model: what a file is coded with, as one `.safetensors` file of integers.

The file holds the decoder, one encoder for each posterior, and a JSON description under the metadata key
``bbans``. Reading it runs no code and trusts nothing: the networks prove their exactness again when they are
loaded (:mod:`bbans.portable.network`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bbans.errors import ArrayError, ModelError
from bbans.portable.context import ContextDecoder, ConvolutionalDecoder
from bbans.portable.convolution import ConvolutionalNetwork
from bbans.portable.description import AnyNetwork, Tensors, build_network, describe_network, integer, layers_of
from bbans.portable.local import LocalNetwork
from bbans.portable.network import Network
from bbans.symbols import REAL_KINDS, count_images

FILE_NAME = "model.safetensors"
FORMAT = 1
IDENTITY_BYTES = 8
SYMBOLS = {"bernoulli": 2, "discretized-logistic": 256, "channel-linear-logistic": 256, "logistic-mixture": 256}
"""The likelihoods there are, and how many values a pixel has under each."""
COMPONENTS_MAXIMUM = 64
NO_POSTERIOR = "none"
"""What the posterior of a model without latents is called."""
MODELS_VARIABLE = "BBANS_MODELS"
"""The environment variable for :func:`find_model`."""


@dataclass(frozen=True, eq=False)
class Model:
    """p(z), p(x given z) and one or more q(z given x), in integers; or p(x) for images of any size, without latents.

    Raises :class:`bbans.errors.ModelError` if the parts don't fit together.
    """

    name: str
    image_shape: tuple[int, ...]
    """Height, width, and channels if images have such an axis. Height and width are 0 if they may be any: see
    :meth:`fitted_to`."""
    likelihood: str
    """A key of :data:`SYMBOLS`."""
    latents: int
    latent_precision: int
    """log2 of the number of bins of a latent."""
    image_bits: int
    """About how many bits an image adds to the stack, or 1,024 values of images of any size..."""
    latent_bits: int
    """...and how many it borrows for its latents meanwhile; both decide how fast batches grow."""
    decoder: Network | ContextDecoder | ConvolutionalDecoder | LocalNetwork
    encoders: Mapping[str, Network | ConvolutionalNetwork]
    """By the name of the posterior; the first is the default. Convolutional if the decoder is, or has context. There
    are none beside a local network."""
    components: int = 0
    """Of a ``logistic-mixture``..."""
    masses: tuple[int, ...] = ()
    """...and its levels with a point mass, in order."""

    def __post_init__(self) -> None:
        if self.likelihood not in SYMBOLS:
            raise ModelError(f"model {self.name}: unknown likelihood {self.likelihood!r}")
        if self.likelihood == "logistic-mixture":
            levels = list(self.masses)
            if not 1 <= self.components <= COMPONENTS_MAXIMUM or levels != sorted(set(levels) & set(range(256))):
                raise ModelError(f"model {self.name}: a mixture of {self.components} with masses at {levels}")
        if isinstance(self.decoder, LocalNetwork):
            self._check_local(self.decoder)
            return
        if not self.image_shape or min(self.image_shape) < 1 or self.latents < 1 or not self.encoders:
            raise ModelError(f"model {self.name}: it needs a shape, latents and an encoder")
        if not 1 <= self.latent_precision <= 16 or min(self.image_bits, self.latent_bits) < 1:
            raise ModelError(f"model {self.name}: bins of 1 to 16 bits and positive sizes expected")
        if self.likelihood == "channel-linear-logistic" and not (
            isinstance(self.decoder, ConvolutionalDecoder) and self.channels == 3
        ):
            raise ModelError(f"model {self.name}: {self.likelihood} is for three channels and a convolutional decoder")
        if not isinstance(self.decoder, Network):
            self._check_maps(self.decoder)
            return
        self._check_width("decoder", self.decoder, self.latents, self.pixels * self.outputs_per_pixel)
        for name, encoder in self.encoders.items():
            self._check_width(f"encoder {name}", encoder, self.pixels, 2 * self.latents)

    def _check_maps(self, decoder: ContextDecoder | ConvolutionalDecoder) -> None:
        """Raise unless the convolutions, and the context network if there is one, fit the images."""
        upward, channels = decoder.upward, self.channels
        if isinstance(decoder, ContextDecoder):
            channels = len(decoder.context.heads)
            outputs = len(decoder.context.heads[0].output.weight) * channels
        else:
            outputs = upward.outputs
        size, latent_size = upward.sizes[-1], upward.sizes[0]
        if self.image_shape not in ((*size, channels), size if channels == 1 else ()):
            raise ModelError(f"model {self.name}: its networks make images of {size} with {channels} channels")
        if self.outputs_per_pixel * channels != outputs or upward.inputs * math.prod(latent_size) != self.latents:
            raise ModelError(f"model {self.name}: its networks don't fit its latents or its likelihood")
        if decoder.pixel_input.symbols != self.symbols:
            raise ModelError(f"model {self.name}: its networks take other values than its likelihood")
        for name, encoder in self.encoders.items():
            seen = decoder.pixel_input.channels(channels)
            if not isinstance(encoder, ConvolutionalNetwork) or (
                (encoder.inputs, encoder.outputs) != (seen, 2 * upward.inputs)
                or (encoder.sizes[0], encoder.sizes[-1]) != (size, latent_size)
                or encoder.input_magnitude < decoder.pixel_input.magnitude
            ):
                raise ModelError(f"model {self.name}: encoder {name} does not fit its decoder")

    def _check_local(self, network: LocalNetwork) -> None:
        """Raise unless the network's outputs are the likelihood's, and there is nothing about latents."""
        if self.image_shape[2:] not in (self._colours, (network.channels + 1,)) or min(self.image_shape) < 0:
            raise ModelError(f"model {self.name}: its network is for images of {network.channels} channels")
        if network.outputs != self.outputs_per_pixel or network.pixel_input.symbols != self.symbols:
            raise ModelError(f"model {self.name}: its network does not fit its likelihood")
        if self.encoders or self.latents or self.latent_precision or self.latent_bits or self.image_bits < 1:
            raise ModelError(f"model {self.name}: a model for images of any size has no latents, and a positive size")

    def _check_width(self, part: str, network: AnyNetwork, inputs: int, outputs: int) -> None:
        if not isinstance(network, Network) or (network.inputs, network.outputs) != (inputs, outputs):
            raise ModelError(f"model {self.name}, {part}: expected a network of {inputs} inputs and {outputs} outputs")

    @property
    def outputs_per_pixel(self) -> int:
        """How many decoder outputs a pixel's distribution needs."""
        if self.likelihood == "logistic-mixture":
            return len(self.masses) + 3 * self.components
        return {"bernoulli": 1, "discretized-logistic": 2, "channel-linear-logistic": 3}[self.likelihood]

    @property
    def channels(self) -> int:
        """Channels of an image: the length of its third axis, if it has one."""
        return self.image_shape[2] if len(self.image_shape) == 3 else 1

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return math.prod(self.image_shape)

    @property
    def any_size(self) -> bool:
        """Whether height and width of images may be any."""
        return isinstance(self.decoder, LocalNetwork)

    def fitted_to(self, shape: tuple[int, ...]) -> Model:
        """The model for images as an array of ``shape`` holds them: another one only if those may have any size.

        Images may have a channel more than the model: how opaque a pixel is. Grey ones may have an axis for their one
        channel.

        >>> model = load_model("photo")
        >>> model.image_shape, model.fitted_to((10, 480, 640, 3)).image_shape, model.fitted_to((10, 9)).image_shape
        ((0, 0, 3), (480, 640, 3), (0, 0, 3))
        """
        if not isinstance(self.decoder, LocalNetwork):
            return self
        wanted = (0, 0, *self._colours)
        channels = self.decoder.channels
        for colours in ((channels + 1,), (channels,), self._colours):  # with an opacity, or without
            image = shape[-2 - len(colours) :]
            if len(image) == 2 + len(colours) and image[2:] == colours and min(image) > 0:
                wanted = image if colours == (channels + 1,) else (*image[:2], *self._colours)
                break
        return self if wanted == self.image_shape else replace(self, image_shape=wanted)

    @property
    def _colours(self) -> tuple[int, ...]:
        """The axes of an image after height and width, of a model for any size."""
        assert isinstance(self.decoder, LocalNetwork)
        return (self.decoder.channels,) if self.decoder.channels > 1 else ()

    def multiply_adds(self, pixels: int) -> int:
        """About how many coding so many pixels takes."""
        if isinstance(self.decoder, LocalNetwork):
            return self.decoder.multiply_adds * pixels // self.channels
        encoder = self.encoders[self.default_posterior]
        return (self.decoder.multiply_adds + encoder.multiply_adds) * pixels // self.pixels

    @property
    def symbols(self) -> int:
        """How many values a pixel can take: ``0 .. symbols - 1``."""
        return SYMBOLS[self.likelihood]

    def check_images(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raise :class:`bbans.errors.ArrayError` unless an array of this shape and type can be made of images.

        Its values may still be others than the model's.
        """
        if dtype.kind not in REAL_KINDS:
            raise ArrayError(f"model {self.name} takes booleans, integers and floats, not elements of type {dtype}")
        fitted = self.fitted_to(shape)
        if 0 in shape or not count_images(shape, fitted.image_shape):
            image = fitted.shape_text[1:-1]
            raise ArrayError(
                f"model {self.name} takes images of shape ({image}): arrays, or chunks of one, of shape (n, {image}), "
                f"not {shape}"
            )

    @property
    def shape_text(self) -> str:
        """The shape of an image, as errors say it.

        >>> load_model("mnist").shape_text, load_model("photo").shape_text
        ('(28, 28)', '(any, any, 3)')
        """
        return "(" + ", ".join(str(size or "any") for size in self.image_shape) + ")"

    @property
    def default_posterior(self) -> str:
        """The first encoder's name, or :data:`NO_POSTERIOR`."""
        return self.posteriors[0]

    @property
    def posteriors(self) -> tuple[str, ...]:
        """What files can be coded with."""
        return tuple(self.encoders) or (NO_POSTERIOR,)

    def encoder(self, posterior: str) -> Network | ConvolutionalNetwork:
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
        try:
            return self._identities[posterior]
        except KeyError:
            known = ", ".join(self.posteriors)
            raise ModelError(f"model {self.name} has no posterior {posterior!r}; it has: {known}") from None

    @cached_property
    def _identities(self) -> dict[str, bytes]:
        generative = {key: value for key, value in describe(self).items() if key not in ("name", "encoders")}
        generative_hash = _hash(generative, self.decoder)
        if not self.encoders:
            return {NO_POSTERIOR: generative_hash[:IDENTITY_BYTES]}
        return {
            name: hashlib.sha256(generative_hash + _hash(describe_network(encoder), encoder)).digest()[:IDENTITY_BYTES]
            for name, encoder in self.encoders.items()
        }


def save_model(model: Model, path: Path) -> None:
    """Write the model's file."""
    tensors: dict[str, NDArray[Any]] = {}
    for prefix, network in _networks(model).items():
        for index, layer in enumerate(layers_of(network)):
            tensors[f"{prefix}.{index}.weight"] = layer.weight
            tensors[f"{prefix}.{index}.bias"] = layer.bias
    path.write_bytes(save(tensors, {"bbans": json.dumps(describe(model))}))


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
        networks = {"decoder": description["decoder"]}
        networks |= {f"encoders.{name}": part for name, part in description["encoders"].items()}
        return build(
            description, {prefix: build_network(part, _tensors(prefix, tensors)) for prefix, part in networks.items()}
        )
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a bbans model: {type(error).__name__}: {error}") from error


def build(description: Any, networks: Mapping[str, AnyNetwork]) -> Model:
    """The model of a description, with the networks ``decoder`` and ``encoders.NAME``.

    Raises :class:`bbans.errors.ModelError` if it makes no sense, and :class:`KeyError`, :class:`TypeError` or
    :class:`ValueError` if it is not a description at all.
    """
    mixture = description["likelihood"] == "logistic-mixture"
    decoder = networks["decoder"]
    if isinstance(decoder, ConvolutionalNetwork):
        raise ModelError("convolutions alone are no decoder")
    encoders: dict[str, Network | ConvolutionalNetwork] = {}
    for name in map(str, description["encoders"]):
        encoder = networks[f"encoders.{name}"]
        if isinstance(encoder, ContextDecoder | ConvolutionalDecoder | LocalNetwork):
            raise ModelError(f"encoder {name} is a decoder")
        encoders[name] = encoder
    return Model(
        name=str(description["name"]),
        image_shape=tuple(integer(size) for size in description["image_shape"]),
        likelihood=str(description["likelihood"]),
        latents=integer(description["latents"]),
        latent_precision=integer(description["latent_precision"]),
        image_bits=integer(description["image_bits"]),
        latent_bits=integer(description["latent_bits"]),
        decoder=decoder,
        encoders=encoders,
        components=integer(description["components"]) if mixture else 0,
        masses=tuple(integer(level) for level in description["masses"]) if mixture else (),
    )


def describe(model: Model) -> dict[str, Any]:
    """All of a model but the weights and biases of its networks."""
    mixture: dict[str, Any] = {}
    if model.likelihood == "logistic-mixture":
        mixture = {"components": model.components, "masses": list(model.masses)}
    return {
        "format": FORMAT,
        "name": model.name,
        "image_shape": list(model.fitted_to(()).image_shape),
        "likelihood": model.likelihood,
        **mixture,
        "latents": model.latents,
        "latent_precision": model.latent_precision,
        "image_bits": model.image_bits,
        "latent_bits": model.latent_bits,
        "decoder": describe_network(model.decoder),
        "encoders": {name: describe_network(encoder) for name, encoder in model.encoders.items()},
    }


def _networks(model: Model) -> dict[str, AnyNetwork]:
    return {"decoder": model.decoder} | {f"encoders.{name}": network for name, network in model.encoders.items()}


def _tensors(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Iterator[Tensors]:
    """Weights and biases of the layers of a network, checked as far as one layer can be."""
    for index in itertools.count():
        weight, bias = tensors[f"{prefix}.{index}.weight"], tensors[f"{prefix}.{index}.bias"]
        if (weight.dtype.str, weight.ndim, bias.dtype.str, bias.ndim) != ("<i2", 2, "<i8", 1) or not weight.size:
            raise ModelError(
                f"{prefix}, layer {index}: expected an int16 matrix and an int64 vector, got {weight.dtype} "
                f"{weight.shape} and {bias.dtype} {bias.shape}"
            )
        yield weight, bias


def _hash(description: dict[str, Any], network: AnyNetwork) -> bytes:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode())
    for layer in layers_of(network):
        for tensor, kind in ((layer.weight, "<i2"), (layer.bias, "<i8")):
            digest.update(repr(tensor.shape).encode())
            digest.update(np.ascontiguousarray(tensor, kind).tobytes())
    return digest.digest()


def shipped_models() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    package = Path(os.path.dirname(__file__))
    for folder in (package / "models", package.parent / "models"):
        if folder.is_dir():
            return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{FILE_NAME}"))}
    return {}


def find_model(name: str) -> Path:
    """The folder of the model of a name, which comes with the package or lies where ``BBANS_MODELS`` says.

    This environment variable names folders, separated as in ``PATH``, each of which holds folders of models. Raises
    :class:`bbans.errors.ModelError` if there is none. The name is never taken for a path.
    """
    found = _named_models().get(name)
    if found is None:
        raise ModelError(
            f"there is no model {name!r} that comes with bbans, nor one in a folder that {MODELS_VARIABLE} names"
        )
    return found


def _named_models() -> dict[str, Path]:
    """The folders of all models that :func:`find_model` finds."""
    places = [place for place in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if place]
    named = {path.parent.name: path.parent for place in reversed(places) for path in Path(place).glob(f"*/{FILE_NAME}")}
    return named | shipped_models()


def load_model(model: str | os.PathLike[str]) -> Model:
    """A model by its name, as :func:`find_model` finds it, or by the path of its folder or file.

    >>> load_model("gg-mnist-binary").image_shape
    (28, 28)

    Raises :class:`bbans.errors.ModelError` if there is none.
    """
    named = _named_models()
    path = named.get(str(model), Path(model))
    if path.exists():
        return read_model(path)
    raise ModelError(
        f"there is no model {os.fspath(model)!r}: expected a path, or one of: {', '.join(named) or '(none shipped)'}"
    )
