"""Images from the files that people have."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbans.errors import ArrayError
from bbans.training.data import read_images

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 5), dtype=np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_npy_and_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "b.npz", IMAGES)
    for name in ("a.npy", "b.npz"):
        np.testing.assert_array_equal(read_images(tmp_path / name), IMAGES)


def test_idx(tmp_path: Path) -> None:
    data = b"\0\0\x08\x03" + struct.pack(">III", *IMAGES.shape) + IMAGES.tobytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    (tmp_path / "train.idx.gz").write_bytes(gzip.compress(data))
    for name in ("train-images-idx3-ubyte", "train.idx.gz"):
        np.testing.assert_array_equal(read_images(tmp_path / name), IMAGES)


def test_cifar(tmp_path: Path) -> None:
    planes = COLOURS.transpose(0, 3, 1, 2).reshape(4, -1)
    for labels in (1, 2):
        path = tmp_path / f"batch{labels}.bin"
        path.write_bytes(np.concatenate([np.full((4, labels), 7, np.uint8), planes], axis=1).tobytes())
        np.testing.assert_array_equal(read_images(path), COLOURS)


@pytest.mark.parametrize("images", [IMAGES, COLOURS])
def test_a_folder_of_pictures(tmp_path: Path, images: np.ndarray) -> None:
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    np.testing.assert_array_equal(read_images(tmp_path), images)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.txt", b"text", "expected a .npy"),
        ("a.npy", b"text", "not a .npy file"),
        ("a.npz", b"text", "not a .npz file"),
        ("a.idx", b"\0\0\x07\x01", "not an IDX file"),
        ("a.idx", b"\0\0\x0d\x01", "does not fit its shape"),
        ("a.idx.gz", b"text", "not a gzipped file"),
        ("a.idx", b"\0\0\x08\x03" + b"\xff" * 12, "does not fit its shape"),
        ("a.idx", b"\0\0\x08\x03", "does not fit its shape"),
        ("a.bin", b"text", "not a binary batch"),
        ("a.png", b"text", "not a picture"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArrayError, match=match):
        read_images(tmp_path / name)


def test_arrays_that_are_no_images_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((3, 4, 5)))
    with pytest.raises(ArrayError, match="expected uint8 images, got float64"):
        read_images(tmp_path / "floats.npy")
    np.savez(tmp_path / "two.npz", IMAGES, IMAGES)
    with pytest.raises(ArrayError, match="expected one array, got 2"):
        read_images(tmp_path / "two.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArrayError, match="holds no files"):
        read_images(tmp_path / "folder")
    np.save(tmp_path / "folder" / "a.npy", IMAGES)
    np.save(tmp_path / "folder" / "b.npy", IMAGES[:, 1:])
    with pytest.raises(ArrayError, match=r"one shape, got \(7, 5\), \(8, 5\)"):
        read_images(tmp_path / "folder")
    with pytest.raises(ArrayError, match="No such file"):
        read_images(tmp_path / "missing.npy")
