"""The command line: options in, calls of the library, one line out."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
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
    opened,
    output_options,
    output_target,
    progress_bar,
    reports_errors,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bbans.codec import Written
    from bbans.reader import CompressedArray

SUFFIX = ".bba"
NAMED = 20
"""Of the damaged chunks of a file."""
PAUSED = 3
"""The exit status of a training that was paused."""


class Commands(click.Group):
    """The commands of this file, and those that are imported when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*super().list_commands(context), "bench", "gaps", "show"])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name == "bench":
            from bbans.bench.cli import bench

            return bench
        if name == "show":
            from bbans.show_cli import show

            return show
        if name == "gaps":
            from bbans.analysis.cli import gaps

            return gaps
        return super().get_command(context, name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Lossless compression of image collections by bits-back coding."""


@main.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True)
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
    "--chunk-size",
    type=click.IntRange(1),
    metavar="N",
    help="Rows coded together: what a slice costs to read, or the size of a set.",
)
@click.option(
    "--unordered",
    is_flag=True,
    help="The images are a set: what their order takes is saved, and they come back sorted.",
)
@click.option(
    "--with",
    "companions",
    multiple=True,
    metavar="LABELS",
    help="An array that goes with the images, row by row, into the same file; may be given several times.",
)
@click.option("--embed-model", is_flag=True,
              help="Put the model's weights into the file, which then decodes with nothing else.")  # fmt: skip
@click.option("--verify", is_flag=True, help="Decode what was written and compare, before it is called done.")
@click.option("--dask", "scheduler", metavar="SCHEDULER",
              help="Code on a Dask cluster: its address, or its scheduler file. INPUT, where all workers find it, may "
              "also be a folder of .npy files, whose rows follow one another, or a zarr array.")  # fmt: skip
@coding_options
@reports_errors
def compress(
    sources: tuple[str, ...],
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
    unordered: bool,
    companions: tuple[str, ...],
    embed_model: bool,
    verify: bool,
    scheduler: str | None,
    **coding: Any,
) -> None:
    """Compress INPUT to a .bba file: an array or a collection of files.

    An array is a .npy file (or - for standard input), an .npz file of one array, an IDX file or a zarr array, and comes
    back as .npy. A collection is a folder, a pattern such as 'scans/*.png', or several inputs, with PNG, WebP and
    TIFF pictures and arrays; pictures of one shape and type make a group. It comes back as a folder with the same
    names and the same pixels; what else was in the pictures' files is not kept. Pictures whose pixels would
    not come back as they are, such as 16-bit colours, are refused.

    With --unordered, an array is a set of images. With --with LABELS, an array becomes a collection of two.
    """
    from bbans.api import resolve_model
    from bbans.codec import Codec
    from bbans.inputs import read_array
    from bbans.npy import read_npy
    from bbans.reader import CompressedArray, check_equal

    if embed_model and model == "none":
        raise click.UsageError("--embed-model needs a model, and --model none says that there is none")
    source, named = sources[0], None if model == "none" else model
    if source == STANDARD and output is None:
        to_stdout = True
    if scheduler is not None:
        if verify or remove or source == STANDARD or len(sources) > 1:
            raise click.UsageError("--dask goes with neither --verify nor --rm, and reads one INPUT that is a file")
        target = output_target(output or Path(source.rstrip("/\\") + SUFFIX), to_stdout, force)
        del coding["threads"]
        options = {
            "posterior": posterior,
            "steps": steps,
            "chunk_size": chunk_size,
            "embed_model": embed_model,
        } | coding
        written = _compress_on_cluster(source, target, quiet, scheduler, named, options)
        if not quiet:
            _report(written, target, verbose, posterior or "by default", steps)
        return
    if len(sources) > 1 and (STANDARD in sources or (output is None and not to_stdout)):
        raise click.UsageError("several inputs need -o or -c, and standard input goes alone")
    target = output_target(output or Path(source.rstrip("/\\") + SUFFIX), to_stdout, force)
    if source == STANDARD:
        array: NDArray[Any] | None = read_npy(io.BytesIO(sys.stdin.buffer.read()))
    else:
        array = read_array(Path(source)) if len(sources) == 1 else None
    if array is None:
        from bbans.collection_cli import compress_collection

        if unordered or companions:
            raise click.UsageError("--unordered and --with are for an array; files of a collection have names")
        compress_collection(
            sources, target, chunk_size, verify, remove, quiet, named, verbose,
            posterior=posterior, steps=steps, embed_model=embed_model, **coding,
        )  # fmt: skip
        return
    if remove and os.path.isdir(source):
        raise click.UsageError("--rm does not remove zarr arrays")
    chosen = resolve_model(array, named)
    codec = Codec.of(
        chosen,
        posterior=posterior,
        steps=steps,
        thorough=model == "auto",
        embed_model=embed_model,
        pixels=array.size,
        **coding,
    )
    if companions:
        from bbans.collection_cli import compress_with

        compress_with(
            "images.npy" if source == STANDARD else source, array, companions, target, codec, chunk_size, not unordered,
            verify or remove, quiet, verbose,
        )  # fmt: skip
        for path in (source, *companions) if remove else ():
            if path != STANDARD:
                os.unlink(path)
        return
    rows = len(array) if array.ndim else 1
    with opened(target) as file, progress_bar(rows, "compressing", quiet) as progress:
        written = codec.write(file, array, chunk_size, progress, ordered=not unordered)
        if verify or remove:
            file.flush()
            check_equal(CompressedArray(file, codec), array)
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
    """Decompress FILE, a .bba file (or - for standard input): an array to a .npy file, a collection to a folder.

    A collection of arrays becomes an .npz file if OUT is named so, and one that holds a single file becomes that file.
    Pictures are written as what they were, PNG, TIFF or lossless WebP, with the same pixels.
    """
    from bbans.api import open_array
    from bbans.collection_cli import decompress_collection, is_collection
    from bbans.npy import write_npy_blocks

    if recover and (select or remove):
        raise click.UsageError("--recover goes with neither --select nor --rm")
    if source == STANDARD and output is None:
        to_stdout = True
    name = source[: -len(SUFFIX)] if source.endswith(SUFFIX) else source + ".out"
    given = sys.stdin.buffer.read() if source == STANDARD else source
    if is_collection(given):
        if select:
            raise BbansError("--select takes rows of an array, and the file is a collection")
        folder = output or Path(name)
        to_stdout = to_stdout or str(folder) == STANDARD
        decompress_collection(given, folder, to_stdout, force, quiet, verbose, recover, **decoding)
        if remove and source != STANDARD:
            os.unlink(source)
        return
    target = output_target(output or Path(name if name.endswith(".npy") else name + ".npy"), to_stdout, force)
    with open_array(given, **decoding) as compressed:
        if recover:
            _recover(compressed, target, quiet)
            return
        start, stop = _rows(select, compressed.directory.rows)
        shape = (stop - start, *compressed.shape[1:]) if compressed.shape else ()
        with opened(target) as file, progress_bar(stop - start, "decompressing", quiet) as progress:
            try:
                write_npy_blocks(file, compressed.dtype, shape, compressed.blocks(start, stop, progress))
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
    from bbans.collection_cli import is_collection, test_collection

    given = sys.stdin.buffer.read() if source == STANDARD else source
    if is_collection(given):
        test_collection(given, source, quiet, **decoding)
        return
    with open_array(given, **decoding) as compressed:
        compressed.embedded_model()
        chunks = compressed.directory.chunks
        lost = []
        with progress_bar(compressed.directory.rows, "testing", quiet) as progress:
            for salvaged in compressed.salvage(progress):
                if salvaged.error is not None:
                    lost.append(f"{salvaged.place}: {salvaged.error}")
    if lost:
        more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        parts = f"{len(chunks)} chunks" if compressed.header.ordered else f"{len(compressed.directory.blocks)} sets"
        fail(f"{source}: {len(lost)} of {parts} are damaged: {'; '.join(lost[:NAMED])}{more}")
    if not quiet:
        click.echo(f"{source}: OK ({len(chunks)} chunks, {compressed.directory.rows} rows)", err=True)


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@reports_errors
def info(source: str, as_json: bool) -> None:
    """Say what FILE holds, without decoding it."""
    from bbans.facts import facts_of, table_of

    if source == STANDARD:
        facts = facts_of(io.BytesIO(sys.stdin.buffer.read()))
    else:
        with open(source, "rb") as file:
            facts = facts_of(file)
    click.echo(json.dumps(facts) if as_json else table_of(facts))


@main.command()
@click.argument("data", metavar="DATA...", nargs=-1, required=True)
@click.option("--recipe", type=click.Path(path_type=Path), metavar="FILE",
              help="A TOML file: what to train, and how. [default: what suits DATA]")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="Where the model, the network before freezing and the log go.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Pause in time, with exit status 3: the same command goes on.")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(
    data: tuple[str, ...], recipe: Path | None, output: Path, device: str, minutes: float | None, quiet: bool
) -> None:
    """Train a model on the 8-bit images in DATA, and freeze it.

    DATA is a .npy or .npz file, an IDX file, a CIFAR binary batch, or a folder of such files or of pictures; or several
    of these. Images of different sizes, or higher or wider than 64, get a model for images of any size by default,
    which training on them makes out of the one for photographs. A run that was stopped goes on where it was. Several
    processes, on one machine or more, train together under torchrun (but for images of any size):
    torchrun --nproc-per-node 2 -m bbans train ...
    """
    from bbans.errors import TrainingPaused
    from bbans.training.choice import train_on

    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    try:
        measured = train_on([Path(path) for path in data], recipe, output, not quiet, device, deadline)
    except TrainingPaused as paused:
        fail(f"{output}: {paused}", PAUSED)
    if not quiet:
        for name, (before, frozen) in measured.items():
            click.echo(
                f"{output}{name}: {frozen:.4f} bits/dim on held-out images frozen, {before:.4f} before", err=True
            )


@main.command()
@click.argument("model")
@click.option("-n", "--images", type=click.IntRange(1), default=100, show_default=True, help="How many images.")
@click.option("--size", type=click.IntRange(1), nargs=2, metavar="HEIGHT WIDTH",
              help="Of each, if MODEL makes images of any size.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="OUT", help="A .npy file.")
@click.option("-f", "--force", is_flag=True, help="Overwrite OUT.")
@reports_errors
def sample(model: str, images: int, size: tuple[int, int] | None, seed: int, output: Path, force: bool) -> None:
    """Draw images from MODEL, a name or a path: what it makes of random bits."""
    from bbans.errors import ModelError
    from bbans.model import load_model
    from bbans.npy import write_npy
    from bbans.sampling import sample_images

    target = output_target(output, False, force)
    with opened(target) as file:
        loaded = load_model(model)
        if loaded.any_size:
            if size is None:
                raise ModelError(f"model {loaded.name} makes images of any size: say which with --size")
            loaded = loaded.fitted_to((*size, *loaded.image_shape[2:]))
        write_npy(file, sample_images(loaded, images, seed))


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
                "posteriors": {posterior: model.identity(posterior).hex() for posterior in model.posteriors},
                "size": (path / FILE_NAME).stat().st_size,
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        height, *rest = row["image_shape"]
        shape = "x".join(map(str, row["image_shape"])) if height else " x ".join(["any size", *map(str, rest[1:])])
        posteriors = ", ".join(row["posteriors"])
        click.echo(f"{row['name']:<20} {shape:<12} {row['values']:>3} values  {row['size']:>9,} bytes  {posteriors}")


def _recover(compressed: CompressedArray, target: Path | None, quiet: bool) -> None:
    """Write the rows of all chunks that are whole; ends with status 2 if there are others."""
    from bbans.npy import write_npy_header

    lost, kept, total = False, 0, compressed.directory.rows

    def write_header(file: BinaryIO, rows: int) -> None:
        write_npy_header(file, compressed.dtype, (rows, *compressed.shape[1:]) if compressed.shape else ())

    with opened(target) as file, progress_bar(total, "recovering", quiet) as progress:
        start = file.tell()
        write_header(file, total)
        for salvaged in compressed.salvage(progress):
            rows, found = salvaged.rows, salvaged.found
            if salvaged.error is not None:
                lost = True
                some = f"{len(rows) - len(found)} of " if len(found) else ""
                click.echo(f"bbans: lost {some}rows {rows.start}:{rows.stop}: {salvaged.error}", err=True)
            file.write(found.tobytes())
            kept += len(found)
        if lost:
            file.seek(start)
            write_header(file, kept)
            file.seek(0, os.SEEK_END)
    if lost:
        fail(f"{target or 'standard output'} holds {kept} of {total} rows", status=2)


def _compress_on_cluster(
    source: str, target: Path | None, quiet: bool, scheduler: str, model: str | None, options: dict[str, Any]
) -> Written:
    try:
        from bbans.integrations import dask
    except ImportError as error:
        raise BbansError(str(error)) from error

    rows = dask.open_rows(source)
    with (
        dask.connect(scheduler) as client,
        opened(target) as file,
        progress_bar(rows.shape[0], "compressing", quiet) as progress,
    ):
        return dask.compress(rows, file, client, model=model, progress=progress, **options)


def _report(written: Written, target: Path | None, verbose: bool, posterior: str, steps: int) -> None:
    if written.note:
        click.echo(f"bbans: note: {written.note}", err=True)
    rate = "" if math.isnan(written.bits_per_dimension) else f", {written.bits_per_dimension:.4f} bits/dim"
    ratio = written.raw_size / written.size
    click.echo(f"{target or 'standard output'}: {written.size:,} bytes, ratio {ratio:.2f}{rate}", err=True)
    if written.order_bits:
        click.echo(f"{written.order_bits / 8:,.0f} bytes saved that the order of the rows would have taken", err=True)
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


if __name__ == "__main__":
    main()
