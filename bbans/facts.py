"""What is known of a file without decoding it, without NumPy: for `bbans info`."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

from bbans.collection import Member, member_file, read_contents, read_member
from bbans.container import CODED, COLLECTION, Directory, read_directory, read_kind
from bbans.errors import FormatError

Facts = dict[str, Any]
COLUMNS = ("group", "files", "array", "model", "bytes", "bits/dim", "ratio")


def facts_of(file: BinaryIO) -> Facts:
    """The facts of an array file or a collection; :class:`bbans.errors.FormatError` if it is damaged."""
    if read_kind(file) == COLLECTION:
        return _facts_of_collection(file)
    return _facts_of_array(read_directory(file))


def table_of(facts: Facts) -> str:
    """The facts as lines to read."""
    if "groups" in facts:
        return _table_of_collection(facts)
    shape = " x ".join(f"{size:,}" for size in facts["shape"]) or "a single number"
    chunks, stored = facts["chunks"], facts["stored_chunks"]
    model = "none"
    if facts["model"]:
        embedded = f", in the file with {facts['embedded_model']:,} bytes" if facts["embedded_model"] else ""
        model = f"{facts['model']}, posterior {facts['posterior']}, {facts['steps']} steps{embedded}"
    lines = [("array", f"{shape} of {facts['dtype']}"), ("model", model)]
    if facts["identity"]:
        lines.append(("identity", facts["identity"]))
    if facts["scale"] != 1:
        lines.append(("values", f"0 and {facts['scale']}"))
    if not facts["ordered"]:
        won = f": {facts['order_bits'] / 8:,.0f} bytes won, less where rows are equal" if facts["order_bits"] else ""
        lines.append(("order", f"not kept{won}"))
    lines.append(("chunks", f"{chunks:,}" + (f", {stored:,} of them stored through zstandard" if stored else "")))
    lines.append(("size", f"{facts['size']:,} bytes, of {facts['raw_size']:,} raw"))
    return _aligned([*lines, *_rates(facts)])


def _table_of_collection(facts: Facts) -> str:
    lines = [("collection", f"{facts['files']:,} files in {len(facts['groups'])} groups")]
    lines.append(("size", f"{facts['size']:,} bytes, of {facts['raw_size']:,} raw"))
    rows: list[Sequence[str]] = [COLUMNS]
    for name, group in facts["groups"].items():
        if "damaged" in group:
            rows.append((name, "", "", "", f"{group['size']:,}", "damaged", ""))
            continue
        shape = "x".join(map(str, group["shape"])) or "number"
        rate = group["bits_per_dimension"]
        numbers = (f"{group['size']:,}", "" if rate is None else f"{rate:.4f}", f"{group['ratio']:.2f}")
        rows.append(
            (
                name,
                f"{group['files']:,}",
                f"{shape} {group['dtype']}" + ", a set" * (not group["ordered"]),
                group["model"] or "none",
                *numbers,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:4], widths[:4], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[4:], widths[4:], strict=True)]
        table.append("  ".join(cells).rstrip())
    return "\n".join([_aligned([*lines, *_rates(facts)]), "", *table])


def _rates(facts: Facts) -> list[tuple[str, str]]:
    rate = facts["bits_per_dimension"]
    return [("rate", "" if rate is None else f"{rate:.4f} bits per dimension, ratio {facts['ratio']:.2f}")]


def _aligned(lines: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:>10}  {value}" for name, value in lines)


def _facts_of_array(directory: Directory) -> Facts:
    header = directory.header
    elements = math.prod(directory.shape)
    raw = elements * header.item_size
    model = header.model
    sets = [] if header.ordered else [block for block in directory.blocks if directory.chunks[block[0]].method in CODED]
    rows_of_sets = [sum(directory.chunks[number].rows for number in block) for block in sets]
    return {
        "shape": list(directory.shape),
        "dtype": header.dtype,
        "model": model.name if model else None,
        "identity": model.identity.hex() if model else None,
        "posterior": model.posterior if model else None,
        "steps": model.steps if model else None,
        "scale": header.scale,
        "ordered": header.ordered,
        "order_bits": sum(math.lgamma(rows + 1) / math.log(2) for rows in rows_of_sets),
        "chunks": len(directory.chunks),
        "stored_chunks": sum(chunk.method not in CODED for chunk in directory.chunks),
        "embedded_model": header.embedded.length if header.embedded else 0,
        "size": directory.size,
        "payload": sum(chunk.length for chunk in directory.chunks),
        "raw_size": raw,
        "bits_per_dimension": 8 * directory.size / elements if elements else None,
        "ratio": raw / directory.size,
    }


def _facts_of_collection(file: BinaryIO) -> Facts:
    contents = read_contents(file)
    groups = {member.name: _facts_of_member(file, member) for member in contents.members}
    whole = [group for group in groups.values() if "damaged" not in group]
    elements, raw = sum(math.prod(group["shape"]) for group in whole), sum(group["raw_size"] for group in whole)
    return {
        "groups": groups,
        "files": sum(len(member.files) or 1 for member in contents.members),
        "size": contents.size,
        "raw_size": raw,
        "bits_per_dimension": 8 * contents.size / elements if elements else None,
        "ratio": raw / contents.size,
    }


def _facts_of_member(file: BinaryIO, member: Member) -> Facts:
    """Those of its array, or what is wrong with it: its damage is not that of the others."""
    known = {"files": len(member.files) or 1, "role": member.role.name.lower()}
    try:
        return known | _facts_of_array(read_member(member_file(file, threading.Lock(), member), member))
    except FormatError as error:
        return known | {"damaged": str(error), "size": member.length}
