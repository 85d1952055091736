"""`bbans show`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bbans.options import STANDARD, decoding_options, opened, output_target, reports_errors


@click.command()
@click.argument("source", metavar="FILE")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="OUT",
              help="A PNG file. [default: FILE.png]")  # fmt: skip
@click.option("-f", "--force", is_flag=True, help="Overwrite OUT.")
@click.option("-n", "--images", type=click.IntRange(1), default=16, show_default=True, help="How many images.")
@decoding_options
@reports_errors
def show(source: str, output: Path | None, force: bool, images: int, **decoding: Any) -> None:
    """Draw the first images of FILE, each beside a heat map of the bits of its pixels: where the bytes went.

    Pixels cost -log2 of their probability under the model, given the latents that they were coded with; what the
    latents of an image cost is said below it. Of a collection, the first images of each group are drawn.
    """
    from bbans.api import open_array
    from bbans.collection_cli import is_collection
    from bbans.folders import open_collection
    from bbans.show import draw_sheet, has_images, shown_of

    given = sys.stdin.buffer.read() if source == STANDARD else source
    if source == STANDARD and output is None:
        raise click.UsageError("say with -o where to draw")
    target = output_target(output or Path(f"{source}.png"), False, force)
    assert target is not None
    if is_collection(given):
        with open_collection(given, **decoding) as collection:
            everything = collection.contents.members
            members = [member for member in everything if has_images(collection.array(member.name).header)]
            each = max(1, images // max(1, len(members)))
            shown = []
            for member in members[:images]:
                names = [file.name for file in member.files for _ in range(file.form.rows)] or None
                shown += shown_of(collection.array(member.name), each, names)
    else:
        with open_array(given, **decoding) as compressed:
            shown = shown_of(compressed, images)
    sheet = draw_sheet(shown)
    with opened(target) as file:
        sheet.save(file, format="PNG")
