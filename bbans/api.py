"""The library's front door."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, cast

from numpy.typing import NDArray

from bbans.buffers import open_buffer
from bbans.codec import Codec, scale_of_rows
from bbans.companions import Companions, write_with_companions
from bbans.container import ModelReference, read_directory, read_embedded
from bbans.embedded import extract
from bbans.errors import ModelError, StoredWarning
from bbans.model import Model, find_model, load_model, read_model, shipped_models
from bbans.reader import CompressedArray
from bbans.rows import Rows, Spread, block_of, sample_of
from bbans.symbols import SupportsDLPack, count_images, numeric_array, to_symbols

if TYPE_CHECKING:
    from typing_extensions import Buffer

SAMPLE_IMAGES = 64
SAMPLE_PIXELS = 1 << 13
"""Of a model for images of any size: so few that compiled code need not be loaded."""
LEAST_SIDE = 16


Source: TypeAlias = "str | os.PathLike[str] | Buffer | BinaryIO"
"""Where a `.bba` file is read: a path, what holds its bytes, or a binary file."""


def choose_model(array: NDArray[Any] | SupportsDLPack, models: Sequence[Model] | None = None) -> Model | None:
    """The one of some ``models``, by default those shipped, that codes a sample of ``array`` in the fewest bytes, or
    None if none fits.

    A model fits if the array is made of images of its shape and holds no values but its own. One for images of any size
    is tried for those that have at least 16 rows and columns.
    """
    array = numeric_array(array)
    return choose_model_for(array, models=models) if array.size else None


def choose_model_for(rows: Rows, spread: Spread | None = None, models: Sequence[Model] | None = None) -> Model | None:
    """:func:`choose_model`, for one or more rows that may lie anywhere, looked through where ``spread`` says."""
    if models is None:
        models = [read_model(path) for path in shipped_models().values()]
    models = [model for model in models if _suits(model, rows.shape)]
    scales = {symbols: scale_of_rows(rows, symbols, spread) for symbols in {model.symbols for model in models}}
    candidates = [(model, scale) for model in models if (scale := scales[model.symbols]) is not None]
    if len(candidates) < 2:
        return candidates[0][0] if candidates else None
    return min(candidates, key=lambda candidate: _sample_cost(rows, *candidate))[0]


def _suits(model: Model, shape: tuple[int, ...]) -> bool:
    """Whether an array of a shape holds images of the model; what is lower or narrower than :data:`LEAST_SIDE` is
    hardly an image, unless the model is for just that size.
    """
    image_shape = model.fitted_to(shape).image_shape
    large = not model.any_size or min(image_shape[:2]) >= LEAST_SIDE
    return large and bool(count_images(shape, image_shape))


def _sample_cost(rows: Rows, model: Model, scale: int) -> float:
    """Bytes that a value takes, in a few images from all over the array or the middle of large ones."""
    fitted = model.fitted_to(rows.shape)
    if fitted.any_size:
        if math.prod(rows.shape[1:]) < fitted.pixels:  # all rows together are one image
            lines = max(1, SAMPLE_PIXELS // math.prod(rows.shape[1:]))
            start = max(0, rows.shape[0] - lines) // 2
            sample = block_of(rows, slice(start, start + lines))[None]
        else:
            images = sample_of(rows, fitted.pixels, max(1, min(SAMPLE_IMAGES, SAMPLE_PIXELS // fitted.pixels)))
            sample = images.reshape(-1, *fitted.image_shape)
            lines = max(1, SAMPLE_PIXELS // math.prod(sample.shape[2:]))
            start = max(0, sample.shape[1] - lines) // 2
            sample = sample[:, start : start + lines]
        fitted = model.fitted_to(sample.shape)
    else:
        sample = sample_of(rows, fitted.pixels, SAMPLE_IMAGES)
    symbols = to_symbols(sample, scale).reshape(-1, fitted.pixels)
    codec = Codec.of(fitted, pixels=sample.size if fitted.any_size else None)
    return len(codec.chunk_coder().encode(symbols)) / sample.size


def compress(
    array: NDArray[Any] | SupportsDLPack,
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
    stored through zstandard, with a :class:`bbans.StoredWarning`. Arrays of other libraries, such as tensors, are taken
    where they lie in the machine's memory. Raises :class:`bbans.ArrayError` for arrays that don't hold numbers, or
    don't go together.

    >>> import bbans
    >>> images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 3)
    >>> data = bbans.compress(images)
    >>> bool((bbans.decompress(data) == images).all())
    True
    """
    array = numeric_array(array)
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
        pixels=array.size,
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
    array: NDArray[Any] | SupportsDLPack,
    model: str | os.PathLike[str] | Model | None,
    shipped: Sequence[Model] | None = None,
) -> Model | None:
    """The model that ``model`` means for ``array``: see :func:`compress`; ``shipped`` are what auto chooses from."""
    if model is None or isinstance(model, Model):
        return model
    return choose_model(array, shipped) if model == "auto" else load_model(model)


def decompress(
    data: Source,
    *,
    out: NDArray[Any] | None = None,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    max_memory: int | None = None,
) -> NDArray[Any]:
    """The array that the bytes of a `.bba` file hold; the arguments are those of :func:`bbans.open`.

    With ``out``, an array of just its shape and type, it is decoded there: see :meth:`bbans.CompressedArray.read`.
    Raises :class:`bbans.FormatError` if ``data`` is damaged, :class:`bbans.LimitError` if it would take more than
    ``max_memory`` bytes, and :class:`bbans.ModelError` if the model it was written with is missing.
    """
    compressed = open_array(
        data, model=model, engine=engine, device=device, ans=ans, threads=threads, max_memory=max_memory
    )
    try:
        return compressed.read(out=out)
    finally:
        if not _is_file(data):
            compressed.close()


def open_array(
    source: Source,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    max_memory: int | None = None,
) -> CompressedArray:
    """Open a `.bba` file by its path, as what holds its bytes, or as a binary file, without decoding any of it.

    What can't be searched, such as a pipe, is first read to its end. ``model`` is needed only if the file was written
    with a model that neither comes with the package nor lies in the file. If it is given, an embedded model is not
    read. ``max_memory`` bounds what decoding may take, half of the machine's by default. The other arguments are those
    of :meth:`bbans.Codec.of`.
    """
    path = None
    if isinstance(source, (str, os.PathLike)):
        path = os.path.abspath(source)
        file: BinaryIO = open(source, "rb")  # noqa: SIM115 - closed with the CompressedArray
    elif _is_file(source):
        file = source if source.seekable() else open_buffer(source.read())
    else:
        file = open_buffer(cast("Buffer", source))
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
        return CompressedArray(file, codec, max_memory, path)
    except BaseException:
        if file is not source:
            file.close()
        raise


def _is_file(source: Source) -> TypeGuard[BinaryIO]:
    return hasattr(source, "read") and hasattr(source, "seekable")


def _model_of(reference: ModelReference, model: str | os.PathLike[str] | Model | None) -> Model:
    """The model that a file names: ``model`` if given, else what :func:`find_model` finds by that name.

    A name is never taken for a path: what a file says must not make anything be opened.
    """
    if isinstance(model, Model):
        return model
    try:
        return read_model(find_model(reference.name)) if model is None else load_model(model)
    except ModelError as error:
        where = "; say where it lies (--model)" if model is None else ""
        raise ModelError(f"the file needs model {reference.name}: {error}{where}") from error
