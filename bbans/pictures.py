"""Pictures as arrays and back: pixels exactly as they are, or refused.

Pillow, which reads and writes them, takes some pictures for others with fewer bits, or converts their colours. Such are
told apart here by what their files say of themselves.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bbans.collection import FileFormat, Form
from bbans.errors import ArrayError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.TiffImagePlugin import TiffImageFile

SUFFIXES = (".png", ".webp", ".tif", ".tiff")
"""Of the pictures that are kept without loss, and come back."""
FORMATS = {"PNG": FileFormat.PNG, "TIFF": FileFormat.TIFF, "WEBP": FileFormat.WEBP}
SAVE: dict[FileFormat, dict[str, Any]] = {
    FileFormat.PNG: {"format": "PNG"},
    FileFormat.TIFF: {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    FileFormat.WEBP: {"format": "WEBP", "lossless": True, "exact": True},
}
CHANNELS = {"1": (), "L": (), "P": (), "I;16": (), "LA": (2,), "RGB": (3,), "RGBA": (4,)}
"""The shape of a pixel in each of Pillow's modes."""
DTYPES = {"1": "|b1", "I;16": "<u2"}
"""Of the modes whose elements are not bytes."""
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 259, 262, 320, 338, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = range(4)
UNSIGNED, STRAIGHT_ALPHA, JPEG_COMPRESSIONS = 1, 2, (6, 7)


@contextmanager
def open_picture(path: Path) -> Iterator[Image]:
    """A picture that Pillow has opened, but not decoded.

    Raises :class:`bbans.errors.ArrayError` if it can't be read, now or within the block.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ArrayError(f"{path}: reading pictures needs pillow: pip install 'bbans[images]'") from error
    try:
        with Image.open(path) as picture:
            yield picture
    except UnidentifiedImageError as error:
        raise ArrayError(f"{path} is not a picture that can be read: {error}") from error
    except Image.DecompressionBombError as error:
        raise ArrayError(f"{path} has too many pixels to be read as a picture: {error}; save it as .npy") from error
    except OSError as error:
        raise ArrayError(f"cannot read {path}: {error.strerror or error}") from error
    except (SyntaxError, ValueError, EOFError, KeyError, TypeError) as error:  # as Pillow finds files damaged
        raise ArrayError(f"{path} is a damaged picture: {error}") from error


def describe_picture(path: Path) -> tuple[Form, str, tuple[int, ...]]:
    """What a picture is, and the type and shape of its array without the first axis, its pages; nothing is decoded.

    Raises :class:`bbans.errors.ArrayError` for a picture whose pixels would not come back as they are.
    """
    with open_picture(path) as picture:
        return _describe(picture, path)


def read_picture(path: Path, form: Form, dtype: str, row_shape: tuple[int, ...]) -> NDArray[Any]:
    """The pixels ``(pages, height, width, ...)`` of a picture that :func:`describe_picture` has described so."""
    with open_picture(path) as picture:
        if _describe(picture, path) != (form, dtype, row_shape):
            raise ArrayError(f"{path} changed while it was read")
        pages = np.empty((form.rows, *row_shape), dtype)
        for page in range(form.rows):
            picture.seek(page)
            pixels = np.asarray(picture)
            if pixels.shape != row_shape:
                raise ArrayError(f"{path}: expected pixels of shape {row_shape}, got {pixels.shape}")
            pages[page] = pixels if pixels.dtype != bool else pixels.view(np.uint8) != 0  # Pillow's True is 255
    if form.palette and int(pages.max()) >= len(form.palette) // 3:
        raise ArrayError(f"{path} has pixels of colours that its palette lacks")
    return pages


def write_picture(file: BinaryIO, form: Form, pages: NDArray[Any]) -> None:
    """Write the file of a picture with the pixels ``(pages, height, width, ...)``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ArrayError("writing pictures needs pillow: pip install 'bbans[images]'") from error
    pictures = [Image.fromarray(np.ascontiguousarray(page)) for page in pages]
    options = dict(SAVE[form.format])
    if form.palette:
        for picture in pictures:
            picture.putpalette(form.palette)
    if form.transparency:
        options["transparency"] = form.transparency
    if len(pictures) > 1:
        options |= {"save_all": True, "append_images": pictures[1:]}
    whole = io.BytesIO()  # TIFF is written to and fro
    pictures[0].save(whole, **options)
    file.write(whole.getbuffer())


def _describe(picture: Image, path: Path) -> tuple[Form, str, tuple[int, ...]]:
    if picture.format not in FORMATS:
        raise ArrayError(f"{path}: expected a PNG, WebP or TIFF, got {picture.format}; convert it to PNG first")
    file_format, pages = FORMATS[picture.format], getattr(picture, "n_frames", 1)
    if pages > 1 and file_format is not FileFormat.TIFF:
        raise ArrayError(f"{path} is an animation of {pages} pictures; save each as a picture of its own")
    if file_format is FileFormat.TIFF:
        found = {_describe_page(picture, path, page) for page in reversed(range(pages))}
        if len(found) > 1:
            raise ArrayError(f"{path} has pages of different kinds; save each as a picture of its own")
        mode, size, palette, transparency = found.pop()
    else:
        mode, size, palette, transparency = _describe_page(picture, path)
    width, height = size
    form = Form(file_format, pages, palette, transparency)
    return form, DTYPES.get(mode, "|u1"), (height, width, *CHANNELS[mode])


def _describe_page(picture: Image, path: Path, page: int | None = None) -> tuple[str, tuple[int, int], bytes, bytes]:
    """Mode, size, palette and its transparency of a page."""
    if page is not None:
        picture.seek(page)
        palette, transparency = _check_tiff(picture, path), b""  # type: ignore[arg-type]
    else:
        palette, transparency = _check_png(picture, path) if picture.format == "PNG" else (b"", b"")
    mode = "I;16" if picture.mode == "I;16B" else picture.mode
    if mode not in CHANNELS:
        raise ArrayError(f"{path}: pictures of mode {mode} can't be kept as they are; save its pixels as .npy")
    return mode, picture.size, palette, transparency


def _check_png(picture: Image, path: Path) -> tuple[bytes, bytes]:
    """The palette and its transparency; :class:`bbans.errors.ArrayError` if Pillow would give other pixels."""
    with open(path, "rb") as file:
        depth, colours = file.read(26)[24:]
    if depth == 16 and colours:
        raise ArrayError(f"{path} has 16 bits a channel in several channels, which would be cut; save it as .npy")
    transparency = picture.info.get("transparency")
    if picture.mode != "P" or picture.palette is None:
        if transparency is not None:
            raise ArrayError(f"{path} has one colour that is transparent; save it with an alpha channel instead")
        return b"", b""
    if isinstance(transparency, int):  # the one colour that is transparent
        transparency = b"\xff" * transparency + b"\0"
    return bytes(picture.palette.palette), transparency or b""


def _check_tiff(picture: TiffImageFile, path: Path) -> bytes:
    """The palette; :class:`bbans.errors.ArrayError` if Pillow would give other pixels than there are."""
    tags = picture.tag_v2
    bits, extra = tuple(tags.get(BITS_PER_SAMPLE, (1,))), tuple(tags.get(EXTRA_SAMPLES, ()))
    photometric, kinds = tags.get(PHOTOMETRIC, WHITE_IS_ZERO), set(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    deep = bits in ((12,), (16,)) and photometric == BLACK_IS_ZERO
    grey = len(bits) == 1 and bits[0] <= 8 and photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    grey_alpha = bits == (8, 8) and photometric == BLACK_IS_ZERO and extra == (STRAIGHT_ALPHA,)
    colours = bits == (8, 8, 8) and photometric == RGB
    colours_alpha = bits == (8, 8, 8, 8) and photometric == RGB and extra in ((), (STRAIGHT_ALPHA,))
    indices = len(bits) == 1 and bits[0] <= 8 and photometric == PALETTE
    known = grey_alpha or colours_alpha or (not extra and (deep or grey or colours or indices))
    if not known or kinds != {UNSIGNED} or tags.get(COMPRESSION) in JPEG_COMPRESSIONS:
        raise ArrayError(
            f"{path}: expected a TIFF of 1 to 16 bits in grey, of 8 bits a channel in colours (and alpha), or with a "
            f"palette, got {bits} bits, interpretation {photometric}; save its pixels as .npy"
        )
    if not indices:
        return b""
    colour_map = np.array(tags[COLOUR_MAP], np.int64)
    if len(colour_map) % 3 or not ((colour_map % 256 == 0).all() or (colour_map % 257 == 0).all()):
        raise ArrayError(f"{path} has a palette of 16 bits, which would be cut; save its pixels as .npy")
    return (colour_map // 256).astype(np.uint8).reshape(3, -1).T.tobytes()
