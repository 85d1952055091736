"""The serializer for zarr v3."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import random_images, tiny_context_model, tiny_model

import bbans
from bbans.model import Model

zarr = pytest.importorskip("zarr", minversion="3")

from bbans.integrations.zarr import BitsBack  # noqa: E402

CHUNK = 10
STORED = (0, 2)
"""What a chunk begins with that is stored through zstandard."""


def written(path: Path, images: np.ndarray, model: Model, **options: Any) -> Any:
    """An array in a store, opened again."""
    chunks = options.pop("chunks", (CHUNK, *images.shape[1:]))
    zarr.create_array(path, data=images, chunks=chunks, serializer=BitsBack(model), compressors=None, **options)
    return zarr.open_array(path, mode="r")


@pytest.mark.parametrize("dtype", ["bool", "u1", "<i2", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(35, 5, 4), (35, 20), (35, 5, 4, 1), (7, 5, 5, 4)])
def test_arrays_round_trip(binary_model: Model, tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    images = bbans.sample_images(binary_model, 35).reshape(shape).astype(dtype)
    array = written(tmp_path / "a", images, binary_model)
    assert array.dtype == images.dtype.newbyteorder("=")  # zarr v3 keeps no byte order
    assert array[:].tobytes() == images.astype(array.dtype).tobytes()
    np.testing.assert_array_equal(array[3:27:5], images[3:27:5])


def test_a_chunk_is_a_byte_and_a_stack(model: Model, tmp_path: Path) -> None:
    images = bbans.sample_images(model, 2 * CHUNK)
    written(tmp_path / "a", images, model)
    coder = bbans.Codec.of(model, engine="numpy").chunk_coder()
    name = "/".join(["c", "0", *["0"] * len(model.image_shape)])
    payload = coder.encode(images[:CHUNK].reshape(CHUNK, -1).astype(np.int64))
    chunk = (tmp_path / "a" / name).read_bytes()
    assert chunk == b"\1" + payload or (chunk[0] in STORED and len(chunk) <= len(payload))


def test_what_the_model_does_not_fit_is_stored(tmp_path: Path) -> None:
    """Values that it doesn't have, and what zstandard makes less of."""
    binary, grey = tiny_model("bernoulli"), tiny_model("discretized-logistic")
    counted = np.arange(CHUNK * 20, dtype=np.uint8).reshape(CHUNK, 5, 4)
    assert bbans.Codec.of(binary).encode_chunk(counted)[0] in STORED
    np.testing.assert_array_equal(written(tmp_path / "counted", counted, binary)[:], counted)
    same = np.repeat(random_images(grey, 1), 500, axis=0)
    assert bbans.Codec.of(grey).encode_chunk(same)[0] in STORED
    np.testing.assert_array_equal(written(tmp_path / "same", same, grey, chunks=same.shape)[:], same)


def test_metadata_names_the_model(binary_model: Model, tmp_path: Path) -> None:
    written(tmp_path / "a", bbans.sample_images(binary_model, 5), binary_model)
    metadata = json.loads((tmp_path / "a" / "zarr.json").read_text())
    assert metadata["codecs"] == [
        {
            "name": "bbans",
            "configuration": {
                "model": "tiny",
                "identity": binary_model.identity("amortized").hex(),
                "posterior": "amortized",
                "steps": 0,
            },
        }
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"identity": "00" * 8}, "identity 0000000000000000, posterior amortized; the one found by that name"),
        ({"model": "no-such"}, "no model 'no-such'"),
        ({"model": "../tiny"}, "no model '../tiny'"),
        ({"posterior": "half"}, "no posterior 'half'"),
        ({"level": 3}, "has a model's name"),
        ({"steps": "3"}, "has a model's name"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    model = bbans.load_model("gg-mnist-binary")
    written(tmp_path / "a", np.zeros((2, 28, 28), bool), model)
    path = tmp_path / "a" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"][0]["configuration"] |= changed
    path.write_text(json.dumps(metadata))
    with pytest.raises(bbans.ModelError, match=message):
        zarr.open_array(tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (20, 9, 9), "chunks": (10, 9, 9), "dtype": "u1"}, r"shape \(n, 5, 4\), not \(10, 9, 9\)"),
        ({"shape": (20, 5, 4), "chunks": (10, 5, 2), "dtype": "u1"}, r"not \(10, 5, 2\)"),
        ({"shape": (20, 5, 4), "chunks": (10, 5, 4), "dtype": "c8"}, "complex64"),
        ({"shape": (20, 5, 4), "chunks": (10, 5, 4), "dtype": "M8[s]"}, "datetime64"),
    ],
)
def test_arrays_that_the_model_cannot_take(
    binary_model: Model, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(bbans.ArrayError, match=message):
        zarr.create_array(tmp_path / "a", serializer=BitsBack(binary_model), compressors=None, **options)
    options |= {"shards": options["shape"], "config": {"write_empty_chunks": True}}

    def write_shards() -> None:
        """Some versions of zarr ask no sooner than when a chunk is coded."""
        shards = zarr.create_array(tmp_path / "s", serializer=BitsBack(binary_model), compressors=None, **options)
        shards[:] = np.zeros(options["shape"], options["dtype"])

    with pytest.raises(bbans.ArrayError, match=message):
        write_shards()


def test_only_what_is_asked_for_is_decoded(
    binary_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = bbans.sample_images(binary_model, 60)
    arrays = [
        written(tmp_path / "chunks", images, binary_model),
        written(tmp_path / "shards", images, binary_model, shards=(30, 5, 4)),
    ]
    decoded: list[tuple[int, ...]] = []
    decode = bbans.Codec.decode_chunk

    def counted(codec: bbans.Codec, data: Any, shape: Any, *rest: Any) -> Any:
        decoded.append(shape)
        return decode(codec, data, shape, *rest)

    monkeypatch.setattr(bbans.Codec, "decode_chunk", counted)
    for array in arrays:
        decoded.clear()
        np.testing.assert_array_equal(array[12:14], images[12:14])
        assert decoded == [(CHUNK, 5, 4)]
        decoded.clear()
        np.testing.assert_array_equal(array[5:25, 1:3], images[5:25, 1:3])
        assert decoded == [(CHUNK, 5, 4)] * 3


def test_parts_of_chunks_are_written(binary_model: Model, tmp_path: Path) -> None:
    images = bbans.sample_images(binary_model, 35)
    array = zarr.create_array(
        tmp_path / "a",
        shape=(35, 5, 4),
        chunks=(8, 5, 4),
        dtype="u1",
        serializer=BitsBack(binary_model),
        compressors=None,
    )
    for start in range(0, 35, 5):
        array[start : start + 5] = images[start : start + 5]
    np.testing.assert_array_equal(array[:], images)
    array.append(images)
    np.testing.assert_array_equal(array[:], np.concatenate([images, images]))


def test_chunks_are_coded_side_by_side(binary_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    encode, decode = bbans.Codec.encode_chunk, bbans.Codec.decode_chunk

    def meeting(function: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            together.wait(timeout=30)
            return function(*arguments)

        return wrapped

    monkeypatch.setattr(bbans.Codec, "encode_chunk", meeting(encode))
    monkeypatch.setattr(bbans.Codec, "decode_chunk", meeting(decode))
    images = bbans.sample_images(binary_model, 4 * CHUNK)
    np.testing.assert_array_equal(written(tmp_path / "a", images, binary_model)[:], images)


def test_damage_is_found(binary_model: Model, tmp_path: Path) -> None:
    array = written(tmp_path / "a", bbans.sample_images(binary_model, CHUNK), binary_model)
    path = tmp_path / "a" / "c" / "0" / "0" / "0"
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << position % 8]) + data[position + 1 :])
        with pytest.raises(bbans.FormatError):
            array[:]
    for damaged in (data[:-1], data[:-4], data[:1], data + b"\0\0\0\0"):
        path.write_bytes(damaged)
        with pytest.raises(bbans.FormatError):
            array[:]


@pytest.mark.parametrize("model", ["gg-mnist-binary", tiny_context_model("bernoulli")], ids=["named", "loaded"])
def test_the_codec_may_be_sent_to_processes(model: str | Model) -> None:
    codec = BitsBack(model)
    for same in (pickle.loads(pickle.dumps(codec)), BitsBack.from_dict(codec.to_dict())):
        assert same == codec and hash(same) == hash(codec)
        assert pickle.loads(pickle.dumps(same)) == codec


def test_another_process_finds_the_model_by_its_name(model_folder: Path, tmp_path: Path) -> None:
    images = bbans.sample_images(bbans.load_model(model_folder), 5)
    zarr.create_array(
        tmp_path / "a", data=images, chunks=images.shape, serializer=BitsBack(model_folder), compressors=None
    )
    script = "import sys, bbans.integrations.zarr, zarr; print(zarr.open_array(sys.argv[1])[:].sum())"
    run = [sys.executable, "-c", script, str(tmp_path / "a")]
    environment = os.environ | {"BBANS_MODELS": f"{tmp_path}{os.pathsep}{model_folder.parent}"}
    assert int(subprocess.run(run, env=environment, capture_output=True, check=True).stdout) == images.sum()
    environment.pop("BBANS_MODELS")
    failed = subprocess.run(run, env=environment, capture_output=True, check=False)
    assert b"ModelError: there is no model 'tiny' that comes with bbans, nor one in a folder" in failed.stderr
