"""The command line: options in, calls of the library, one line out."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from bbans import __version__
from bbans.errors import BbansError, FormatError
from bbans.options import (
    STANDARD,
    coding_options,
    decoding_options,
    fail,
    output_options,
    output_target,
    reports_errors,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bbans.codec import Written
    from bbans.container import Directory
    from bbans.reader import CompressedArray, Progress

SUFFIX = ".bba"
NAMED = 20
"""Of the damaged chunks of a file."""
PAUSED = 3
"""The exit status of a training that was paused."""


class Commands(click.Group):
    """The commands of this file, and those that are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), "bench", "gaps"])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "bench":
            from bbans.bench.cli import bench

            return bench
        if name == "gaps":
            from bbans.analysis.cli import gaps

            return gaps
        return super().get_command(context, name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Lossless compression of image collections by bits-back coding."""


@main.command()
@click.argument("source", metavar="INPUT")
@output_options
@click.option("--model", default="auto", show_default=True, metavar="NAME|PATH|auto|none",
              help="auto: the shipped model that codes a sample best; none: zstandard alone.")  # fmt: skip
@click.option("--posterior", metavar="NAME", help="Which of the model's encoders. [default: its first]")
@click.option(
    "--steps",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="K",
    help="Refine the posterior of each image by K steps: smaller and slower, both ways.",
)
@click.option(
    "--chunk-size", type=click.IntRange(1), metavar="N", help="Rows coded together: what a slice costs to read."
)
@click.option("--embed-model", is_flag=True,
              help="Put the model's weights into the file, which then decodes with nothing else.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Decode what was written and compare, before it is called done.")
@coding_options
@reports_errors
def compress(
    source: str,
    output: Path | None,
    to_stdout: bool,
    force: bool,
    remove: bool,
    quiet: bool,
    verbose: bool,
    model: str,
    posterior: str | None,
    steps: int,
    chunk_size: int | None,
    embed_model: bool,
    verify: bool,
    **coding: Any,
) -> None:
    """Compress the array in INPUT, a .npy file (or - for standard input), to a .bba file."""
    from bbans.api import resolve_model
    from bbans.codec import Codec
    from bbans.npy import read_npy

    if embed_model and model == "none":
        raise click.UsageError("--embed-model needs a model, and --model none says that there is none")
    if source == STANDARD and output is None:
        to_stdout = True
    target = output_target(output or Path(source + SUFFIX), to_stdout, force)
    array = read_npy(io.BytesIO(sys.stdin.buffer.read()) if source == STANDARD else Path(source))
    chosen = resolve_model(array, None if model == "none" else model)
    codec = Codec.of(
        chosen,
        posterior=posterior,
        steps=steps,
        thorough=model == "auto",
        embed_model=embed_model,
        pixels=array.size,
        **coding,
    )
    rows = len(array) if array.ndim else 1
    with _opened(target) as file, _progress(rows, "compressing", quiet) as progress:
        written = codec.write(file, array, chunk_size, progress)
        if verify or remove:
            _verify(file, array, codec)
    if not quiet:
        _report(written, target, verbose, codec.posterior, steps)
    if remove and source != STANDARD:
        os.unlink(source)


@main.command()
@click.argument("source", metavar="FILE")
@output_options
@click.option("--select", metavar="START:STOP", help="Only these rows; other chunks are not decoded.")
@click.option("--recover", is_flag=True, help="Leave out the rows of damaged chunks, say which, and exit with 2.")
@decoding_options
@reports_errors
def decompress(
    source: str,
    output: Path | None,
    to_stdout: bool,
    force: bool,
    remove: bool,
    quiet: bool,
    verbose: bool,
    select: str | None,
    recover: bool,
    **decoding: Any,
) -> None:
    """Decompress FILE, a .bba file (or - for standard input), to a .npy file."""
    from bbans.api import open_array
    from bbans.npy import write_npy_blocks

    if recover and (select or remove):
        raise click.UsageError("--recover goes with neither --select nor --rm")
    if source == STANDARD and output is None:
        to_stdout = True
    name = source[: -len(SUFFIX)] if source.endswith(SUFFIX) else source + ".out"
    target = output_target(output or Path(name if name.endswith(".npy") else name + ".npy"), to_stdout, force)
    with open_array(sys.stdin.buffer.read() if source == STANDARD else source, **decoding) as compressed:
        if recover:
            _recover(compressed, target, quiet)
            return
        start, stop = _rows(select, compressed.directory.rows)
        shape = (stop - start, *compressed.shape[1:]) if compressed.shape else ()
        with _opened(target) as file, _progress(stop - start, "decompressing", quiet) as progress:
            blocks = _counted(compressed.blocks(start, stop), progress)
            try:
                write_npy_blocks(file, compressed.dtype, shape, blocks)
            except FormatError as error:
                raise FormatError(f"{error}; --recover writes the rows of all other chunks") from error
    if verbose and not quiet:
        click.echo(f"{target or 'standard output'}: {compressed.dtype} {shape}", err=True)
    if remove and source != STANDARD:
        os.unlink(source)


@main.command()
@click.argument("source", metavar="FILE")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@decoding_options
@reports_errors
def test(source: str, quiet: bool, **decoding: Any) -> None:
    """Decode FILE and check all its checksums, writing nothing; say which chunks are damaged."""
    from bbans.api import open_array

    with open_array(sys.stdin.buffer.read() if source == STANDARD else source, **decoding) as compressed:
        compressed.embedded_model()
        chunks = compressed.directory.chunks
        lost = []
        with _progress(compressed.directory.rows, "testing", quiet) as progress:
            for number, (rows, found) in enumerate(compressed.salvage()):
                progress(len(rows))
                if isinstance(found, BbansError):
                    lost.append(f"chunk {number} (rows {rows.start}:{rows.stop}): {found}")
    if lost:
        more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        fail(f"{source}: {len(lost)} of {len(chunks)} chunks are damaged: {'; '.join(lost[:NAMED])}{more}")
    if not quiet:
        click.echo(f"{source}: OK ({len(chunks)} chunks, {compressed.directory.rows} rows)", err=True)


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@reports_errors
def info(source: str, as_json: bool) -> None:
    """Say what FILE holds, without decoding it."""
    from bbans.container import read_directory

    if source == STANDARD:
        directory = read_directory(io.BytesIO(sys.stdin.buffer.read()))
    else:
        with open(source, "rb") as file:
            directory = read_directory(file)
    facts = _facts(directory)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):>20}  {value}")


@main.command()
@click.argument("data", metavar="DATA")
@click.option("--recipe", type=click.Path(path_type=Path), metavar="FILE",
              help="A TOML file: what to train, and how. [default: what suits DATA]")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="Where the model, the network before freezing and the log go.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Pause in time, with exit status 3: the same command goes on.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(data: str, recipe: Path | None, output: Path, device: str, minutes: float | None, quiet: bool) -> None:
    """Train a model on the 8-bit images in DATA, and freeze it.

    DATA is a .npy or .npz file, an IDX file, a CIFAR binary batch, or a folder of such files or of pictures. A run
    that was stopped goes on where it was. Several processes, on one machine or more, train together under
    torchrun: torchrun --nproc-per-node 2 -m bbans train ...
    """
    from bbans.errors import TrainingPaused
    from bbans.training.data import read_images
    from bbans.training.recipe import default_recipe, load_recipe
    from bbans.training.run import run
    from bbans.training.workers import Workers

    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    images = read_images(Path(data))
    how = load_recipe(recipe) if recipe else default_recipe(output.name, images)
    try:
        measured = run(how, images, output, not quiet, Workers.join(device), deadline)
    except TrainingPaused as paused:
        fail(f"{output}: {paused}", PAUSED)
    if measured is not None and not quiet:
        for name, frozen in measured.frozen.items():
            before = measured.trained[name]
            click.echo(
                f"{output}, {name}: {frozen:.4f} bits/dim on held-out images frozen, {before:.4f} before", err=True
            )


@main.command()
@click.argument("model")
@click.option("-n", "--images", type=click.IntRange(1), default=100, show_default=True, help="How many images.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="OUT", help="A .npy file.")
@click.option("-f", "--force", is_flag=True, help="Overwrite OUT.")
@reports_errors
def sample(model: str, images: int, seed: int, output: Path, force: bool) -> None:
    """Draw images from MODEL, a name or a path: what it makes of random bits."""
    from bbans.model import load_model
    from bbans.npy import write_npy
    from bbans.sampling import sample_images

    target = output_target(output, False, force)
    with _opened(target) as file:
        write_npy(file, sample_images(load_model(model), images, seed))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@reports_errors
def models(as_json: bool) -> None:
    """List the models that come with bbans."""
    from bbans.model import FILE_NAME, read_model, shipped_models

    rows: list[dict[str, Any]] = []
    for name, path in shipped_models().items():
        model = read_model(path)
        rows.append(
            {
                "name": name,
                "image_shape": list(model.image_shape),
                "values": model.symbols,
                "likelihood": model.likelihood,
                "latents": model.latents,
                "posteriors": {posterior: model.identity(posterior).hex() for posterior in model.encoders},
                "size": (path / FILE_NAME).stat().st_size,
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        shape = "x".join(str(size) for size in row["image_shape"])
        posteriors = ", ".join(row["posteriors"])
        click.echo(f"{row['name']:<20} {shape:<10} {row['values']:>3} values  {row['size']:>9,} bytes  {posteriors}")


@contextmanager
def _opened(target: Path | None) -> Iterator[BinaryIO]:
    """The file to write to; what is for standard output is sent when it is complete."""
    from bbans.npy import whole_file

    if target is not None:
        with whole_file(target) as file:
            yield file
        return
    buffer = io.BytesIO()
    yield buffer
    sys.stdout.buffer.write(buffer.getbuffer())
    sys.stdout.buffer.flush()


@contextmanager
def _progress(rows: int, label: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=rows, desc=label, unit="row", leave=False, file=sys.stderr) as bar:
        yield bar.update


def _counted(blocks: Iterator[NDArray[Any]], progress: Progress) -> Iterator[NDArray[Any]]:
    """The same blocks, each counted when it is done with."""
    for block in blocks:
        yield block
        progress(len(block))


def _recover(compressed: CompressedArray, target: Path | None, quiet: bool) -> None:
    """Write the rows of all chunks that are whole; ends with status 2 if there are others."""
    from bbans.npy import write_npy_header

    lost, kept, total = [], 0, compressed.directory.rows

    def write_header(file: BinaryIO, rows: int) -> None:
        write_npy_header(file, compressed.dtype, (rows, *compressed.shape[1:]) if compressed.shape else ())

    with _opened(target) as file, _progress(total, "recovering", quiet) as progress:
        start = file.tell()
        write_header(file, total)
        for rows, found in compressed.salvage():
            progress(len(rows))
            if isinstance(found, BbansError):
                lost.append(rows)
                click.echo(f"bbans: lost rows {rows.start}:{rows.stop}: {found}", err=True)
            else:
                file.write(found.tobytes())
                kept += len(rows)
        if lost:
            file.seek(start)
            write_header(file, kept)
            file.seek(0, os.SEEK_END)
    if lost:
        fail(f"{target or 'standard output'} holds {kept} of {total} rows", status=2)


def _verify(file: BinaryIO, array: Any, codec: Any) -> None:
    from bbans.reader import CompressedArray

    file.flush()
    compressed = CompressedArray(file, codec)
    compressed.embedded_model()
    start = 0
    for decoded in compressed.blocks():
        expected = array[start : start + len(decoded)] if array.ndim else array
        if decoded.dtype != array.dtype or decoded.tobytes() != expected.tobytes():
            raise BbansError("what was written does not decode to the input; nothing was kept. Please report this")
        start += len(decoded)


def _report(written: Written, target: Path | None, verbose: bool, posterior: str, steps: int) -> None:
    if written.note:
        click.echo(f"bbans: note: {written.note}", err=True)
    rate = "" if math.isnan(written.bits_per_dimension) else f", {written.bits_per_dimension:.4f} bits/dim"
    ratio = written.raw_size / written.size
    click.echo(f"{target or 'standard output'}: {written.size:,} bytes, ratio {ratio:.2f}{rate}", err=True)
    if verbose:
        embedded = f" ({written.embedded_size:,} bytes of the file)" if written.embedded_size else ""
        click.echo(
            f"model {written.model or 'none'}{embedded}, posterior {posterior or 'none'}, {steps} steps", err=True
        )


def _rows(select: str | None, total: int) -> tuple[int, int]:
    """The rows that ``START:STOP`` means, either of which may be left out or count from the end."""
    if select is None:
        return 0, total
    start, colon, stop = select.partition(":")
    try:
        if not colon:
            raise ValueError
        first, last, _ = slice(int(start) if start else None, int(stop) if stop else None).indices(total)
    except ValueError:
        raise click.BadParameter(f"expected START:STOP, got {select!r}", param_hint="--select") from None
    return first, max(first, last)


def _facts(directory: Directory) -> dict[str, Any]:
    from bbans.container import Method

    header = directory.header
    elements = math.prod(directory.shape)
    raw = elements * header.item_size
    model = header.model
    payload = sum(chunk.length for chunk in directory.chunks)
    return {
        "shape": list(directory.shape),
        "dtype": header.dtype,
        "model": model.name if model else None,
        "identity": model.identity.hex() if model else None,
        "posterior": model.posterior if model else None,
        "steps": model.steps if model else None,
        "scale": header.scale,
        "chunks": len(directory.chunks),
        "stored_chunks": sum(chunk.method is Method.ZSTANDARD for chunk in directory.chunks),
        "embedded_model": header.embedded.length if header.embedded else 0,
        "size": directory.size,
        "payload": payload,
        "raw_size": raw,
        "bits_per_dimension": 8 * directory.size / elements if elements else None,
        "ratio": raw / directory.size,
    }


if __name__ == "__main__":
    main()
