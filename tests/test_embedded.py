"""Models that travel in the file: coded small, read back exactly, refused when they are not sane."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import zstandard
from click.testing import CliRunner
from conftest import many_images, random_images, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import bbans
from bbans import container, embedded
from bbans.ans import core_named
from bbans.cli import main
from bbans.codec import Codec
from bbans.container import ModelReference, read_directory, read_embedded
from bbans.embedded import CLASSES, FREQUENCY_BITS, WeightClasses, class_frequencies, embed, extract
from bbans.fields import varint
from bbans.intervals import pop, push
from bbans.model import Model
from bbans.portable.network import Linear, Network


def reference_of(model: Model, posterior: str = "amortized") -> ModelReference:
    return ModelReference(model.name, model.identity(posterior), posterior, 0)


@pytest.fixture(scope="module")
def images(binary_model: Model) -> np.ndarray:
    return many_images(binary_model)


@pytest.fixture(scope="module")
def data(binary_model: Model, images: np.ndarray) -> bytes:
    """A file with its model in it."""
    return Codec.of(binary_model, embed_model=True).compress(images, chunk_size=8000)


@given(weights=arrays(np.int16, array_shapes(max_dims=2, max_side=40)))
def test_any_weights_are_coded(weights: np.ndarray) -> None:
    flat = weights.ravel().astype(np.int64)
    classes = WeightClasses.of(len(flat), class_frequencies(weights))
    stack = core_named().from_words(np.array([0, 1 << 31], np.uint32), 1)
    push(stack, classes, flat)
    np.testing.assert_array_equal(pop(stack, classes), flat)
    assert stack.to_words().tolist() == [0, 1 << 31]


def test_every_weight_has_its_interval() -> None:
    """All of int16: side by side, without gaps, and found again."""
    every = np.arange(-(1 << 15), 1 << 15)
    classes = WeightClasses.of(len(every), class_frequencies(every.astype(np.int16)))
    start, frequency = classes.interval(every)
    order = np.argsort(start)
    assert start[order][0] == 0 and frequency.min() >= 1
    np.testing.assert_array_equal(start[order][1:], (start + frequency)[order][:-1])
    assert int((start + frequency).max()) == 1 << classes.precision
    for value in (start, start + frequency - np.uint64(1)):
        np.testing.assert_array_equal(classes.locate(value)[0], every)


def test_a_model_comes_back_whole(model: Model) -> None:
    data = embed(model, "amortized")
    back = extract(data, reference_of(model))
    assert back.identity("amortized") == model.identity("amortized")
    assert back.name == model.name and list(back.encoders) == ["amortized"]
    assert embed(back, "amortized") == data


def test_only_the_encoder_that_is_used_is_embedded(binary_model: Model) -> None:
    encoder = binary_model.encoders["amortized"]
    other = dataclasses.replace(binary_model, encoders={"first": tiny_encoder(1), "amortized": encoder})
    data = embed(other, "amortized")
    assert data == embed(binary_model, "amortized")
    renamed = extract(data, dataclasses.replace(reference_of(binary_model), posterior="any", name="other"))
    assert (renamed.name, list(renamed.encoders)) == ("other", ["any"])


def tiny_encoder(value: int) -> Network:
    return Network(1, (Linear(np.full((6, 20), value, np.int16), np.zeros(6, np.int64), 3, -9, 9),))


def test_a_model_of_one_value_costs_no_bits(binary_model: Model) -> None:
    """All intervals are whole: nothing is ever pushed."""
    decoder = Network(1 << 20, (Linear(np.zeros((20, 3), np.int16), np.full(20, -(1 << 50)), 0, -5, 5),))
    model = dataclasses.replace(binary_model, decoder=decoder, encoders={"amortized": tiny_encoder(-(1 << 15))})
    data = embed(model, "amortized")
    assert extract(data, reference_of(model)).identity("amortized") == model.identity("amortized")


def test_shipped_models_are_smaller_than_zstandard_makes_them() -> None:
    model = bbans.load_model("gg-mnist-binary")
    data = embed(model, "half-asleep")
    layers = (*model.decoder.layers, *model.encoder("half-asleep").layers)
    raw = b"".join(layer.weight.tobytes() for layer in layers)
    assert len(data) < 0.92 * len(zstandard.ZstdCompressor(level=19).compress(raw))
    assert extract(data, reference_of(model, "half-asleep")).identity("half-asleep") == model.identity("half-asleep")


def test_a_file_decodes_with_nothing_else(data: bytes, images: np.ndarray, tmp_path: Path) -> None:
    """In a process that never saw the model."""
    (tmp_path / "images.bba").write_bytes(data)
    done = subprocess.run([sys.executable, "-m", "bbans.cli", "decompress", "images.bba"], cwd=tmp_path)
    assert done.returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), images)


def test_slices_and_iteration(data: bytes, images: np.ndarray, binary_model: Model) -> None:
    with bbans.open(data) as compressed:
        assert len(compressed.directory.chunks) == 3
        np.testing.assert_array_equal(compressed[7990:8010], images[7990:8010])
        np.testing.assert_array_equal(compressed[-1], images[-1])
        model = compressed.embedded_model()
    assert model is not None and model.identity("amortized") == binary_model.identity("amortized")


def test_every_kind_of_model_is_embedded(model: Model) -> None:
    images = many_images(model)
    for steps in (0, 2) if isinstance(model.decoder, Network) else (0,):
        data = bbans.compress(images, model=model, embed_model=True, steps=steps)
        assert read_directory(io.BytesIO(data)).header.embedded is not None
        np.testing.assert_array_equal(bbans.decompress(data), images)


def test_the_model_is_counted(data: bytes, binary_model: Model, images: np.ndarray) -> None:
    codec = Codec.of(binary_model, embed_model=True)
    written = codec.write(io.BytesIO(), images, 8000)
    plain = Codec.of(binary_model).write(io.BytesIO(), images, 8000)
    assert written.size == len(data) and written.note is None
    assert written.embedded_size == len(codec.embedded) > 0 == plain.embedded_size
    assert written.size == plain.size + written.embedded_size + 6  # its length and its checksum
    assert written.bits_per_dimension == 8 * len(data) / images.size


def test_a_model_that_is_not_worth_its_bytes_is_left_out(binary_model: Model, images: np.ndarray) -> None:
    codec = Codec.of(binary_model, embed_model=True)
    file = io.BytesIO()
    written = codec.write(file, images[:100])
    assert written.note is not None and "would be larger with model tiny in it" in written.note
    assert (written.model, written.embedded_size) == (None, 0)
    assert file.getvalue() == bbans.compress(images[:100], model=None)
    np.testing.assert_array_equal(bbans.decompress(file.getvalue()), images[:100])
    with pytest.warns(bbans.StoredWarning, match="would be larger"):
        bbans.compress(images[:100], model=binary_model, embed_model=True)


def test_a_model_that_no_chunk_uses_is_left_out() -> None:
    model = tiny_model("discretized-logistic")
    repeated = np.repeat(random_images(model, 1), 500, axis=0)
    for array in (repeated, np.arange(30.0), repeated[:0]):
        file = io.BytesIO()
        written = Codec.of(model, embed_model=True).write(file, array)
        directory = read_directory(file)
        assert (written.model, written.embedded_size, directory.header.model) == (None, 0, None)
        assert bbans.decompress(file.getvalue()).tobytes() == array.tobytes()


def test_chunks_of_both_methods(binary_model: Model, images: np.ndarray) -> None:
    array = np.concatenate([images, np.zeros((8000, 5, 4))])
    file = io.BytesIO()
    written = Codec.of(binary_model, embed_model=True).write(file, array, 4000)
    assert written.embedded_size and written.note is not None and "8000 of 28000 rows" in written.note
    np.testing.assert_array_equal(bbans.decompress(file.getvalue()), array)


def test_a_model_that_is_given_is_the_one_that_is_used(data: bytes, binary_model: Model, images: np.ndarray) -> None:
    """So a file whose embedded model is damaged can be read with another copy of it."""
    damaged = bytearray(data)
    damaged[read_directory(io.BytesIO(data)).embedded_offset + 100] ^= 1
    with pytest.raises(bbans.FormatError, match="the embedded model is damaged: its checksum"):
        bbans.decompress(bytes(damaged))
    np.testing.assert_array_equal(bbans.decompress(bytes(damaged), model=binary_model), images)
    with pytest.raises(bbans.ModelError, match="what is loaded is tiny"):
        bbans.decompress(data, model=tiny_model("discretized-logistic"))


def forged(data: bytes, model: bytes, **changes: object) -> bytes:
    """The same file with another embedded model, and all its checksums right."""
    file = io.BytesIO(data)
    directory = read_directory(file)
    chunks = [
        (chunk.rows, chunk.method, container.read_payload(file, directory, number))
        for number, chunk in enumerate(directory.chunks)
    ]
    out = io.BytesIO()
    assert directory.header.model is not None
    reference = dataclasses.replace(directory.header.model, **changes)  # type: ignore[arg-type]
    container.write(out, dataclasses.replace(directory.header, model=reference), chunks, model)
    return out.getvalue()


def embedded_bytes(data: bytes) -> bytes:
    return read_embedded(io.BytesIO(data), read_directory(io.BytesIO(data)))


def test_forging_nothing_changes_nothing(data: bytes) -> None:
    assert forged(data, embedded_bytes(data)) == data


def test_another_model_is_refused(data: bytes, binary_model: Model) -> None:
    other = dataclasses.replace(binary_model, image_bits=binary_model.image_bits + 1)
    for file in (forged(data, embed(other, "amortized")), forged(data, embedded_bytes(data), identity=bytes(8))):
        with pytest.raises(bbans.FormatError, match="not the one that the file was written with"):
            bbans.decompress(file)


def test_damage_is_found_without_checksums(binary_model: Model) -> None:
    """The parts of the model must not fit, or its identity must differ."""
    model, reference = embed(binary_model, "amortized"), reference_of(binary_model)
    for position in range(0, len(model), 23):
        damaged = bytearray(model)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(bbans.FormatError, match="damaged"):
            extract(bytes(damaged), reference)


def test_truncation_is_found_without_checksums(binary_model: Model) -> None:
    model, reference = embed(binary_model, "amortized"), reference_of(binary_model)
    for length in range(1, len(model), 97):
        with pytest.raises(bbans.FormatError):
            extract(model[:length], reference)
    for more in (b"x", bytes(4), bytes(400)):
        with pytest.raises(bbans.FormatError):
            extract(model + more, reference)


def test_files_cut_within_the_model(data: bytes) -> None:
    offset = read_directory(io.BytesIO(data)).embedded_offset
    for length in range(offset, offset + len(embedded_bytes(data)), 50):
        with pytest.raises(bbans.FormatError):
            bbans.open(data[:length])


@given(noise=st.binary(min_size=1, max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(bbans.FormatError):
        extract(noise, ModelReference("tiny", bytes(8), "amortized", 0))


def head_of(layers: list[tuple[int, int, bytes]], description: bytes = b"{}") -> bytes:
    """What comes before the weights of layers of ``(outputs, inputs, biases)``."""
    head = varint(len(description)) + description + varint(len(layers))
    for outputs, inputs, biases in layers:
        head += varint(outputs) + varint(inputs) + varint(1 << FREQUENCY_BITS) + bytes(CLASSES - 1) + b"\x01" + biases
    return head


@pytest.mark.parametrize(
    "head",
    [
        head_of([(20, 1 << 62, bytes(20))]),
        head_of([(20, 1 << 40, bytes(20))]),
        head_of([(1 << 60, 3, b"")]),
        head_of([(1 << 14, 1 << 14, bytes(1 << 14)), (20, 1 << 14, bytes(20))]),
        head_of([(0, 3, b"")]),
        head_of([(20, 3, bytes(20))] * 2000),
        head_of([]),
        head_of([(20, 3, bytes(20))], description=b"[" * 100_000),
        varint(1 << 40),
    ],
)
def test_absurd_layers_are_refused_before_they_are_allocated(head: bytes) -> None:
    """Weights of one value cost no bits, so that what is missing from the file doesn't stop the decoder."""
    tracemalloc.start()
    try:
        with pytest.raises(bbans.FormatError, match=r"embedded model|reaches beyond"):
            extract(head + bytes(1 << 18), ModelReference("tiny", bytes(8), "amortized", 0))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_model_too_large_is_not_embedded(binary_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WEIGHTS_MAXIMUM", 100)
    with pytest.raises(bbans.ModelError, match="100 at most can be embedded"):
        Codec.of(binary_model, embed_model=True)


def test_the_known_answer_of_a_header(binary_model: Model) -> None:
    """Kind 1, and at the end of the header the model's length and checksum."""
    header = container.Header("|u1", 3, (5, 4), 1, ModelReference("m", bytes(8), "amortized", 0))
    file = io.BytesIO()
    container.write(file, header, [], b"weights")
    body = b"\x01\x03|u1\x03\x05\x04\x01\x01m\x00\x00" + bytes(8) + b"\x07" + struct.pack("<I", zlib.crc32(b"weights"))
    head = b"\x89BBA\r\n\x1a\n\x01" + bytes([len(body)]) + body
    seed = zlib.crc32(head)
    index = b"\x00" + struct.pack("<I", 1)
    footer = index + struct.pack("<I", zlib.crc32(index, seed))
    assert file.getvalue() == head + struct.pack("<I", seed) + b"weights" + footer
    assert embedded_bytes(file.getvalue()) == b"weights"


@pytest.mark.parametrize(
    "body", [b"\x01\x03|u1\x03\x05\x04\x01\x00", b"\x01\x03|u1\x03\x05\x04\x01\x01m\x00\x00" + bytes(8)]
)
def test_headers_that_embed_nothing_are_refused(body: bytes) -> None:
    body += b"\x00" + bytes(4)
    head = b"\x89BBA\r\n\x1a\n\x01" + bytes([len(body)]) + body
    seed = zlib.crc32(head)
    index = b"\x00" + struct.pack("<I", 1)
    with pytest.raises(bbans.FormatError, match="embedded that has no name or no bytes"):
        read_directory(io.BytesIO(head + struct.pack("<I", seed) + index + struct.pack("<I", zlib.crc32(index, seed))))


class TestCommandLine:
    """What a user sees."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        np.save("images.npy", images)

    def invoke(self, *arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        return result.exit_code, result.stdout, result.stderr

    def test_it_is_reported_and_verified(self, model_folder: Path, binary_model: Model, images: np.ndarray) -> None:
        code, _, report = self.invoke(
            "compress", "images.npy", "-o", "x.bba", "--model", model_folder, "--embed-model", "-v", "--verify"
        )
        size, model_size = Path("x.bba").stat().st_size, len(embed(binary_model, "amortized"))
        assert code == 0 and f"{8 * size / images.size:.4f} bits/dim" in report
        assert f"model tiny ({model_size:,} bytes of the file)" in report
        assert json.loads(self.invoke("info", "x.bba", "--json")[1])["embedded_model"] == model_size
        assert self.invoke("test", "x.bba")[0] == 0

    def test_a_damaged_model_is_found_even_if_another_is_given(self, model_folder: Path, data: bytes) -> None:
        damaged = bytearray(data)
        damaged[read_directory(io.BytesIO(data)).embedded_offset + 100] ^= 1
        Path("x.bba").write_bytes(damaged)
        for arguments in (("test", "x.bba"), ("test", "x.bba", "--model", model_folder), ("decompress", "x.bba")):
            code, _, report = self.invoke(*arguments)
            assert code == 1 and report.startswith("bbans: the embedded model is damaged") and report.count("\n") == 1
        assert self.invoke("decompress", "x.bba", "--model", model_folder)[0] == 0

    def test_it_needs_a_model(self) -> None:
        code, _, report = self.invoke("compress", "images.npy", "--model", "none", "--embed-model")
        assert code == 2 and "--embed-model needs a model" in report

    def test_too_few_images_are_stored(self, model_folder: Path, images: np.ndarray) -> None:
        np.save("few.npy", images[:50])
        code, _, report = self.invoke("compress", "few.npy", "--model", model_folder, "--embed-model")
        assert code == 0 and "bbans: note: the file would be larger with model tiny in it" in report
        assert self.invoke("decompress", "few.npy.bba", "-f", "-o", "back.npy")[0] == 0
        np.testing.assert_array_equal(np.load("back.npy"), images[:50])
