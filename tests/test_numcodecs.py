"""The codec for numcodecs, and buffers that every later version must decode."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import bbans
from bbans.model import Model

numcodecs = pytest.importorskip("numcodecs")

from bbans.integrations.numcodecs import BitsBack  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures"
FACTS = json.loads((FIXTURES / "fixtures.json").read_text())

specification = importlib.util.spec_from_file_location("fixtures_make", FIXTURES / "make.py")
assert specification is not None and specification.loader is not None
make = importlib.util.module_from_spec(specification)
sys.modules[specification.name] = make
specification.loader.exec_module(make)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_fixtures_are_decoded(name: str) -> None:
    facts, data = FACTS[name], (FIXTURES / f"{name}.bin").read_bytes()
    assert hashlib.sha256(data).hexdigest() == facts["buffer"], "the fixture itself was changed"
    array = numcodecs.get_codec(facts["config"]).decode(data)
    assert (array.dtype.str, list(array.shape)) == (facts["dtype"], facts["shape"])
    assert array.flags.f_contiguous == facts["fortran"]
    assert make.digest_of(array) == facts["array"]


@pytest.mark.parametrize("name", sorted(FACTS.keys() - {"stored", "context"}))
def test_the_same_buffers_are_written(name: str) -> None:
    assert make.encode(name) == (FIXTURES / f"{name}.bin").read_bytes()
    assert make.facts(name)["config"] == FACTS[name]["config"]


def test_every_case_has_its_fixture() -> None:
    assert set(make.CASES) == set(FACTS) == {path.stem for path in FIXTURES.glob("*.bin")}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("zarr_format", [2])
def test_zarr_v2(binary_model: Model, tmp_path: Path, order: str, zarr_format: int) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    images = bbans.sample_images(binary_model, 35).astype(">i2")
    zarr.create_array(
        tmp_path,
        data=images,
        chunks=(10, 5, 4),
        compressors=BitsBack(binary_model),
        zarr_format=zarr_format,
        order=order,
    )
    array = zarr.open_array(tmp_path, mode="r", zarr_format=zarr_format)
    np.testing.assert_array_equal(array[:], images)
    np.testing.assert_array_equal(array[7:23, 1:3], images[7:23, 1:3])


def test_decoding_into_a_buffer(binary_model: Model) -> None:
    images = bbans.sample_images(binary_model, 7).astype("<i2")
    codec = BitsBack(binary_model)
    for array in (images, np.asfortranarray(images)):
        data = codec.encode(array)
        whole = np.empty((9, 5, 4), "<i2")
        assert codec.decode(data, out=whole[1:8]).base is whole
        room = bytearray(array.nbytes)
        codec.decode(memoryview(data), out=room)
        assert bytes(room) == array.tobytes(order="A") == whole[1:8].tobytes()
    for out in (bytearray(3), np.empty((7, 5, 4), "i4"), bytes(array.nbytes), np.empty((7, 5, 8), "<i2")[:, :, ::2], 3):
        with pytest.raises(bbans.ArrayError, match="out="):
            codec.decode(data, out=out)


def test_what_is_not_images_is_refused(binary_model: Model) -> None:
    codec = BitsBack(binary_model)
    for array in (np.zeros((3, 9, 9), "u1"), np.zeros((3, 5, 4), "c8"), b"some bytes", np.zeros((0, 5, 4), "u1")):
        with pytest.raises(bbans.ArrayError):
            codec.encode(array)


def test_damage_is_found(binary_model: Model) -> None:
    """Except in the type, which says no more than its size does, if that stays the same."""
    codec = BitsBack(binary_model)
    images = bbans.sample_images(binary_model, 9)
    data = codec.encode(images)
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            decoded = codec.decode(flipped)
        except bbans.FormatError:
            continue
        assert position < 5 and decoded.tobytes(order="A") != b"" and (decoded == images).all(), position
    for length in range(len(data)):
        with pytest.raises(bbans.FormatError):
            codec.decode(data[:length])


def test_configurations(model_folder: Path, binary_model: Model) -> None:
    for codec in (
        BitsBack(model_folder),
        BitsBack(binary_model),
        BitsBack("gg-mnist", posterior="half-asleep", steps=2),
    ):
        config = json.loads(json.dumps(codec.get_config()))
        for same in (numcodecs.get_codec(config), pickle.loads(pickle.dumps(codec))):
            assert same == codec and hash(same) == hash(codec) and repr(same) == repr(codec)
    with pytest.raises(bbans.ModelError, match=r"identity 0000.*found by that name here has identity"):
        numcodecs.get_codec(BitsBack("gg-mnist").get_config() | {"identity": "00" * 8})
    with pytest.raises(bbans.ModelError, match="no model"):
        numcodecs.get_codec({"id": "bbans", "model": str(model_folder)})
