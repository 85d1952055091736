"""Coding on a real cluster of two processes."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import bbans
from bbans.cli import main
from bbans.codec import Codec
from bbans.model import Model

distributed = pytest.importorskip("distributed")
dask_array = pytest.importorskip("dask.array")

import bbans.integrations.dask as cluster_of  # noqa: E402


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def images(binary_model: Model) -> np.ndarray:
    return bbans.sample_images(binary_model, 400)


@pytest.fixture
def folder(images: np.ndarray, tmp_path: Path) -> Path:
    """The images in three files."""
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(np.split(images, [90, 230])):
        np.save(tmp_path / "parts" / f"{number}.npy", part)
    return tmp_path / "parts"


def loaded_models() -> int:
    """In this process, by what is alive of them."""
    import gc

    from bbans.evaluated import EvaluatedModel

    gc.collect()
    return sum(isinstance(thing, EvaluatedModel) for thing in gc.get_objects())


def test_a_worker_that_is_killed_loses_nothing(
    client: Any, images: np.ndarray, folder: Path, binary_model: Model
) -> None:
    """And each worker has loaded the model once."""
    victim = next(iter(client.run(os.getpid).values()))
    seen: list[dict[str, int]] = []

    def progress(rows: int) -> None:
        if len(seen) == 3:
            os.kill(victim, signal.SIGKILL)
        seen.append(client.run(loaded_models) if len(seen) == 2 else {})

    found = io.BytesIO()
    written = cluster_of.compress(
        cluster_of.open_rows(folder),
        found,
        client,
        model=binary_model,
        engine="numpy",
        chunk_size=10,
        progress=progress,
    )
    assert found.getvalue() == Codec.of(binary_model, engine="numpy").compress(images, 10)
    assert written.size == len(found.getvalue()) and len(seen) == 40
    assert set(seen[2].values()) == {1}


def test_the_command_line(client: Any, images: np.ndarray, folder: Path, model_folder: Path) -> None:
    target = folder.parent / "images.bba"
    arguments = ["compress", str(folder), "-o", str(target), "--model", str(model_folder), "--engine", "numpy"]
    result = CliRunner().invoke(main, [*arguments, "--dask", client.scheduler.address])
    assert result.exit_code == 0, result.output
    assert target.read_bytes() == Codec.of(bbans.load_model(model_folder), engine="numpy").compress(images)


def test_zarr_arrays(client: Any, images: np.ndarray, binary_model: Model, tmp_path: Path) -> None:
    """Written and read on the workers; and a zarr array as rows of a file."""
    pytest.importorskip("zarr", minversion="3")
    from bbans.integrations.zarr import BitsBack

    lazy = dask_array.from_array(images, chunks=(50, 5, 4))
    lazy.to_zarr(str(tmp_path / "a"), serializer=BitsBack(binary_model), compressors=None)
    found = io.BytesIO()
    rows = cluster_of.open_rows(tmp_path / "a")
    cluster_of.compress(rows, found, client, model=binary_model, engine="numpy", chunk_size=60)
    assert found.getvalue() == Codec.of(binary_model, engine="numpy").compress(images, 60)
    back = dask_array.from_zarr(str(tmp_path / "a"))
    np.testing.assert_array_equal(back[37:311].compute(), images[37:311])


def test_a_file_as_an_array(client: Any, images: np.ndarray, binary_model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.bba").write_bytes(Codec.of(binary_model, engine="numpy").compress(images, 50))
    array = cluster_of.open_file(tmp_path / "a.bba", model=binary_model, engine="numpy")
    assert array.chunks == ((50,) * 8, (5,), (4,)) and array.dtype == images.dtype
    np.testing.assert_array_equal(array[37:311].compute(), images[37:311])
    assert int(array.sum().compute()) == images.sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--dask", "tcp://127.0.0.1:1"], "neither a .npy file, nor a folder"),
        (["a.npy", "--dask", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["a.npy", "--dask", "nonsense://"], "no Dask scheduler answers at nonsense://"),
        (["a.npy", "--dask", "x", "--verify"], "--dask goes with neither"),
        (["-", "--dask", "x"], "--dask goes with neither"),
    ],
)
def test_what_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_of, "TIMEOUT", "0.2s")
    np.save("a.npy", np.zeros((3, 28, 28), bool))
    result = CliRunner().invoke(main, ["compress", *arguments])
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
