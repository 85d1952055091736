"""The command `bbans gaps`: images in, a table and a verdict out, and a file that it can go on from."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bbans.bench.cli import parse_steps
from bbans.options import reports_errors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bbans.analysis.gaps import Measured
    from bbans.analysis.run import Analysis
    from bbans.model import Model

Progress = Callable[[int], object]


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--posterior", metavar="NAME", help="Whose gaps: one of the model's encoders. [default: its first]")
@click.option(
    "-n", "--images", type=click.IntRange(2), default=100, show_default=True, metavar="N", help="The first N."
)
@click.option("--steps", default="1,5,10,50", show_default=True, callback=parse_steps, metavar="K,K|K-K",
              help="The numbers of steps to try.")  # fmt: skip
@click.option("--training-data", type=click.Path(path_type=Path), metavar="DATA",
              help="What MODEL was trained on: splits the amortization gap, and tries further encoders.")  # fmt: skip
@click.option("--fit-steps", type=click.IntRange(0), default=1000, show_default=True, metavar="N",
              help="For how long these are fitted, to all of the training data; 0 fits none.")  # fmt: skip
@click.option("--importance-samples", type=click.IntRange(2), default=5000, show_default=True, metavar="N")
@click.option("--temperatures", type=click.IntRange(2), default=100, show_default=True, metavar="N",
              help="Of annealed importance sampling.")  # fmt: skip
@click.option("--fitting-steps", type=click.IntRange(1), default=200, show_default=True, metavar="N",
              help="Of a round in which Gaussians are fitted to single images; flows get twice as many.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=25, show_default=True, metavar="N",
              help="Images at once, after which a run can go on.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Write all results as JSON; a run that was stopped goes on with it.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE",
              help="Draw posteriors of a model with two latents, as a .png, .svg or .pdf.")  # fmt: skip
@click.option("-f", "--force", is_flag=True, help="Begin anew where FILE is there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar.")
@reports_errors
def gaps(
    model: str,
    data: Path,
    posterior: str | None,
    images: int,
    steps: list[int],
    training_data: Path | None,
    fit_steps: int,
    importance_samples: int,
    temperatures: int,
    fitting_steps: int,
    batch: int,
    seed: int,
    device: str,
    output: Path | None,
    plot: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Say what inference costs in files of MODEL, why, and what would win it back.

    DATA are images that MODEL has not seen: a .npy or .npz file, an IDX file, or a folder. The measures are described
    in docs/gaps.md.
    """
    from bbans.analysis.encoders import EncoderFitting, fit_encoders
    from bbans.analysis.gaps import Effort, Measured
    from bbans.analysis.run import Analysis
    from bbans.analysis.verdict import Units, table_rows, verdict
    from bbans.bench.report import describe, table
    from bbans.model import load_model

    frozen = load_model(model)
    effort = Effort.of(fitting_steps, importance_samples, temperatures)
    analysis = Analysis.of(frozen, posterior, steps, effort, _device(device), seed)
    figure = _figure(plot, frozen)
    x, array = _read(data, frozen, images)
    seen = None if training_data is None else _read(training_data, frozen, None)[0]
    result: dict[str, Any] = {
        "model": {"name": frozen.name, "identity": frozen.identity(analysis.posterior).hex()},
        "posterior": analysis.posterior,
        "data": describe(data.name, array) | {"sha256": hashlib.sha256(x.tobytes()).hexdigest()},
        "training_data": None if seen is None else hashlib.sha256(seen.tobytes()).hexdigest(),
        "settings": {
            "steps": steps, "fit_steps": fit_steps, "importance_samples": importance_samples,
            "temperatures": temperatures, "fitting_steps": fitting_steps, "batch": batch, "seed": seed,
        },
    }  # fmt: skip
    record = Record.of(output, result, force)

    with _progress(len(x), "images", quiet) as progress:
        measured = record.batches("images", x, batch, analysis.measure, progress)
    on_training_images = None
    if seen is not None:
        part = seen[: len(x)]
        with _progress(len(part), "training images", quiet) as progress:
            on_training_images = record.batches("training_images", part, batch, analysis.measure_amortization, progress)
        if fit_steps and record.images("fitted_encoders") < len(x):
            how = EncoderFitting(fit_steps)
            with _progress(3 * fit_steps, "fitting encoders", quiet) as progress:
                networks = fit_encoders(analysis, seen, how, lambda: progress(1))
            record.batches(
                "fitted_encoders",
                x,
                batch,
                lambda part, first: analysis.measure_fitted(part, networks, first),
                lambda done: None,
            )
        if fit_steps:
            further = record.part("fitted_encoders")
            measured = Measured({**measured.encoders, **further.encoders}, measured.optima)

    size, note = _file_size(frozen, analysis.posterior, array)
    units = Units(frozen.pixels, 8 * size / len(x) * math.log(2))
    rows = table_rows(measured, analysis.posterior, units)
    lines = verdict(measured, analysis.posterior, steps, units, on_training_images)
    click.echo(f"{frozen.name} on {data.name}, {len(x)} images; the file has {size:,} bytes{note}")
    click.echo(table(["", "nats", "±", "bits/dim", "of the file"], rows, names=1))
    click.echo()
    click.echo("\n".join(lines))
    record.finish({"file_bytes": size, "table": rows, "verdict": [line for line in lines if line]})
    if plot and figure is not None:
        _draw(figure, plot, analysis, x, measured)


class Record:
    """What was measured so far, and the file that keeps it, if there is one."""

    def __init__(self, path: Path | None, result: dict[str, Any], parts: dict[str, Any]) -> None:
        self.path = path
        self.result = result
        self.parts = parts

    @staticmethod
    def of(path: Path | None, result: dict[str, Any], force: bool) -> Record:
        """A new one, or the one that ``path`` keeps if it belongs to the same analysis."""
        from bbans.errors import AnalysisError

        if path is None or force or not path.exists():
            if path is not None and not path.parent.is_dir():
                raise AnalysisError(f"{path.parent} is not a folder")
            return Record(path, result, {})
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            same = all(kept[key] == json.loads(json.dumps(value)) for key, value in result.items())
            parts = kept["measured"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AnalysisError(f"{path} holds no analysis; -f overwrites it") from error
        if not same:
            raise AnalysisError(f"{path} holds another analysis (model, data or settings differ); -f overwrites it")
        return Record(path, result, parts)

    def batches(
        self,
        name: str,
        x: NDArray[np.uint8],
        size: int,
        measure: Callable[[NDArray[np.uint8], int], Measured],
        progress: Progress,
    ) -> Measured:
        """Measure what is missing of images, batch after batch, and return all."""
        from bbans.analysis.gaps import Measured

        done = self.part(name) if name in self.parts else None
        first = self.images(name)
        progress(first)
        for start in range(first, len(x), size):
            batch = measure(x[start : start + size], start)
            done = batch if done is None else Measured.joined([done, batch])
            self.parts[name] = done.to_json()
            self.write()
            progress(batch.images)
        assert done is not None
        return done

    def part(self, name: str) -> Measured:
        """What was measured under a name."""
        from bbans.analysis.gaps import Measured

        return Measured.from_json(self.parts[name])

    def images(self, name: str) -> int:
        """How many images were measured under a name."""
        return self.part(name).images if name in self.parts else 0

    def finish(self, summary: dict[str, Any]) -> None:
        """Add what follows from all that was measured."""
        self.result = self.result | summary
        self.write()

    def write(self) -> None:
        """Write the file, if there is one."""
        from bbans.bench.report import write_json

        if self.path is not None:
            write_json(self.path, {**self.result, "measured": self.parts})


def _device(name: str) -> str:
    import torch

    from bbans.errors import AnalysisError

    if name == "cuda" and not torch.cuda.is_available():
        raise AnalysisError("there is no CUDA device here; --device cpu takes the processor")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _read(path: Path, model: Model, count: int | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The first ``count`` images as the model takes them, uint8 ``(images, pixels)``, and as they are."""
    import numpy as np

    from bbans.errors import ArrayError
    from bbans.symbols import count_images, find_scale, to_symbols
    from bbans.training.data import read_images

    array = np.ascontiguousarray(read_images(path)[:count])
    images, scale = count_images(array.shape, model.image_shape), find_scale(array, model.symbols)
    if images is None or images < 2 or scale is None:
        raise ArrayError(
            f"{path}: model {model.name} takes two or more images of shape {model.image_shape} with {model.symbols} "
            f"values, got an array of shape {array.shape} with values {array.min()} to {array.max()}"
        )
    return to_symbols(array, scale).reshape(images, -1), array


def _file_size(model: Model, posterior: str, array: NDArray[np.uint8]) -> tuple[int, str]:
    """Bytes of the file at K = 0; or of what the model makes of the images, if the file would be stored otherwise."""
    from bbans.codec import Codec
    from bbans.symbols import find_scale, to_symbols

    codec = Codec.of(model, posterior=posterior, pixels=array.size)
    written = codec.write(io.BytesIO(), array)
    if written.note is None:
        return written.size, ""
    x = to_symbols(array, find_scale(array, model.symbols) or 1).reshape(-1, model.pixels)
    return len(codec.chunk_coder().encode(x.astype("int64"))), " if coded with the model (zstandard makes less of it)"


def _figure(plot: Path | None, model: Model) -> Any:
    if plot is None:
        return None
    from bbans.analysis.picture import check_latents
    from bbans.bench.rate_vs_steps import check_format, new_figure

    check_latents(model.latents)
    figure = new_figure()
    check_format(figure, plot.suffix[1:].lower())
    return figure


def _draw(figure: Any, plot: Path, analysis: Analysis, x: NDArray[np.uint8], measured: Measured) -> None:
    from torch import Generator

    from bbans.analysis.coded import coded_posteriors
    from bbans.analysis.picture import draw, telling
    from bbans.npy import whole_file

    chosen = x[telling(measured.gaps(analysis.posterior))]
    start = coded_posteriors(analysis.model, analysis.posterior, chosen, (), analysis.engine, analysis.device)
    noise = Generator(analysis.device).manual_seed(analysis.seed)
    draw(figure, analysis.network, start[analysis.posterior], analysis.pixels(chosen), analysis.effort, noise)
    with whole_file(plot) as file:
        figure.savefig(file, format=plot.suffix[1:].lower(), dpi=150)


@contextmanager
def _progress(total: int, label: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, leave=False, file=sys.stderr) as bar:
        yield bar.update
