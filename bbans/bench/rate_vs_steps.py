"""Rate and time of whole files against K, the steps that refine a posterior."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from bbans.bench.baselines import stored_rows
from bbans.bench.timing import round_trip
from bbans.codec import Codec
from bbans.errors import BenchmarkError
from bbans.model import Model
from bbans.symbols import count_images, find_scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARM_UP_IMAGES = 10


@dataclass(frozen=True)
class Point:
    """One file: one posterior, refined by one number of steps."""

    posterior: str
    steps: int
    bytes: int
    bits_per_dimension: float
    """Of the whole file, everything counted."""
    encode_seconds_per_image: float
    decode_seconds_per_image: float
    stored_rows: int
    """How many rows were smaller through zstandard, so that neither the posterior nor K mattered."""


def measure(
    model: Model, images: NDArray[Any], posteriors: Sequence[str], steps: Sequence[int], **coding: Any
) -> Iterator[Point]:
    """A point for each of ``posteriors`` (all of the model's if there are none) and ``steps``, verified.

    ``coding`` are further arguments of :meth:`bbans.Codec.of`. Raises :class:`bbans.errors.BenchmarkError` if the
    images are not the model's, and :class:`bbans.errors.ModelError` for a posterior or a K that it doesn't have,
    before anything is measured.
    """
    count = count_images(images.shape, model.fitted_to(images.shape).image_shape)
    if not count or find_scale(images, model.symbols) is None:
        raise BenchmarkError(
            f"model {model.name} does not fit: it takes images of shape {model.shape_text} with {model.symbols} "
            f"values, and this is {images.dtype} of shape {images.shape}"
        )
    codecs = [
        Codec.of(model, posterior=posterior, steps=number, **coding)
        for posterior in posteriors or model.posteriors
        for number in steps
    ]
    return (_point(codec, images, count) for codec in codecs)


def _point(codec: Codec, images: NDArray[Any], count: int) -> Point:
    codec.compress(images[:WARM_UP_IMAGES])
    result = round_trip(images, lambda part: [codec.compress(part)], lambda files: codec.decompress(files[0]))
    return Point(
        codec.posterior,
        codec.steps,
        result.size,
        8 * result.size / images.size,
        result.encode_seconds / count,
        result.decode_seconds / count,
        stored_rows(result.files[0]),
    )


def time_ratios(points: Sequence[Point]) -> list[tuple[float, float] | None]:
    """How many times longer each point took, to encode and to decode, than K = 0 with the same posterior.

    None where K = 0 was not measured.
    """
    bases = {point.posterior: point for point in points if point.steps == 0}
    return [
        (
            point.encode_seconds_per_image / base.encode_seconds_per_image,
            point.decode_seconds_per_image / base.decode_seconds_per_image,
        )
        if (base := bases.get(point.posterior))
        else None
        for point in points
    ]


def new_figure() -> Figure:
    """An empty figure; :class:`bbans.errors.BenchmarkError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BenchmarkError("a plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(10, 4.5), layout="constrained")


def check_format(figure: Figure, kind: str) -> None:
    """Raise :class:`bbans.errors.BenchmarkError` unless a figure can be saved as a file of this kind."""
    kinds = figure.canvas.get_supported_filetypes()
    if kind not in kinds:
        raise BenchmarkError(f"a plot can be a file of type {', '.join(sorted(kinds))}, and not {kind or 'none'}")


def draw(figure: Figure, points: Sequence[Point], title: str, kind: str) -> bytes:
    """Bits per dimension against K and against time, as a picture of the kind that a file's ending names."""
    against_steps, against_time = figure.subplots(1, 2, sharey=True)
    for posterior in dict.fromkeys(point.posterior for point in points):
        own = [point for point in points if point.posterior == posterior]
        rates = [point.bits_per_dimension for point in own]
        against_steps.plot([point.steps for point in own], rates, "o-", label=posterior)
        (line,) = against_time.plot(
            [point.encode_seconds_per_image for point in own], rates, "o-", label=f"{posterior}, encode"
        )
        against_time.plot(
            [point.decode_seconds_per_image for point in own],
            rates,
            "x--",
            color=line.get_color(),
            label=f"{posterior}, decode",
        )
    figure.suptitle(title)
    against_steps.set(xlabel="K", ylabel="bits per dimension")
    against_time.set(xlabel="seconds per image", xscale="log")
    for axes in (against_steps, against_time):
        axes.legend()
        axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150)
    return file.getvalue()
