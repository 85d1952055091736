"""Folders, pictures and files of arrays: what comes back is what went in, pixel by pixel, or it is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_model
from PIL import Image
from test_cli import fail, invoke, succeed

import bbans
from bbans.collection import read_contents
from bbans.inputs import find_groups
from bbans.model import save_model

RANDOM = np.random.default_rng(0)
PICTURES = {
    "1": RANDOM.integers(0, 2, (5, 4)).astype(bool),
    "L": RANDOM.integers(0, 256, (5, 4), dtype=np.uint8),
    "LA": RANDOM.integers(0, 256, (5, 4, 2), dtype=np.uint8),
    "RGB": RANDOM.integers(0, 256, (5, 4, 3), dtype=np.uint8),
    "RGBA": RANDOM.integers(0, 256, (5, 4, 4), dtype=np.uint8),
    "I;16": RANDOM.integers(0, 1 << 16, (5, 4), dtype=np.uint16),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def palette_picture() -> Image.Image:
    picture = Image.fromarray(RANDOM.integers(0, 7, (5, 4), dtype=np.uint8))
    picture.putpalette(bytes(range(21)))
    return picture


def fill(folder: Path) -> None:
    """Pictures of all kinds, in two folders, and arrays."""
    (folder / "deep" / "er").mkdir(parents=True)
    for mode, pixels in PICTURES.items():
        picture = Image.fromarray(pixels)
        assert picture.mode == mode
        name = mode.replace(";", "")
        picture.save(folder / f"{name}.png")
        picture.save(folder / "deep" / f"{name}.TIFF", compression="tiff_lzw")
        if mode in ("RGB", "RGBA"):
            picture.save(folder / "deep" / "er" / f"{name}.webp", lossless=True, exact=True)
    palette_picture().save(folder / "palette.png", transparency=b"\x00\x80")
    palette_picture().save(folder / "palette.tif")
    pages = [Image.fromarray(PICTURES["I;16"] // (page + 1)) for page in range(3)]
    pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
    np.save(folder / "labels.npy", np.arange(9))
    np.save(folder / "swapped.npy", np.arange(9, dtype=">i8"))
    data = b"\0\0\x08\x03" + struct.pack(">III", 3, 5, 4) + bytes(range(60))
    (folder / "t10k-images-idx3-ubyte").write_bytes(data)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    (folder / ".hidden").write_text("is left alone")


def contents(folder: Path) -> dict[str, tuple[object, ...]]:
    """What the files of a folder show."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = str(path.relative_to(folder))
        if "idx" in name:
            found[name] = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes(),)
        elif path.suffix == ".npy":
            found[name] = (path.read_bytes(),)
        else:
            with Image.open(path) as picture:
                pages = []
                for page in range(getattr(picture, "n_frames", 1)):
                    picture.seek(page)
                    pages.append((picture.mode, picture.size, np.asarray(picture).tobytes(), picture.getpalette()))
                found[name] = (picture.format, picture.info.get("transparency"), pages)
    return found


def test_a_folder_comes_back(folder: Path) -> None:
    (folder / "all").mkdir()
    fill(folder / "all")
    before = contents(folder / "all")
    result = succeed("compress", "all", "--model", "none", "--verify", "-v")
    assert f"all.bba: {(folder / 'all.bba').stat().st_size:,} bytes, 9 groups" in result.stderr
    succeed("test", "all.bba")
    succeed("decompress", "all.bba", "-o", "back")
    assert contents(folder / "back") == before
    assert "exists" in fail("decompress", "all.bba")
    succeed("compress", "all", "--model", "none", "-o", "again.bba", "--rm")
    assert (folder / "again.bba").read_bytes() == (folder / "all.bba").read_bytes()
    assert os.listdir(folder / "all") == [".hidden"]
    succeed("decompress", "again.bba", "--rm", "-q")
    assert contents(folder / "again") == before and not (folder / "again.bba").exists()


def test_the_library(folder: Path) -> None:
    (folder / "all").mkdir()
    fill(folder / "all")
    with pytest.warns(bbans.StoredWarning):
        written = bbans.compress_files("all", "all.bba", model=tiny_model("discretized-logistic"))
    assert written.groups["uint8 5x4"].model == "tiny" or written.groups["uint8 5x4"].note
    with bbans.open_collection("all.bba", model=tiny_model("discretized-logistic")) as collection:
        assert set(collection) == set(contents(folder / "all")) and len(collection) == len(set(collection))
        np.testing.assert_array_equal(collection["deep/er/RGB.webp"], PICTURES["RGB"])
        np.testing.assert_array_equal(collection["I16.png"], PICTURES["I;16"])
        assert collection["stack.tif"].shape == (3, 5, 4)
        np.testing.assert_array_equal(collection["labels.npy"], np.arange(9))
        assert collection["swapped.npy"].dtype == ">i8"
        grey = collection.array("uint8 5x4")
        assert grey.shape == (8, 5, 4)  # two pictures and twice three of IDX
        np.testing.assert_array_equal(grey[0], PICTURES["L"])
        with pytest.raises(KeyError):
            collection["nothing"]
        collection.extract(folder / "back")
    assert contents(folder / "back") == contents(folder / "all")


def test_a_group_is_coded_with_its_model(folder: Path) -> None:
    """In chunks so small that zstandard does worse; groups that the model does not fit are stored."""
    model = tiny_model("bernoulli")
    save_model(model, folder / "model.safetensors")
    (folder / "many").mkdir()
    for number, image in enumerate(bbans.sample_images(model, 30)):
        Image.fromarray(image.astype(bool)).save(folder / "many" / f"{number:02}.png")
    Image.fromarray(PICTURES["RGB"]).save(folder / "many" / "colours.png")
    result = succeed("compress", "many", "--model", "model.safetensors", "--verify", "--chunk-size", 2)
    assert "stored through zstandard, at least in part: uint8 5x4x3 (model tiny does not fit" in result.stderr
    facts = json.loads(succeed("info", "many.bba", "--json").stdout)
    assert facts["files"] == 31 and facts["groups"]["bool 5x4"]["model"] == "tiny"
    told = succeed("info", "many.bba").stdout
    assert "31 files in 2 groups" in told and "uint8 5x4x3" in told
    assert "needs model tiny" in fail("decompress", "many.bba", "-o", "back")
    succeed("decompress", "many.bba", "-o", "back", "--model", "model.safetensors")
    assert contents(folder / "back") == contents(folder / "many")


def test_patterns_and_several_inputs(folder: Path) -> None:
    for place in ("a", "b"):
        (folder / place).mkdir()
        Image.fromarray(PICTURES["L"]).save(folder / place / "x.png")
        Image.fromarray(PICTURES["L"]).save(folder / place / "y.tif")
    common = ("-q", "--model", "none", "-f", "-o", "out.bba")
    for inputs, names in (
        (["a/*.png"], ["x.png"]),
        (["*/*.png"], ["a/x.png", "b/x.png"]),
        (["a", "b"], ["a/x.png", "a/y.tif", "b/x.png", "b/y.tif"]),
        (["a/x.png", folder / "b"], ["a/x.png", "b/x.png", "b/y.tif"]),
        (["a/x.png", "a/x.png", "a/y.tif"], ["x.png", "y.tif"]),
    ):
        succeed("compress", *inputs, *common)
        with bbans.open_collection("out.bba") as collection:
            assert list(collection) == names
    assert invoke("compress", "a", "b").exit_code == 2
    assert "No such file" in fail("compress", "c/*.png", "-o", "new.bba")
    (folder / "c").mkdir()
    assert "no files" in fail("compress", "c", "-o", "new.bba")
    streamed = succeed("compress", "a", "-c", "-q", "--model", "none").stdout_bytes
    assert len(read_contents(io.BytesIO(streamed)).members) == 1
    succeed("decompress", "-", "-o", "streamed", data=streamed)
    assert contents(folder / "streamed") == contents(folder / "a")
    assert "say which with -o" in fail("decompress", "-", data=streamed)
    assert "--select" in fail("decompress", "-", "-o", "x", "--select", "1:2", data=streamed)


def test_one_picture_and_archives(folder: Path) -> None:
    Image.fromarray(PICTURES["RGBA"]).save("a.png")
    before = contents(folder)
    succeed("compress", "a.png", "-q", "--rm", "--model", "none")
    assert not (folder / "a.png").exists()
    succeed("decompress", "a.png.bba", "--rm")
    assert contents(folder) == before
    (folder / "a.png").unlink()

    arrays = {"x_train": np.arange(60.0).reshape(3, 4, 5), "y_train": np.arange(3)}
    np.savez("both.npz", **arrays)
    succeed("compress", "both.npz", "-q", "--rm", "--model", "none")
    succeed("decompress", "both.npz.bba")
    with np.load("both.npz") as back:
        assert set(back) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(back[name], array)
    succeed("decompress", "both.npz.bba", "-o", "folder")
    np.testing.assert_array_equal(np.load("folder/y_train.npy"), np.arange(3))


def test_files_of_one_array_are_arrays(folder: Path) -> None:
    array = np.arange(60, dtype=np.uint8).reshape(3, 5, 4)
    np.savez("one.npz", array)
    data = b"\0\0\x08\x03" + struct.pack(">III", *array.shape) + array.tobytes()
    (folder / "x.idx.gz").write_bytes(gzip.compress(data))
    for name in ("one.npz", "x.idx.gz"):
        succeed("compress", name, "-q", "--model", "none", "-o", "out.bba", "-f", "--verify")
        with bbans.open("out.bba") as compressed:
            np.testing.assert_array_equal(compressed[:], array)


def test_zarr_arrays(folder: Path) -> None:
    zarr = pytest.importorskip("zarr")
    array = np.arange(60, dtype=np.uint8).reshape(3, 5, 4)
    stored = zarr.create_array("x.zarr", shape=array.shape, chunks=(2, 5, 4), dtype=array.dtype)
    stored[:] = array
    succeed("compress", "x.zarr", "-q", "--model", "none")
    np.testing.assert_array_equal(bbans.decompress((folder / "x.zarr.bba").read_bytes()), array)


def png(depth: int, colours: int, row: bytes, *chunks: bytes) -> bytes:
    """One pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, depth, colours, 0, 0, 0))
    more = b"".join(chunk(part[:4], part[4:]) for part in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


def animation() -> bytes:
    frames = [Image.fromarray(PICTURES["RGB"] // (1 + frame)) for frame in range(2)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def tiff(mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5, 4)).save(file, "TIFF", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("a.png", png(16, 2, bytes(6)), "16 bits a channel"),
        ("a.png", png(16, 6, bytes(8)), "16 bits a channel"),
        ("a.png", png(8, 0, b"\5", b"tRNS\0\5"), "one colour that is transparent"),
        ("a.png", png(8, 3, b"\5", b"PLTE\1\2\3"), "colours that its palette lacks"),
        ("a.png", png(8, 0, b"\5")[:-30], "picture|cannot read"),
        ("a.png", b"text", "not a picture"),
        ("a.png", animation(), "an animation of 2"),
        ("a.png", tiff("CMYK"), "expected a TIFF of"),
        ("a.tif", tiff("F"), "expected a TIFF of"),
        ("a.tif", tiff("I"), "expected a TIFF of"),
        ("a.tif", tiff("RGB", compression="jpeg"), "expected a TIFF of"),
        ("a.webp", b"RIFF", "not a picture"),
        ("a.jpg", b"text", "PNG, WebP or TIFF"),
        ("notes.txt", b"text", "PNG, WebP or TIFF"),
        ("a.npy", b"text", "not a .npy file"),
        ("a.npz", b"text", "not a .npz file"),
        ("a\\b.npy", None, "can't have the name"),
    ],
)
def test_what_would_not_come_back_is_refused(folder: Path, name: str, data: bytes | None, match: str) -> None:
    (folder / "all").mkdir()
    Image.fromarray(PICTURES["L"]).save(folder / "all" / "b.png")
    if data is None:
        np.save(folder / "all" / name, np.arange(3))
    else:
        (folder / "all" / name).write_bytes(data)
    message = fail("compress", "all", "-o", "out.bba", "--model", "none")
    assert name.replace("\\", "\\\\") in message
    assert pytest.importorskip("re").search(match, message), message


def test_groups_are_read_one_at_a_time_and_files_may_not_change(folder: Path) -> None:
    Image.fromarray(PICTURES["L"]).save("a.png")
    Image.fromarray(PICTURES["L"]).save("b.png")
    (group,) = find_groups(["*.png"])
    Image.fromarray(PICTURES["RGB"]).save("b.png")
    with pytest.raises(bbans.ArrayError, match="changed"):
        group.read()


def test_damage_stays_local(folder: Path) -> None:
    """One group of two has lost a chunk, then its header: the other files are written, and the lost ones named."""
    (folder / "all").mkdir()
    for number in range(4):
        Image.fromarray(PICTURES["L"]).save(folder / "all" / f"{number}.png")
    np.save(folder / "all" / "labels.npy", np.arange(4))
    succeed("compress", "all", "-q", "--model", "none", "--chunk-size", 2)
    before, data = contents(folder / "all"), (folder / "all.bba").read_bytes()
    with bbans.open_collection(data) as collection:
        places = {member.name: member.offset for member in collection.contents.members}
        chunk = places["uint8 5x4"] + collection.array("uint8 5x4").directory.chunks[1].offset
    for position, lost in ((chunk, ["2.png", "3.png"]), (places["uint8 5x4"] + 12, [f"{n}.png" for n in range(4)])):
        (folder / "bad.bba").write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert "uint8 5x4" in fail("test", "bad.bba")
        assert "--recover" in fail("decompress", "bad.bba", "-o", "back")
        result = invoke("decompress", "bad.bba", "-o", "back", "--recover")
        assert result.exit_code == 2 and f"back holds {5 - len(lost)} of 5 files" in result.stderr
        assert all(f"lost {name}" in result.stderr for name in lost)
        assert contents(folder / "back") == {name: shown for name, shown in before.items() if name not in lost}
        for path in (folder / "back").iterdir():
            path.unlink()
        (folder / "back").rmdir()
        assert json.loads(succeed("info", "bad.bba", "--json").stdout)["files"] == 5
    assert "damaged" in succeed("info", "bad.bba").stdout


def test_memory_is_bounded(folder: Path) -> None:
    (folder / "all").mkdir()
    Image.fromarray(np.zeros((500, 500), np.uint8)).save(folder / "all" / "a.png")
    succeed("compress", "all", "-q", "--model", "none")
    assert "--max-memory" in fail("decompress", "all.bba", "-o", "back", "--max-memory", "100K")
    succeed("decompress", "all.bba", "-o", "back", "--max-memory", "1M")
