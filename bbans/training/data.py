"""Images to train on, from the files that people have. Nothing is read through pickle."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from bbans.errors import ArrayError
from bbans.npy import read_npy

Images = NDArray[np.uint8]

PICTURES = (".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
IDX_UINT8 = 8
CIFAR10_RECORD = 1 + 3 * 32 * 32
CIFAR100_RECORD = 2 + 3 * 32 * 32


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


def _reader(path: Path) -> Callable[[Path], NDArray[Any]]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".npy"):
        return read_npy
    if name.endswith(".npz"):
        return _read_npz
    if name.endswith(("-ubyte", ".idx")):
        return _read_idx
    if name.endswith(".bin"):
        return _read_cifar
    if name.endswith(PICTURES):
        return lambda path: _read_picture(path)[None]
    raise ArrayError(f"{path}: expected a .npy, .npz, IDX (*-ubyte, *.idx) or CIFAR (*.bin) file, or a picture")


def _read_folder(folder: Path) -> NDArray[Any]:
    parts = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            parts.append(_reader(path)(path))
    if not parts:
        raise ArrayError(f"{folder} holds no files")
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ArrayError(f"{folder}: expected images of one shape, got {', '.join(map(str, sorted(shapes)))}")
    return np.concatenate(parts)


def _read_npz(path: Path) -> NDArray[Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise ArrayError(f"{path}: expected one array, got {len(names)}: {', '.join(names)}; save it as .npy")
            with archive.open(names[0]) as member:
                array: NDArray[Any] = npy_format.read_array(member, allow_pickle=False)
                return array
    except (zipfile.BadZipFile, ValueError) as error:
        raise ArrayError(f"{path} is not a .npz file of numbers: {error}") from error


def _read_idx(path: Path) -> NDArray[Any]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != IDX_UINT8:
        raise ArrayError(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">u4", data[3], 4) if len(data) >= 4 + 4 * data[3] else np.array([-1])
    start = 4 + 4 * data[3]
    if int(np.prod(shape.astype(object))) != len(data) - start:
        raise ArrayError(f"{path}: an IDX file whose size does not fit its shape")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read_cifar(path: Path) -> NDArray[Any]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for record in (CIFAR10_RECORD, CIFAR100_RECORD):
        if len(data) and len(data) % record == 0:
            pixels = data.reshape(-1, record)[:, -3 * 32 * 32 :]
            return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    raise ArrayError(f"{path} is not a binary batch of CIFAR: its size is no multiple of a record's")


def _read_picture(path: Path) -> NDArray[Any]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ArrayError(f"{path}: reading pictures needs pillow: pip install 'bbans[images]'") from error
    try:
        with Image.open(path) as picture:
            return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise ArrayError(f"{path} is not a picture that can be read: {error}") from error
