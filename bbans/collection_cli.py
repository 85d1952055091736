"""What the commands of the command line do with collections."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from bbans.codec import Codec, Written
from bbans.collection import FileFormat, Role, paths_of
from bbans.collection_reader import Collection, in_folder
from bbans.companions import check_companions, write_with_companions
from bbans.container import COLLECTION, read_kind
from bbans.errors import BbansError, FormatError
from bbans.folders import WrittenCollection, codec_chooser, open_collection, write_collection
from bbans.inputs import Source, find_groups, read_array
from bbans.npy import whole_file, whole_folder
from bbans.options import fail, opened, output_target, progress_bar

NAMED = 20
"""Of what is lost."""


def is_collection(source: str | bytes) -> bool:
    """Whether a path or bytes are those of a collection; :class:`bbans.errors.FormatError` if of no `.bba` file."""
    if isinstance(source, bytes):
        return read_kind(io.BytesIO(source)) == COLLECTION
    with open(source, "rb") as file:
        return read_kind(file) == COLLECTION


def compress_collection(
    inputs: Sequence[str], target: Path | None, chunk_size: int | None, verify: bool, remove: bool, quiet: bool,
    model: str | None, verbose: bool, **settings: Any,
) -> None:  # fmt: skip
    """Compress files and folders to a collection, and say what became of them."""
    groups = find_groups(inputs)
    pixels, rows = sum(group.size for group in groups), sum(group.rows for group in groups)
    codecs = codec_chooser(model, pixels=pixels, **settings)
    with opened(target) as file, progress_bar(rows, "compressing", quiet) as progress:
        written = write_collection(file, groups, codecs, chunk_size, verify or remove, progress)
    if not quiet:
        _report(written, target, verbose, model is not None)
    if remove:
        _remove([source for group in groups for source in group.sources], inputs)


def compress_with(
    source: str, array: NDArray[Any], companions: Sequence[str], target: Path | None, codec: Codec,
    chunk_size: int | None, ordered: bool, verify: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Compress an array and those that go with its rows to a collection, and say what became of them."""
    others: dict[str, NDArray[Any]] = {}
    for path in companions:
        companion = read_array(Path(path))
        if companion is None or _member_name(path) in others:
            raise BbansError(f"{path} is not one array, or has the name of another that goes with {source}")
        others[_member_name(path)] = companion
    check_companions(_member_name(source), array, others)
    with opened(target) as file, progress_bar(len(array), "compressing", quiet) as progress:
        start = file.tell()
        groups = write_with_companions(
            file, _member_name(source), array, others, codec, chunk_size, ordered, verify, progress
        )
        size = file.tell() - start
    if not quiet:
        _report(WrittenCollection(size, groups), target, verbose, codec.model is not None)


def _member_name(path: str) -> str:
    """The name of the array in a file."""
    name = Path(path)
    return name.stem if name.suffix.lower() in (".npy", ".npz", ".gz", ".idx") else name.name


def decompress_collection(
    source: str | bytes, output: Path, to_stdout: bool, force: bool, quiet: bool, verbose: bool, recover: bool,
    **decoding: Any,
) -> None:  # fmt: skip
    """Write the files of a collection: to a folder, an `.npz` file, or as the one file that it holds."""
    if to_stdout:
        raise BbansError("the file is a collection, which becomes a folder: say which with -o")
    with open_collection(source, **decoding) as collection:
        members = collection.contents.members
        paths, rows = list(paths_of(members)), sum(member.rows for member in members)
        lost: list[str] = []

        def tell(path: str, error: BbansError) -> None:
            lost.append(path)
            click.echo(f"bbans: lost {path}: {error}", err=True)

        with progress_bar(rows, "decompressing", quiet) as progress:
            told = tell if recover else None
            try:
                if len(paths) == 1 and paths[0].endswith(output.suffix or "/"):
                    _write_one(collection, output, force)
                elif output.suffix == ".npz" and _is_archive(collection):
                    _write_npz(collection, output, force)
                elif output.exists():
                    raise BbansError(f"{output} exists; a collection becomes a new folder: say which with -o")
                else:
                    with whole_folder(output) as folder:
                        collection.write_files(in_folder(folder), told, progress)
            except FormatError as error:
                more = "" if recover else "; --recover writes all other files"
                raise FormatError(f"{error}{more}") from error
    if lost:
        fail(f"{output} holds {len(paths) - len(lost)} of {len(paths)} files", status=2)
    if verbose and not quiet:
        click.echo(f"{output}: {len(paths)} files", err=True)


def test_collection(source: str | bytes, name: str, quiet: bool, **decoding: Any) -> None:
    """Check all members, and say which are damaged."""
    with open_collection(source, **decoding) as collection:
        members, lost, chunks = collection.contents.members, [], 0
        with progress_bar(sum(member.rows for member in members), "testing", quiet) as progress:
            for member in members:
                try:
                    array = collection.array(member.name)
                    array.embedded_model()
                except FormatError as error:
                    lost.append(f"{member.name}: {error}")
                    continue
                for salvaged in array.salvage(progress):
                    chunks += len(salvaged.chunks)
                    if salvaged.error is not None:
                        lost.append(f"{member.name}, {salvaged.place}: {salvaged.error}")
        files = len(collection)
    if lost:
        more = f"; and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        fail(f"{name}: parts of the collection are damaged: {'; '.join(lost[:NAMED])}{more}")
    if not quiet:
        click.echo(f"{name}: OK ({files} files, {len(members)} groups, {chunks} chunks)", err=True)


def _write_one(collection: Collection, output: Path, force: bool) -> None:
    target = output_target(output, False, force)
    assert target is not None
    collection.write_files(lambda path: whole_file(target))


def _is_archive(collection: Collection) -> bool:
    """Whether all that it holds are arrays, as in an `.npz` file."""
    return all(
        member.role is Role.ARRAY or {file.form.format for file in member.files} == {FileFormat.NPY}
        for member in collection.contents.members
    )


def _write_npz(collection: Collection, output: Path, force: bool) -> None:
    target = output_target(output, False, force)
    assert target is not None
    with whole_file(target) as file, zipfile.ZipFile(file, "w") as archive:
        # A fixed date, so that the same collection makes the same file.
        collection.write_files(lambda path: archive.open(zipfile.ZipInfo(path), "w", force_zip64=True))  # type: ignore[arg-type, return-value]


def _remove(sources: Sequence[Source], inputs: Sequence[str]) -> None:
    """Remove files that are safe elsewhere, and the folders among ``inputs`` that this leaves empty."""
    for path in dict.fromkeys(source.path for source in sources):
        os.unlink(path)
    for folder in filter(os.path.isdir, inputs):
        for parent, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                os.rmdir(parent)


def _report(written: WrittenCollection, target: Path | None, verbose: bool, noted: bool) -> None:
    stored = [name for name, group in written.groups.items() if group.note and noted]
    if stored:
        named = ", ".join(stored[:NAMED]) + (", ..." if len(stored) > NAMED else "")
        reason = f" ({written.notes[0].partition(': ')[2]})" if len(stored) == 1 else ""
        click.echo(f"bbans: note: stored through zstandard, at least in part: {named}{reason}", err=True)
    rate = f", {8 * written.size / written.elements:.4f} bits/dim" if written.elements else ""
    click.echo(
        f"{target or 'standard output'}: {written.size:,} bytes, {len(written.groups)} groups, "
        f"ratio {written.raw_size / written.size:.2f}{rate}",
        err=True,
    )
    for name, group in written.groups.items() if verbose else ():
        click.echo(f"  {_described(name, group)}", err=True)


def _described(name: str, written: Written) -> str:
    rate = "" if math.isnan(written.bits_per_dimension) else f", {written.bits_per_dimension:.4f} bits/dim"
    won = f", {written.order_bits / 8:,.0f} bytes of order saved" if written.order_bits else ""
    return f"{name}: {written.size:,} bytes{rate}, model {written.model or 'none'}{won}"
