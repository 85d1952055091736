"""What the commands of the command line share: options, the output they write, how errors end."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

if TYPE_CHECKING:
    from bbans.parallel import Progress

STANDARD = "-"

Command = Callable[..., None]


def reports_errors(command: Command) -> Command:
    """What goes wrong ends in one line on standard error and exit status 1."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        from bbans.errors import BbansError

        try:
            command(*args, **kwargs)
        except BbansError as error:
            fail(str(error))
        except BrokenPipeError:
            # Nobody reads on: what Python would still flush at its exit goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))
        except MemoryError:
            fail("out of memory")

    return wrapper


def fail(message: str, status: int = 1) -> NoReturn:
    """End with one line on standard error, and an exit status."""
    click.echo(f"bbans: {' '.join(message.split())}", err=True)
    sys.exit(status)


def coding_options(command: Command) -> Command:
    """The options of every command that evaluates a model."""
    options = [
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option("--engine", type=click.Choice(["auto", "numpy", "numba", "torch"]), default="auto",
                     show_default=True, help="What evaluates the networks; the bytes are the same."),
        click.option("--ans", default="auto", show_default=True, metavar="CORE",
                     help="The ANS core; the bytes are the same."),
        click.option("--threads", type=click.IntRange(1), metavar="N",
                     help="Chunks coded at once. [default: all processors]"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def parse_size(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """A number of bytes such as ``800M`` or ``4G``; K, M, G and T count in steps of 1,024.

    >>> parse_size(None, None, "4G"), parse_size(None, None, "1000")
    (4294967296, 1000)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise click.BadParameter(f"expected a size such as 800M or 4G, got {text!r}")
    return int(match[1]) << 10 * " kmgt".index(match[2] or " ")


def decoding_options(command: Command) -> Command:
    """The options of every command that decodes a file, besides those of :func:`coding_options`."""
    options = [
        click.option("--model", metavar="PATH", help="The model, if it is not one that comes with bbans."),
        click.option("--max-memory", callback=parse_size, metavar="SIZE",
                     help="Refuse what takes more to decode, such as 4G. [default: half of the machine's]"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return coding_options(command)


def output_options(command: Command) -> Command:
    """The options of every command that writes a file."""
    options = [
        click.option("-o", "--output", type=click.Path(path_type=Path, allow_dash=True), metavar="OUT",
                     help="Where to write; - is standard output."),
        click.option("-c", "--stdout", "to_stdout", is_flag=True, help="Write to standard output."),
        click.option("-f", "--force", is_flag=True, help="Overwrite OUT, or write binary to a terminal."),
        click.option("--rm", "remove", is_flag=True, help="Remove the input once the output is safe (and verified)."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
        click.option("-v", "--verbose", is_flag=True, help="Say more."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def output_target(path: Path, to_stdout: bool, force: bool) -> Path | None:
    """The file to write, or None for standard output; refuses what the user would regret."""
    from bbans.errors import BbansError

    if to_stdout or str(path) == STANDARD:
        if sys.stdout.isatty() and not force:
            raise BbansError("standard output is a terminal; -f writes binary data to it all the same")
        return None
    if path.is_dir() or (path.exists() and not force):
        raise BbansError(f"{path} exists; -f overwrites it" if not path.is_dir() else f"{path} is a folder")
    return path


@contextmanager
def opened(target: Path | None) -> Iterator[BinaryIO]:
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
def progress_bar(rows: int, label: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    from tqdm import tqdm

    with tqdm(total=rows, desc=label, unit="row", leave=False, file=sys.stderr) as bar:
        yield bar.update
