"""The commands of `bbans bench`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bbans.options import coding_options, output_target, reports_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Item = TypeVar("Item")

RANGE_MAXIMUM = 1000

DATA = click.argument("data", type=click.Path(path_type=Path), metavar="DATA")
JSON_OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
                           help="Write the results as JSON too.")  # fmt: skip
FORCE = click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress bar.")


def images_option(default: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """How many images are measured."""
    return click.option(
        "-n", "--images", type=click.IntRange(1), default=default, show_default=True, help="The first N.", metavar="N"
    )


def parse_steps(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """The numbers of a list such as ``0,1,5`` or ``0-3,10``, in order, each once.

    >>> parse_steps(None, None, "10,0-3,1")
    [0, 1, 2, 3, 10]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise click.BadParameter(f"expected numbers such as 0,1,5 or 0-10, got {text!r}")
        if dash and int(last) - int(first) not in range(RANGE_MAXIMUM + 1):
            raise click.BadParameter(f"a range goes up, and by {RANGE_MAXIMUM} at most; got {part!r}")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def parse_counts(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """The numbers of a list such as ``1,100,10000``, each at least 1."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"expected numbers such as 1,100,10000, got {text!r}")
    return sorted({int(part) for part in parts})


def parse_names(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """The names of a list such as ``numpy,numba``, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


@click.group()
def bench() -> None:
    """Measure rates and speeds on your own data."""


@bench.command("rate-vs-steps")
@DATA
@click.option("--model", default="auto", show_default=True, metavar="NAME|PATH|auto",
              help="auto: the shipped model that codes a sample best.")  # fmt: skip
@click.option("--posterior", "posteriors", multiple=True, metavar="NAME", help="May be repeated. [default: all]")
@click.option("--steps", default="0,1,2,5,10", show_default=True, callback=parse_steps, metavar="K,K|K-K",
              help="The numbers of steps.")  # fmt: skip
@images_option(1000)
@JSON_OUTPUT
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE",
              help="Plot bits per dimension against K and time, as a .png, .svg or .pdf.")  # fmt: skip
@FORCE
@QUIET
@coding_options
@reports_errors
def rate_vs_steps(
    data: Path,
    model: str,
    posteriors: tuple[str, ...],
    steps: list[int],
    images: int,
    output: Path | None,
    plot: Path | None,
    force: bool,
    quiet: bool,
    **coding: Any,
) -> None:
    """Bits per dimension and time of whole files of DATA, a .npy file, for each posterior and K.

    Every byte of the file is counted, and every file is decoded and compared.
    """
    from bbans.api import resolve_model
    from bbans.bench.rate_vs_steps import draw, measure, time_ratios
    from bbans.bench.report import describe, read_images, table, write_json
    from bbans.errors import BenchmarkError
    from bbans.npy import whole_file

    _check_targets(force, output, plot)
    figure, kind = _figure(plot)
    array = read_images(data, images)
    chosen = resolve_model(array, model)
    if chosen is None:
        raise BenchmarkError(f"no shipped model fits {data} ({array.dtype}, shape {array.shape}); --model names others")
    wanted = list(dict.fromkeys(posteriors)) or list(chosen.posteriors)
    points = list(_progress(measure(chosen, array, wanted, steps, **coding), len(wanted) * len(steps), quiet))
    ratios = time_ratios(points)
    rows = [
        [
            point.posterior,
            str(point.steps),
            f"{point.bytes:,}",
            f"{point.bits_per_dimension:.4f}",
            f"{point.encode_seconds_per_image:.6f}",
            f"{point.decode_seconds_per_image:.6f}",
            *([f"{value:.2f}" for value in ratio] if ratio else ["-", "-"]),
        ]
        for point, ratio in zip(points, ratios, strict=True)
    ]
    header = ["posterior", "K", "bytes", "bits/dim", "encode s/image", "decode s/image", "encode x K=0", "decode x K=0"]
    click.echo(f"{data}, {len(array)} rows, model {chosen.name}")
    click.echo(table(header, rows, names=1))
    stored = max(point.stored_rows for point in points)
    if stored:
        click.echo(f"bbans: note: up to {stored} of {len(array)} rows are smaller through zstandard", err=True)
    if output:
        measured = [
            {
                **asdict(point),
                "encode_time_over_no_steps": ratio[0] if ratio else None,
                "decode_time_over_no_steps": ratio[1] if ratio else None,
            }
            for point, ratio in zip(points, ratios, strict=True)
        ]
        write_json(output, {"data": describe(data.name, array), "model": chosen.name, "files": measured})
    if plot and figure:
        with whole_file(plot) as file:
            file.write(draw(figure, points, f"{chosen.name} on {data.name}, {len(array)} rows", kind))


@bench.command()
@DATA
@click.option("--model", default="auto", show_default=True, metavar="NAME|PATH|auto|none",
              help="What bbans itself is measured with; none leaves it out.")  # fmt: skip
@click.option("--codec", "codecs", multiple=True, metavar="NAME", help="May be repeated. [default: all]")
@images_option(10000)
@JSON_OUTPUT
@FORCE
@QUIET
@coding_options
@reports_errors
def baselines(
    data: Path,
    model: str,
    codecs: tuple[str, ...],
    images: int,
    output: Path | None,
    force: bool,
    quiet: bool,
    **coding: Any,
) -> None:
    """Classic codecs and bbans on the same images: DATA, a .npy file.

    raw is the array's bytes in one stream; grid is all images tiled into one picture; each is one file an image.
    """
    from bbans.api import resolve_model
    from bbans.bench.baselines import Row, Skipped, chosen, measure, measure_own
    from bbans.bench.report import describe, read_images, table, write_json
    from bbans.codec import Codec

    _check_targets(force, output)
    tasks = chosen(codecs)
    array = read_images(data, images)

    def results() -> Iterator[Row | Skipped]:
        if model != "none":
            yield measure_own(Codec.of(resolve_model(array, model), thorough=model == "auto", **coding), array)
        for baseline in tasks:
            yield measure(baseline, array)

    done = list(_progress(results(), len(tasks) + (model != "none"), quiet))
    rows = sorted((row for row in done if isinstance(row, Row)), key=lambda row: row.bytes)
    skipped = [row for row in done if isinstance(row, Skipped)]
    lines = [
        [
            row.codec,
            row.arrangement,
            f"{row.bytes:,}",
            f"{row.bits_per_dimension:.4f}",
            f"{row.encode_megabytes_per_second:.2f}",
            f"{row.decode_megabytes_per_second:.2f}",
        ]
        for row in rows
    ]
    click.echo(f"{data}, {array.dtype} of shape {array.shape}")
    click.echo(table(["codec", "arrangement", "bytes", "bits/dim", "encode MB/s", "decode MB/s"], lines))
    if any(row.stored_rows for row in rows):
        click.echo("bbans: note: bbans stored rows through zstandard, as no model fits or makes less of them", err=True)
    for skip in skipped:
        click.echo(f"bbans: note: skipped {skip.codec}, {skip.arrangement}: {skip.reason}", err=True)
    if output:
        result = {"codecs": [asdict(row) for row in rows], "skipped": [asdict(skip) for skip in skipped]}
        write_json(output, {"data": describe(data.name, array), **result})


@bench.command()
@DATA
@click.option(
    "--model", "models", multiple=True, metavar="NAME|PATH", help="May be repeated. [default: what suits DATA]"
)
@click.option("--steps", default="0", show_default=True, callback=parse_steps, metavar="K,K|K-K")
@click.option("--engine", "engines", default="auto", show_default=True, callback=parse_names, metavar="NAME,NAME")
@click.option("--ans", "cores", default="auto", show_default=True, callback=parse_names, metavar="CORE,CORE")
@click.option("--threads", default=str(os.cpu_count() or 1), show_default=True, callback=parse_counts, metavar="N,N")
@click.option("-n", "--images", default="1000", show_default=True, callback=parse_counts, metavar="N,N",
              help="The first N; DATA is repeated where it has fewer. The other codecs get the last N.")  # fmt: skip
@click.option(
    "--codec", "codecs", multiple=True, metavar="NAME", help="Another codec in the same run; may be repeated."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="The fastest counts.")
@JSON_OUTPUT
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE",
              help="Plot bits per dimension against images a second, as a .png, .svg or .pdf.")  # fmt: skip
@FORCE
@QUIET
@reports_errors
def throughput(
    data: Path,
    models: tuple[str, ...],
    steps: list[int],
    engines: list[str],
    cores: list[str],
    threads: list[int],
    images: list[int],
    codecs: tuple[str, ...],
    repeats: int,
    output: Path | None,
    plot: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Images a second and memory of whole files of DATA, a .npy file, in all combinations of the options.

    Each is measured in a process of its own, decoded and compared.
    """
    from bbans.api import resolve_model
    from bbans.bench.baselines import Skipped
    from bbans.bench.report import describe, read_images, table, write_json
    from bbans.bench.throughput import draw, measure, settings_of
    from bbans.errors import BenchmarkError
    from bbans.npy import whole_file

    _check_targets(force, output, plot)
    figure, kind = _figure(plot)
    array = read_images(data, max(images))
    if not models:
        chosen = resolve_model(array, "auto")
        if chosen is None:
            raise BenchmarkError(f"no shipped model fits {data}; --model names others")
        models = (chosen.name,)
    settings = settings_of(models, steps, engines, cores, threads, images)
    total = len(settings) + len(codecs)
    results = list(_progress(measure(data, settings, codecs, min(images[-1], len(array)), repeats), total, quiet))
    lines = []
    for speed in results:
        if isinstance(speed, Skipped):
            click.echo(f"bbans: note: skipped {speed.codec}, {speed.arrangement}: {speed.reason}", err=True)
            continue
        setting = speed.setting
        how = [setting.engine, setting.ans, str(setting.threads), str(setting.steps)] if setting else [""] * 4
        lines.append(
            [
                speed.codec,
                *how,
                f"{speed.images:,}",
                f"{speed.bits_per_dimension:.4f}",
                f"{speed.encode_images_per_second:,.0f}",
                f"{speed.decode_images_per_second:,.0f}",
                f"{speed.encode_megabytes_per_second:.2f}",
                f"{speed.decode_megabytes_per_second:.2f}",
                f"{speed.peak_megabytes:.0f}",
            ]
        )
    header = [
        "codec",
        "engine",
        "ANS",
        "threads",
        "K",
        "images",
        "bits/dim",
        "encode/s",
        "decode/s",
        "encode MB/s",
        "decode MB/s",
        "peak MB",
    ]
    click.echo(table(header, lines, names=3))
    if output:
        speeds = [asdict(speed) for speed in results if not isinstance(speed, Skipped)]
        write_json(output, {"data": describe(data.name, array), "speeds": speeds})
    if plot and figure:
        measured = [speed for speed in results if not isinstance(speed, Skipped)]
        with whole_file(plot) as file:
            file.write(draw(figure, measured, data.name, kind))


def _figure(plot: Path | None) -> tuple[Figure | None, str]:
    """An empty figure that can be saved as such a file, and the file's kind, if there is to be one."""
    from bbans.bench.rate_vs_steps import check_format, new_figure

    if plot is None:
        return None, ""
    figure, kind = new_figure(), plot.suffix[1:].lower()
    check_format(figure, kind)
    return figure, kind


def _check_targets(force: bool, *targets: Path | None) -> None:
    """Refuse what can't be written before anything is measured."""
    from bbans.errors import BenchmarkError

    for target in targets:
        if target is not None:
            output_target(target, False, force)
            if not target.parent.is_dir():
                raise BenchmarkError(f"{target.parent} is not a folder")


def _progress(items: Iterable[Item], total: int, quiet: bool) -> Iterator[Item]:
    """The items, with a progress bar on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, total=total, unit="codec", leave=False, file=sys.stderr)
