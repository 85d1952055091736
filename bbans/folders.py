"""Folders and other collections of files to one `.bba` file and back: the library's front door for them."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from bbans.api import open_array, resolve_model
from bbans.codec import Codec, Written
from bbans.collection import CollectionWriter, Role, member_file, read_contents
from bbans.collection_reader import Collection
from bbans.container import Header, read_directory
from bbans.errors import StoredWarning
from bbans.inputs import Group, find_groups
from bbans.model import Model, load_model, read_model, shipped_models
from bbans.npy import whole_file
from bbans.parallel import Progress
from bbans.reader import CompressedArray, check_equal


@dataclass(frozen=True)
class WrittenCollection:
    """What became of files."""

    size: int
    """Bytes of the collection."""
    groups: dict[str, Written]
    """What became of each member."""

    @property
    def elements(self) -> int:
        return sum(written.elements for written in self.groups.values())

    @property
    def raw_size(self) -> int:
        """Bytes of all arrays."""
        return sum(written.raw_size for written in self.groups.values())

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        return [f"{name}: {written.note}" for name, written in self.groups.items() if written.note]


def compress_files(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str] | BinaryIO,
    *,
    model: str | os.PathLike[str] | Model | None = "auto",
    posterior: str | None = None,
    steps: int = 0,
    chunk_size: int | None = None,
    embed_model: bool = False,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    verify: bool = False,
) -> WrittenCollection:
    """Compress a folder, a pattern such as ``scans/*.png``, or several of these and files, to a collection.

    Pictures (PNG, WebP, TIFF) and arrays (`.npy`, `.npz`, IDX) become groups of one type and shape, each of them a
    member of the collection. Of pictures, the pixels are kept, and not the bytes of their files. The memory that it
    takes is that of the largest group, and what coding takes. With ``verify`` each member is decoded again and
    compared. The other arguments are those of :func:`bbans.compress`, for each group; with ``embed_model``, each
    member that uses a model has it.

    Raises :class:`bbans.ArrayError` for files that would not come back as they are, before anything is written.
    """
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    groups = find_groups([os.fspath(path) for path in paths])
    codecs = codec_chooser(
        model,
        posterior=posterior,
        steps=steps,
        engine=engine,
        device=device,
        ans=ans,
        threads=threads,
        embed_model=embed_model,
        pixels=sum(group.size for group in groups),
    )
    if isinstance(target, (str, os.PathLike)):
        with whole_file(Path(target)) as file:
            written = write_collection(file, groups, codecs, chunk_size, verify)
    else:
        written = write_collection(target, groups, codecs, chunk_size, verify)
    if model is not None:
        for note in written.notes:
            warnings.warn(note, StoredWarning, stacklevel=2)
    return written


def codec_chooser(
    model: str | os.PathLike[str] | Model | None, embed_model: bool, **settings: Any
) -> Callable[[NDArray[Any]], Codec]:
    """What finds the codec for an array: see :func:`bbans.compress`. Models are loaded once."""
    shipped = [read_model(path) for path in shipped_models().values()] if model == "auto" else []
    given = load_model(model) if isinstance(model, (str, os.PathLike)) and model != "auto" else model
    codecs: dict[int | None, Codec] = {}

    def codec_for(array: NDArray[Any]) -> Codec:
        chosen = resolve_model(array, given, shipped)
        key = None if chosen is None else id(chosen)
        if key not in codecs:
            codecs[key] = Codec.of(chosen, thorough=model == "auto", embed_model=embed_model, **settings)
        return codecs[key]

    return codec_for


def write_collection(
    file: BinaryIO,
    groups: Sequence[Group],
    codec_for: Callable[[NDArray[Any]], Codec],
    chunk_size: int | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> WrittenCollection:
    """Compress groups of files, one after the other, to a file that can be read and sought."""
    writer = CollectionWriter(file)
    written = {}
    for group in groups:
        rows = group.read()
        codec = codec_for(rows)
        with writer.member(group.name, Role.FILES, [source.file for source in group.sources]) as part:
            written[group.name] = codec.write(part, rows, chunk_size, progress)
        if verify:
            end = file.tell()
            check_equal(CompressedArray(member_file(file, threading.Lock(), writer.latest), codec), rows)
            file.seek(end)
        del rows  # before the next group is read
    size = writer.finish()
    if verify:
        read_contents(file)
    return WrittenCollection(size, written)


def open_collection(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    model: str | os.PathLike[str] | Model | None = None,
    engine: str = "auto",
    device: str = "auto",
    ans: str = "auto",
    threads: int | None = None,
    max_memory: int | None = None,
) -> Collection:
    """Open a collection by its path, its bytes, or as a seekable binary file, without decoding any of it.

    It maps the paths of its files to their arrays. ``model`` is for the members that were written with it. The other
    arguments are those of :func:`bbans.open`, for each member.
    """
    given = load_model(model) if isinstance(model, (str, os.PathLike)) else model
    settings: dict[str, Any] = {"engine": engine, "device": device, "ans": ans, "threads": threads}

    def open_member(part: BinaryIO) -> CompressedArray:
        own = given if given is not None and _was_used(given, read_directory(part).header) else None
        return open_array(part, model=own, max_memory=max_memory, **settings)

    if isinstance(source, bytes):
        return Collection(io.BytesIO(source), open_member)
    if not isinstance(source, (str, os.PathLike)):
        return Collection(source, open_member)
    file = open(source, "rb")  # noqa: SIM115 - closed with the Collection
    try:
        return Collection(file, open_member)
    except BaseException:
        file.close()
        raise


def _was_used(model: Model, header: Header) -> bool:
    reference = header.model
    known = reference is not None and reference.posterior in model.posteriors
    return known and reference is not None and model.identity(reference.posterior) == reference.identity
