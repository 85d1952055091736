"""Nothing that is wrong with a file gets past: each attack ends in an error of ours, soon and without much memory."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from attacks import targets
from attacks.forge import Attack, exchanges, flips, forgeries, model_forgeries, truncations
from conftest import many_images

import bbans
from bbans.codec import Codec
from bbans.container import Method, read_directory, read_payload
from bbans.model import Model, save_model

SECONDS = 2.0
"""Twice what is promised, for machines that are busy."""
MEGABYTES = 64
FOUND = Path(__file__).parent / "found"


def repelled(attacks: Iterable[Attack], use: Callable[[bytes], object], bounded: bool = False) -> int:
    """How many attacks were tried: none may get through, take long or, if memory is ``bounded``, take much of it."""
    tried = 0
    if bounded:
        tracemalloc.start()
    try:
        for name, data in attacks:
            tried += 1
            if bounded:
                tracemalloc.reset_peak()
            start = time.monotonic()
            try:
                use(data)
            except bbans.BbansError:
                pass
            except Exception as error:
                pytest.fail(f"{name}: {type(error).__name__}: {error}")
            else:
                pytest.fail(f"{name} went unnoticed")
            assert time.monotonic() - start < SECONDS, f"{name} took long"
            if bounded:
                assert tracemalloc.get_traced_memory()[1] < MEGABYTES << 20, f"{name} took much memory"
    finally:
        if bounded:
            tracemalloc.stop()
    return tried


@pytest.fixture
def codec(model: Model) -> Codec:
    return Codec.of(model, engine="numpy", threads=1)


def test_damaged_files_of_every_kind(codec: Codec, model: Model) -> None:
    data = codec.compress(bbans.sample_images(model, 3))
    assert repelled(flips(data), codec.decompress) == len(data)
    assert repelled(truncations(data), codec.decompress) == len(data) + 3


@pytest.mark.parametrize("array", [np.arange(60.0), np.zeros((7, 3), np.int16), np.array(5)], ids=["1", "2", "0"])
def test_damaged_stored_files(array: np.ndarray) -> None:
    data = bbans.compress(array, model=None)
    assert repelled(flips(data), bbans.decompress) == len(data)
    repelled(truncations(data), bbans.decompress)


def test_damaged_files_with_their_model(binary_model: Model) -> None:
    codec = Codec.of(binary_model, engine="numpy", threads=1, embed_model=True)
    data = codec.compress(many_images(binary_model))
    assert read_directory(io.BytesIO(data)).header.embedded is not None
    start = read_directory(io.BytesIO(data)).embedded_offset
    sampled = [attack for number, attack in enumerate(flips(data)) if number < start or not number % 97]
    repelled(sampled, bbans.decompress)
    repelled((attack for number, attack in enumerate(truncations(data)) if not number % 97), bbans.decompress)


def test_chunks_in_the_wrong_place(codec: Codec, model: Model) -> None:
    """Chunks of one length, of which two are exchanged or doubled, or come from another file."""
    images = np.repeat(bbans.sample_images(model, 1), 8, axis=0)
    images[4:] = images[3]
    data = codec.compress(images, chunk_size=1)
    other = codec.compress(images[::-1].copy(), chunk_size=2)
    directory = read_directory(io.BytesIO(data))
    start = directory.chunks[0].offset
    stop = start + 2 * directory.chunks[0].length
    assert repelled(exchanges(data, start, stop, other), codec.decompress) >= 1
    longer = codec.compress(np.concatenate([images, images]), chunk_size=1)
    borrowed = data[: _index_of(data)] + longer[_index_of(longer) :]
    repelled([("another file's index", borrowed)], codec.decompress)


def _index_of(data: bytes) -> int:
    """Where the index begins."""
    last = read_directory(io.BytesIO(data)).chunks[-1]
    return last.offset + last.length


def test_forged_headers_and_indices(codec: Codec, model: Model) -> None:
    """All checksums are right here, as an attacker would have them."""
    data = codec.compress(bbans.sample_images(model, 1))
    file = io.BytesIO(data)
    directory = read_directory(file)
    reference = directory.header.model
    assert reference is not None and directory.chunks[0].method is Method.BITS_BACK
    payload = read_payload(file, directory, 0)
    attacks = forgeries(reference.name.encode(), reference.identity, directory.header.row_shape, payload)

    def use(data: bytes) -> None:
        decoded = bbans.decompress(data, model=model, engine="numpy", threads=1, max_memory=1 << 20)
        if not decoded.size:  # an array without elements is no harm
            raise bbans.FormatError

    assert repelled(attacks, use, bounded=True) > 100


def test_forged_names_open_nothing(model: Model) -> None:
    attacks = forgeries(b"tiny", bytes(8), model.image_shape, bytes(16))
    named = [attack for attack in attacks if attack[0].startswith("model ")]
    assert repelled(named, bbans.decompress, bounded=True) == len(named) > 5


def test_a_bomb_is_not_set_off(tmp_path: Path) -> None:
    """A few bytes that hold a hundred megabytes are read only by who allows for them."""
    data = bbans.compress(np.zeros((100, 1 << 20), np.uint8), model=None, chunk_size=100)
    assert len(data) < 20_000
    assert repelled([("bomb", data)], lambda data: bbans.decompress(data, max_memory=50 << 20), bounded=True)
    with bbans.open(data, max_memory=50 << 20) as compressed, pytest.raises(bbans.LimitError, match="max-memory"):
        compressed[5]
    assert bbans.decompress(data).shape == (100, 1 << 20)


def test_damaged_model_files(model: Model, codec: Codec, tmp_path: Path) -> None:
    """What still loads is another model, and so not the one that the file was written with."""
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    whole = path.read_bytes()
    data = codec.compress(bbans.sample_images(model, 2))

    def use(content: bytes) -> None:
        path.write_bytes(content)
        bbans.decompress(data, model=path, engine="numpy", threads=1)

    use(whole)
    step = len(whole) // 400 + 1
    ignored = [name for name, _ in flips(whole) if not _matters(whole, int(name.split()[-1]))]
    attacks = [attack for number, attack in enumerate(flips(whole)) if not number % step and attack[0] not in ignored]
    assert repelled(attacks, use) > 100
    repelled((attack for number, attack in enumerate(truncations(whole[:-1])) if not number % step), use)
    assert repelled(model_forgeries(whole), use, bounded=True) > 100


def _matters(whole: bytes, position: int) -> bool:
    """Names and other encoders decide nothing: files that were written without them stay readable."""
    length = int.from_bytes(whole[:8], "little")
    return position >= 8 + length


def test_no_pickle_network_or_program_is_used(model: Model, tmp_path: Path) -> None:
    """Python's own audit says what a process does: writing, reading and loading a model need none of these."""
    (tmp_path / "model").mkdir()
    save_model(model, tmp_path / "model" / "model.safetensors")
    np.save(tmp_path / "images.npy", bbans.sample_images(model, 3))
    program = """
import sys
from bbans.cli import main

def watch(event, arguments):
    if event in ("pickle.find_class", "socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(watch)
options = ["--model", "model", "--engine", "numpy", "-f"]
main(["compress", "images.npy", "-o", "images.bba", *options], standalone_mode=False)
main(["decompress", "images.bba", "-o", "back.npy", *options], standalone_mode=False)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back.npy").read_bytes() == (tmp_path / "images.npy").read_bytes()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_fuzzing_begins_from(name: str) -> None:
    """Whole inputs, and these with some bytes changed, as fuzzing does it for hours."""
    rng = np.random.default_rng(1)
    targets.TARGETS[name].use(targets.TARGETS[name].seeds[0])
    for seed in targets.TARGETS[name].seeds:
        for _ in range(20):
            changed = bytearray(seed)
            for _ in range(rng.integers(1, 4)):
                changed[rng.integers(len(seed))] = rng.integers(256)
            targets.attempt(name, bytes(changed))


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_fuzzing_found(path: Path) -> None:
    start = time.monotonic()
    targets.attempt(path.parent.name, path.read_bytes())
    assert time.monotonic() - start < SECONDS
