"""Models: saved and loaded whole, known by a hash of what matters, refused when they are not sane."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_model

import bbans
from bbans.errors import ModelError
from bbans.model import Model, load_model, read_model, save_model
from bbans.portable.network import Network


def test_saving_and_loading_keeps_everything(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    loaded = read_model(tmp_path)
    assert loaded.identity("amortized") == model.identity("amortized")
    for field in ("name", "image_shape", "likelihood", "latents", "latent_precision", "image_bits", "latent_bits"):
        assert getattr(loaded, field) == getattr(model, field)


def test_identity_counts_what_decides_the_bytes(binary_model: Model) -> None:
    identity = binary_model.identity("amortized")
    assert len(identity) == 8
    layers = binary_model.decoder.layers
    changed = layers[0].weight.copy()
    changed[0, 0] += 1
    decoder = Network(
        binary_model.decoder.input_magnitude, (dataclasses.replace(layers[0], weight=changed), *layers[1:])
    )
    for change in ({"image_bits": 99}, {"latent_bits": 9}, {"latent_precision": 9}, {"decoder": decoder}):
        assert dataclasses.replace(binary_model, **change).identity("amortized") != identity  # type: ignore[arg-type]


def test_identity_does_not_count_names_and_other_encoders(binary_model: Model) -> None:
    """A model may learn a new posterior, or be renamed, and still read its old files."""
    encoder = binary_model.encoders["amortized"]
    other = tiny_model("discretized-logistic")
    renamed = dataclasses.replace(binary_model, name="other", encoders={"new": encoder, "amortized": encoder})
    assert renamed.identity("amortized") == binary_model.identity("amortized") == renamed.identity("new")
    assert other.identity("amortized") != binary_model.identity("amortized")


def test_unknown_posterior_is_named_with_those_there_are(binary_model: Model) -> None:
    with pytest.raises(ModelError, match="no posterior 'better'; it has: amortized"):
        bbans.Codec.of(binary_model, posterior="better")


def test_missing_model_is_named_with_those_there_are() -> None:
    with pytest.raises(ModelError, match=r"no model 'no-such'.*gg-mnist"):
        load_model("no-such")


def rewritten(path: Path, change: Any) -> Path:
    """The model's file with a changed description."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    description = json.loads(header["__metadata__"]["bbans"])
    change(description)
    header["__metadata__"]["bbans"] = json.dumps(description)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[8 + length :])
    return path


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("format", 2, "format 2"),
        ("likelihood", "cauchy", "unknown likelihood"),
        ("latents", 4, "a network of 4 inputs"),
        ("latents", 10**30, "at most 40 bits"),
        ("latents", 3.0, "expected an integer"),
        ("latents", True, "expected an integer"),
        ("latent_precision", 17, "1 to 16 bits"),
        ("image_shape", [5, 5], "3 inputs and 25 outputs"),
        ("image_shape", [-5, -4], "needs a shape"),
        ("image_shape", "5x4", "expected an integer"),
        ("encoders", {}, "encoder"),
        ("encoders", None, "not a bbans model"),
        ("decoder", {"input_magnitude": 1 << 39, "layers": []}, "at least one layer"),
    ],
)
def test_absurd_descriptions_are_refused(binary_model: Model, tmp_path: Path, key: str, value: Any, match: str) -> None:
    path = tmp_path / "model.safetensors"
    save_model(binary_model, path)
    rewritten(path, lambda description: description.update({key: value}))
    with pytest.raises(ModelError, match=match):
        read_model(path)


def test_inexact_models_are_refused_on_loading(binary_model: Model, tmp_path: Path) -> None:
    """The proof is made again for every file: nothing in it is believed."""
    path = tmp_path / "model.safetensors"
    save_model(binary_model, path)
    rewritten(path, lambda description: description["decoder"].update({"input_magnitude": 1 << 40}))
    with pytest.raises(ModelError, match=r"over 2\*\*53"):
        read_model(path)


def test_damaged_files_are_refused(binary_model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(binary_model, path)
    whole = path.read_bytes()
    for content in (b"", b"not a model", whole[:100], whole[:-5], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            read_model(path)


def test_sampling_is_the_same_everywhere(binary_model: Model) -> None:
    images = bbans.sample_images(binary_model, 300, seed=5)
    assert images.shape == (300, 5, 4)
    assert (images[:256] == bbans.sample_images(binary_model, 256, seed=5)).all()
    assert set(np.unique(images)) == {0, 1}
