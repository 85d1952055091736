"""The command line: what a user sees, through click's runner and as a real process."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import bbans
from bbans.cli import main
from bbans.container import read_directory
from bbans.model import Model

COMMAND = [sys.executable, "-m", "bbans.cli"]


@pytest.fixture
def images(binary_model: Model) -> np.ndarray:
    return bbans.sample_images(binary_model, 60)


@pytest.fixture
def folder(tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds images.npy."""
    np.save(tmp_path / "images.npy", images)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: object, data: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=data)


def succeed(*arguments: object, data: bytes | None = None) -> Result:
    result = invoke(*arguments, data=data)
    assert result.exit_code == 0, result.output
    return result


def fail(*arguments: object, data: bytes | None = None) -> str:
    """The one line that a failing command prints."""
    before = sorted(os.listdir())
    result = invoke(*arguments, data=data)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("bbans: ") and result.stderr.count("\n") == 1, result.stderr
    assert sorted(os.listdir()) == before, "a failing command left something behind"
    return result.stderr


def test_compress_and_decompress(folder: Path, model_folder: Path, images: np.ndarray) -> None:
    result = succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    size = (folder / "out.bba").stat().st_size
    assert result.stderr == f"out.bba: {size:,} bytes, ratio {1200 / size:.2f}, {8 * size / 1200:.4f} bits/dim\n"
    assert (folder / "images.npy").exists()
    succeed("decompress", "out.bba", "-o", "back.npy", "--model", model_folder)
    np.testing.assert_array_equal(np.load("back.npy"), images)
    succeed("test", "out.bba", "--model", model_folder)


def test_names_of_outputs_are_found(folder: Path, model_folder: Path) -> None:
    succeed("compress", "images.npy", "--model", model_folder, "-q")
    (folder / "images.npy").rename("original.npy")
    succeed("decompress", "images.npy.bba", "--model", model_folder)
    assert (folder / "images.npy").read_bytes() == (folder / "original.npy").read_bytes()


def test_standard_streams(folder: Path, model_folder: Path, images: np.ndarray) -> None:
    source = (folder / "images.npy").read_bytes()
    compressed = succeed("compress", "-", "--model", model_folder, data=source).stdout_bytes
    assert succeed("compress", "images.npy", "-c", "--model", model_folder).stdout_bytes == compressed
    back = succeed("decompress", "-", "--model", model_folder, data=compressed).stdout_bytes
    np.testing.assert_array_equal(np.load(io.BytesIO(back)), images)
    assert json.loads(succeed("info", "-", "--json", data=compressed).stdout)["shape"] == [60, 5, 4]
    succeed("test", "-", "--model", model_folder, data=compressed)


@pytest.mark.parametrize(
    ("select", "part"), [("10:20", slice(10, 20)), (":5", slice(5)), ("-7:", slice(-7, None)), ("9:3", slice(0))]
)
def test_select(folder: Path, model_folder: Path, images: np.ndarray, select: str, part: slice) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--chunk-size", 7)
    succeed("decompress", "out.bba", "-o", "part.npy", "--model", model_folder, f"--select={select}")
    np.testing.assert_array_equal(np.load("part.npy"), images[part])
    assert invoke("decompress", "out.bba", "-o", "x.npy", "--model", model_folder, "--select", "a:b").exit_code == 2


def test_info(folder: Path, model_folder: Path) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--chunk-size", 20)
    facts = json.loads(succeed("info", "out.bba", "--json").stdout)
    size = (folder / "out.bba").stat().st_size
    assert facts["shape"] == [60, 5, 4] and facts["dtype"] == "|u1" and facts["chunks"] == 3
    assert facts["model"] == "tiny" and facts["posterior"] == "amortized" and facts["steps"] == 0
    assert facts["size"] == size and facts["bits_per_dimension"] == pytest.approx(8 * size / 1200)
    assert "bits per dimension" in succeed("info", "out.bba").stdout


def test_models() -> None:
    listed = json.loads(succeed("models", "--json").stdout)
    assert {"gg-mnist", "gg-mnist-binary"} <= {entry["name"] for entry in listed}
    assert "28x28" in succeed("models").stdout


def test_sample(folder: Path, model_folder: Path) -> None:
    succeed("sample", model_folder, "-n", 5, "-o", "drawn.npy")
    assert np.load("drawn.npy").shape == (5, 5, 4)
    assert "exists" in fail("sample", model_folder, "-o", "drawn.npy")


def test_verify_and_remove(folder: Path, model_folder: Path) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--verify")
    assert (folder / "images.npy").exists()
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--rm", "-f")
    assert not (folder / "images.npy").exists()
    succeed("decompress", "out.bba", "-o", "images.npy", "--model", model_folder, "--rm")
    assert not (folder / "out.bba").exists()


@pytest.mark.parametrize("command", ["test", "compress"])
def test_checking_uses_all_threads(
    folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Each chunk waits until another one is being decoded."""
    coding = ("--model", model_folder, "--threads", 2)
    succeed("compress", "images.npy", "-o", "out.bba", *coding, "--chunk-size", 10)
    decode, both = bbans.Codec.decode, threading.Barrier(2, timeout=30)

    def waiting(self: bbans.Codec, payload: bytes, rows: int, *rest: Any) -> np.ndarray:
        both.wait()
        return decode(self, payload, rows, *rest)

    monkeypatch.setattr(bbans.Codec, "decode", waiting)
    if command == "test":
        assert succeed("test", "out.bba", *coding).stderr == "out.bba: OK (6 chunks, 60 rows)\n"
    else:
        succeed("compress", "images.npy", "-o", "out.bba", "-f", "--verify", *coding, "--chunk-size", 10)


def test_verify_catches_a_codec_that_loses(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bbans.Codec, "decode", lambda self, payload, rows, *rest: np.zeros(rows * 20, np.uint8))
    assert "does not decode to the input" in fail(
        "compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--rm"
    )
    assert (folder / "images.npy").exists()


def test_what_exists_is_kept(folder: Path, model_folder: Path) -> None:
    (folder / "out.bba").write_bytes(b"precious")
    assert "exists; -f overwrites it" in fail("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    assert (folder / "out.bba").read_bytes() == b"precious"
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "-f")
    assert "exists" in fail("decompress", "out.bba", "-o", "images.npy", "--model", model_folder)
    assert "is a folder" in fail("compress", "images.npy", "-o", ".", "-f")


def test_data_that_no_model_fits_is_stored_and_the_user_told(folder: Path) -> None:
    np.save("floats.npy", np.arange(20.0))
    result = succeed("compress", "floats.npy", "-o", "floats.bba")
    assert "note: no model fits; the array was stored through zstandard" in result.stderr
    succeed("decompress", "floats.bba", "-o", "back.npy")
    assert np.load("back.npy").tobytes() == np.arange(20.0).tobytes()


class Trap:
    """Unpickling this would leave a mark."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not a .npy file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "not a .npy file"),
        (pickle.dumps(Trap()), "not a .npy file"),
        (b"\x93NUMPY\x01\x00", "not an array of numbers"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': ......", "not an array of numbers"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "not an array of numbers"),
    ],
)
def test_inputs_that_are_no_arrays(folder: Path, content: bytes, match: str) -> None:
    (folder / "bad.npy").write_bytes(content)
    assert match in fail("compress", "bad.npy", "-o", "out.bba")
    fail("compress", "-", "-o", "out.bba", data=content)


def test_arrays_of_objects_are_refused_and_not_unpickled(folder: Path) -> None:
    np.save("objects.npy", np.array([Trap(), 1], object), allow_pickle=True)
    np.save("records.npy", np.zeros(3, [("a", "i4")]))
    np.save("words.npy", np.array(["some", "words"]))
    for name in ("objects.npy", "records.npy", "words.npy"):
        assert "numbers" in fail("compress", name, "-o", "out.bba") or "booleans" in fail("compress", name)
    assert not (folder / "unpickled").exists()


def test_truncated_input(folder: Path) -> None:
    data = (folder / "images.npy").read_bytes()
    (folder / "short.npy").write_bytes(data[:-7])
    assert "not an array of numbers" in fail("compress", "short.npy", "-o", "out.bba")


def test_missing_files_and_models(folder: Path, model_folder: Path) -> None:
    assert "No such file" in fail("compress", "missing.npy", "-o", "out.bba")
    assert "No such file" in fail("decompress", "missing.bba", "-o", "out.npy")
    assert "no model 'nonesuch'" in fail("compress", "images.npy", "-o", "out.bba", "--model", "nonesuch")
    assert "no posterior 'x'" in fail("compress", "images.npy", "--model", model_folder, "--posterior", "x")
    assert "no ANS core" in fail("compress", "images.npy", "--model", model_folder, "--ans", "x")
    assert "No such file" in fail("compress", "images.npy", "-o", "nowhere/out.bba", "--model", model_folder)
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    assert "needs model tiny" in fail("decompress", "out.bba", "-o", "out.npy")
    assert "what is loaded is gg-mnist" in fail("decompress", "out.bba", "-o", "out.npy", "--model", "gg-mnist-binary")


def test_damaged_files(folder: Path, model_folder: Path) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    data = (folder / "out.bba").read_bytes()
    for damaged in (b"", data[:4], data[: len(data) // 2], data[:-1], data + b"x", data[:100] + b"?" + data[101:]):
        (folder / "bad.bba").write_bytes(damaged)
        fail("decompress", "bad.bba", "-o", "back.npy", "--model", model_folder)
        fail("test", "bad.bba", "--model", model_folder)
    (folder / "bad.bba").write_bytes(data[:8] + b"\x02" + data[9:])
    assert "newer bbans is needed" in fail("info", "bad.bba")


def damage(path: Path, chunk: int) -> None:
    """Flip a bit of a chunk's payload."""
    data = bytearray(path.read_bytes())
    data[read_directory(io.BytesIO(data)).chunks[chunk].offset] ^= 1
    path.write_bytes(data)


def test_damage_stays_local(folder: Path, model_folder: Path, images: np.ndarray) -> None:
    """Two of six chunks are lost: they are named, and the others are written."""
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder, "--chunk-size", "10")
    succeed("decompress", "out.bba", "-o", "whole.npy", "--recover", "--model", model_folder)
    assert (folder / "whole.npy").read_bytes() == (folder / "images.npy").read_bytes()
    damage(folder / "out.bba", 1)
    damage(folder / "out.bba", 4)
    told = fail("test", "out.bba", "--model", model_folder)
    assert (
        "2 of 6 chunks are damaged: chunk 1 (rows 10:20): chunk 1 is damaged" in told and "chunk 4 (rows 40:50)" in told
    )
    assert "chunk 1 is damaged" in (told := fail("decompress", "out.bba", "-o", "back.npy", "--model", model_folder))
    assert "--recover" in told
    result = invoke("decompress", "out.bba", "-o", "back.npy", "--recover", "--model", model_folder)
    assert result.exit_code == 2
    assert "lost rows 10:20" in result.stderr and "lost rows 40:50" in result.stderr
    assert "back.npy holds 40 of 60 rows" in result.stderr
    kept = np.r_[0:10, 20:40, 50:60]
    np.testing.assert_array_equal(np.load("back.npy"), images[kept])
    streamed = invoke("decompress", "out.bba", "-c", "--recover", "--model", model_folder)
    assert streamed.exit_code == 2 and streamed.stdout_bytes == (folder / "back.npy").read_bytes()
    assert invoke("decompress", "out.bba", "--recover", "--rm", "--model", model_folder).exit_code == 2
    assert (folder / "out.bba").exists()


@pytest.mark.parametrize(("size", "enough"), [("1000", False), ("1K", False), ("1M", True), ("2GiB", True)])
def test_memory_is_bounded(folder: Path, model_folder: Path, size: str, enough: bool) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    for command in (["test", "out.bba"], ["decompress", "out.bba", "-o", "back.npy"]):
        arguments = [*command, "--max-memory", size, "--model", model_folder]
        if enough:
            succeed(*arguments)
        else:
            assert "--max-memory" in fail(*arguments)
    assert invoke("test", "out.bba", "--max-memory", "lots").exit_code == 2


def test_a_full_disk_leaves_nothing(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in fail("compress", "images.npy", "-o", "out.bba", "--model", model_folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output(folder: Path, model_folder: Path) -> None:
    with open("/dev/full", "wb") as sink:
        done = run("compress", "images.npy", "-c", "--model", str(model_folder), stdout=sink)
    assert done.returncode == 1
    assert done.stderr.startswith("bbans: ") and "Traceback" not in done.stderr


def run(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, **kwargs)  # type: ignore[call-overload,no-any-return]


def test_a_closed_pipe_ends_quietly(folder: Path, model_folder: Path) -> None:
    command = " ".join([*COMMAND, "compress", "images.npy", "-c", "-q", "--model", str(model_folder)])
    done = subprocess.run(f"{command} | true", shell=True, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_as_a_process(folder: Path, model_folder: Path) -> None:
    assert run("compress", "images.npy", "-o", "out.bba", "--model", str(model_folder)).returncode == 0
    assert run("decompress", "out.bba", "-o", "back.npy", "--model", str(model_folder)).returncode == 0
    assert (folder / "back.npy").read_bytes() == (folder / "images.npy").read_bytes()
    wrong = run("decompress", "images.npy", "-o", "x.npy")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert run("compress").returncode == 2


def test_a_terminal_gets_no_binary(folder: Path, model_folder: Path) -> None:
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    done = run("compress", "images.npy", "-c", "--model", str(model_folder), stdout=child)
    os.close(child)
    os.close(parent)
    assert done.returncode == 1 and "terminal" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_process_killed_at_any_call_leaves_the_old_file_or_the_new(
    folder: Path, model_folder: Path, command: str
) -> None:
    (folder / "model").symlink_to(model_folder)
    np.save("images.npy", np.load("images.npy")[:8])
    succeed("compress", "images.npy", "-o", "images.bba", "--model", "model", "--chunk-size", "4")
    program = Path(__file__).parent / "attacks" / "kills.py"
    done = subprocess.run([sys.executable, program, folder, command, "target"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points, replaced = map(int, done.stdout.split())
    assert points > replaced > 0 and points > 30


@pytest.mark.parametrize("delay", [0.2, 0.5])
def test_a_killed_process_leaves_the_old_file(folder: Path, model_folder: Path, delay: float) -> None:
    (folder / "out.bba").write_bytes(b"old")
    process = subprocess.Popen(
        [*COMMAND, "compress", "images.npy", "-o", "out.bba", "-f", "--model", str(model_folder), "--chunk-size", "1"],
        stderr=subprocess.PIPE,
    )
    time.sleep(delay)
    process.kill()
    process.communicate()
    content = (folder / "out.bba").read_bytes()
    if content != b"old":
        assert bbans.decompress(content, model=model_folder).shape == (60, 5, 4)


def _hear_interrupts() -> None:
    """Even where the tests run in the background of a shell, whose processes ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_process_cleans_up(folder: Path, model_folder: Path) -> None:
    """Interrupted while it writes, as its unfinished file shows."""
    np.save(folder / "many.npy", np.zeros((30_000, 5, 4), np.uint8))
    process = subprocess.Popen(
        [*COMMAND, "compress", "many.npy", "-o", "out.bba", "--model", str(model_folder), "--chunk-size", "1"],
        stderr=subprocess.PIPE,
        preexec_fn=_hear_interrupts,
    )
    while not list(folder.glob(".out.bba.*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 1 and b"Traceback" not in stderr
    assert not list(folder.glob("*.bba")) and not list(folder.glob(".out.bba.*"))


def test_help_and_decompressing_import_no_torch(folder: Path, model_folder: Path) -> None:
    succeed("compress", "images.npy", "-o", "out.bba", "--model", model_folder)
    program = (
        "import sys; from bbans.cli import main\n"
        f"main(['decompress', 'out.bba', '-o', 'x.npy', '--model', {str(model_folder)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    light = "import sys; import bbans.cli; assert not {'numpy', 'torch'} & set(sys.modules), 'a slow import'"
    subprocess.run([sys.executable, "-c", light], check=True)
