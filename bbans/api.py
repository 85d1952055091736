"""The library's front door."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.codec import Codec
from bbans.companions import Companions, write_with_companions
from bbans.container import ModelReference, read_directory, read_embedded
from bbans.embedded import extract
from bbans.errors import ModelError, StoredWarning
from bbans.model import Model, load_model, read_model, shipped_models
from bbans.reader import CompressedArray
from bbans.symbols import check_numeric, count_images, find_scale, sample_of, to_symbols

SAMPLE_IMAGES = 64


def choose_model(array: NDArray[Any], models: Sequence[Model] | None = None) -> Model | None:
    """The one of some ``models``, by default those shipped, that codes a sample of ``array`` in the fewest bytes, or
    None if none fits.

    A model fits if the array is made of images of its shape and holds no values but its own.
    """
    check_numeric(array)
    candidates = []
    if models is None:
        models = [read_model(path) for path in shipped_models().values()] if array.size else []
    for model in models if array.size else ():
        if count_images(array.shape, model.image_shape) and find_scale(array, model.symbols) is not None:
            candidates.append(model)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    return min(candidates, key=lambda model: _sample_cost(array, model))


def _sample_cost(array: NDArray[Any], model: Model) -> int:
    """Bytes that a few images from all over the array take."""
    sample = sample_of(array.reshape(-1, model.pixels), SAMPLE_IMAGES)
    scale = find_scale(sample, model.symbols)
    assert scale is not None
    return len(Codec.of(model).chunk_coder().encode(to_symbols(sample, scale).astype(np.int64)))


def compress(
    array: NDArray[Any],
    *,
    model: str | os.PathLike[str] | Model | None = "auto",
    posterior: str | None = None,
    steps: int = 0,
    chunk_size: int | None = None,
    embed_model: bool = False,
    ordered: bool = True,
    companions: Companions | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
) -> bytes:
    """Compress an array of images to the bytes of a `.bba` file.

    ``model`` is the name of a shipped model, a path, a loaded model, None for zstandard alone, or ``"auto"`` for
    what suits the array best: a shipped model, or for each chunk zstandard at level 19 if that is smaller still.
    ``chunk_size`` is the number of rows coded together. With ``embed_model`` the weights are in the file, which then
    decodes with nothing else. Unless ``ordered``, the images are a set: they come back in a canonical order, the same
    for the same images (:mod:`bbans.canonical`), and the log2(n!) bits that the order of n of them takes are saved;
    ``chunk_size`` is then the number of rows of a set, all by default. ``companions`` are arrays that belong to the
    rows, such as labels, by their names: the bytes are then those of a collection, from which
    :func:`bbans.open_collection` reads ``images.npy`` and each companion, in the same order. The other arguments are
    those of :meth:`bbans.Codec.of`.

    An array that the model doesn't fit, or whose file the model's weights would make larger than zstandard does, is
    stored through zstandard, with a :class:`bbans.StoredWarning`. Raises
    :class:`bbans.ArrayError` for arrays that don't hold numbers, or don't go together.

    >>> import bbans
    >>> images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 3)
    >>> data = bbans.compress(images)
    >>> bool((bbans.decompress(data) == images).all())
    True
    """
    codec = Codec.of(
        resolve_model(array, model),
        posterior=posterior,
        steps=steps,
        engine=engine,
        device=device,
        ans=ans,
        threads=threads,
        thorough=model == "auto",
        embed_model=embed_model,
        pixels=np.size(array),
    )
    file = io.BytesIO()
    if companions:
        written = write_with_companions(file, "images", array, companions, codec, chunk_size, ordered)["images"]
    else:
        written = codec.write(file, array, chunk_size, ordered=ordered)
    if written.note is not None and model is not None:
        warnings.warn(written.note, StoredWarning, stacklevel=2)
    return file.getvalue()


def resolve_model(
    array: NDArray[Any], model: str | os.PathLike[str] | Model | None, shipped: Sequence[Model] | None = None
) -> Model | None:
    """The model that ``model`` means for ``array``: see :func:`compress`; ``shipped`` are what auto chooses from."""
    if model is None or isinstance(model, Model):
        return model
    return choose_model(array, shipped) if model == "auto" else load_model(model)


def decompress(
    data: bytes,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    max_memory: int | None = None,
) -> NDArray[Any]:
    """The array that the bytes of a `.bba` file hold; the arguments are those of :func:`bbans.open`.

    Raises :class:`bbans.FormatError` if ``data`` is damaged, :class:`bbans.LimitError` if it would take more than
    ``max_memory`` bytes, and :class:`bbans.ModelError` if the model it was written with is missing.
    """
    with open_array(
        data, model=model, engine=engine, device=device, ans=ans, threads=threads, max_memory=max_memory
    ) as compressed:
        return compressed.read()


def open_array(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    max_memory: int | None = None,
) -> CompressedArray:
    """Open a `.bba` file by its path, its bytes, or as a seekable binary file, without decoding any of it.

    ``model`` is needed only if the file was written with a model that neither comes with the package nor lies in the
    file. If it is given, an embedded model is not read. ``max_memory`` bounds what decoding may take, half of the
    machine's by default. The other arguments are those of :meth:`bbans.Codec.of`.
    """
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        file = open(source, "rb")  # noqa: SIM115 - closed with the CompressedArray
    else:
        file = source
    try:
        directory = read_directory(file)
        reference = directory.header.model
        loaded = None
        if reference is not None and model is None and directory.header.embedded is not None:
            loaded = extract(read_embedded(file, directory), reference)
        elif reference is not None:
            loaded = _model_of(reference, model)
        codec = Codec.of(
            loaded,
            posterior=reference.posterior if reference else None,
            steps=reference.steps if reference else 0,
            engine=engine,
            device=device,
            ans=ans,
            threads=threads,
            pixels=math.prod(directory.shape),
        )
        return CompressedArray(file, codec, max_memory)
    except BaseException:
        if file is not source:
            file.close()
        raise


def _model_of(reference: ModelReference, model: str | os.PathLike[str] | Model | None) -> Model:
    """The model that a file names: ``model`` if given, else the shipped one of that name.

    A name is never taken for a path: what a file says must not make anything be opened.
    """
    if isinstance(model, Model):
        return model
    try:
        if model is not None:
            return load_model(model)
        if reference.name in shipped_models():
            return load_model(reference.name)
    except ModelError as error:
        raise ModelError(f"the file needs model {reference.name}: {error}") from error
    raise ModelError(
        f"the file needs model {reference.name}: there is no model {reference.name!r} that comes with bbans; "
        "say where it lies (--model)"
    )
