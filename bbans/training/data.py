"""Images to train on, from the files that people have. Nothing is read through pickle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bbans.errors import ArrayError
from bbans.inputs import IDX_SUFFIXES, npz_entries, read_idx, read_npz
from bbans.npy import read_npy
from bbans.pictures import open_picture

Images = NDArray[np.uint8]

PICTURES = (".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR100_RECORD = 2 + 3 * 32 * 32
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue are of grey."""


def read_images(path: Path) -> Images:
    """uint8 images ``(images, height, width)`` or ``(images, height, width, channels)``.

    From a ``.npy`` file, a ``.npz`` file with one array, an IDX file (``*-ubyte``, ``*.idx``, also gzipped), a binary
    batch of CIFAR (``*.bin``), or a folder of such files or of pictures of one size, in the order of their names.
    Raises :class:`bbans.errors.ArrayError` if that is not what the path holds.
    """
    try:
        images = _read_folder(path) if path.is_dir() else _reader(path)(path)
    except OSError as error:
        raise ArrayError(f"cannot read {path}: {error.strerror or error}") from error
    if images.dtype != np.uint8 or images.ndim < 2 or not len(images):
        raise ArrayError(f"{path}: expected uint8 images, got {images.dtype} of shape {images.shape}")
    return images


def read_any_size(paths: Sequence[Path], channels: int | None = None) -> list[Images]:
    """uint8 images ``(height, width)`` or ``(height, width, 3)`` of any sizes, from what :func:`read_images` reads.

    With ``channels`` 1, colours become grey: 0.299 red, 0.587 green, 0.114 blue, rounded. By default there are as many
    channels as the first image has.
    """
    found: list[Images] = []
    for path in paths:
        files = _files_in(path) if path.is_dir() else [path]
        for file in files:
            images = read_images(file)
            if channels is None:
                channels = 3 if images.shape[3:] == (3,) else 1
            if channels == 1 and images.shape[3:] == (3,):
                images = np.rint(images @ np.array(LUMA)).astype(np.uint8)
            found += list(images)
    return found


def _reader(path: Path) -> Callable[[Path], NDArray[Any]]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".npy"):
        return read_npy
    if name.endswith(".npz"):
        return _read_npz
    if name.endswith(IDX_SUFFIXES):
        return read_idx
    if name.endswith(".bin"):
        return _read_cifar
    if name.endswith(PICTURES):
        return lambda path: _read_picture(path)[None]
    raise ArrayError(f"{path}: expected a .npy, .npz, IDX (*-ubyte, *.idx) or CIFAR (*.bin) file, or a picture")


def _read_folder(folder: Path) -> NDArray[Any]:
    parts = [_reader(path)(path) for path in _files_in(folder)]
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ArrayError(f"{folder}: expected images of one shape, got {', '.join(map(str, sorted(shapes)))}")
    return np.concatenate(parts)


def _files_in(folder: Path) -> list[Path]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise ArrayError(f"{folder} holds no files")
    return files


def _read_cifar(path: Path) -> NDArray[Any]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for record in (CIFAR10_RECORD, CIFAR100_RECORD):
        if len(data) and len(data) % record == 0:
            pixels = data.reshape(-1, record)[:, -3 * 32 * 32 :]
            return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    raise ArrayError(f"{path} is not a binary batch of CIFAR: its size is no multiple of a record's")


def _read_npz(path: Path) -> NDArray[Any]:
    names = npz_entries(path)
    if len(names) != 1:
        raise ArrayError(f"{path}: expected one array, got {len(names)}: {', '.join(names)}; save it as .npy")
    return read_npz(path, names[0])


def _read_picture(path: Path) -> NDArray[Any]:
    """Pixels as they are seen, in grey or colours: what is only learned from may lose a bit."""
    with open_picture(path) as picture:
        return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
