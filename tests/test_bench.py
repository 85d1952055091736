"""`bbans bench`: what it measures is right, and what is missing is said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

import bbans
from bbans.bench import baselines
from bbans.bench.baselines import BASELINES, Baseline, Row, Skipped, measure, tile, untile
from bbans.bench.rate_vs_steps import Point, time_ratios
from bbans.cli import main
from bbans.model import Model

NAMES = ["zstd-19", "xz-9e", "bzip2-9"]


@pytest.fixture
def folder(tmp_path: Path, binary_model: Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds images.npy, drawn from the small model."""
    np.save(tmp_path / "images.npy", bbans.sample_images(binary_model, 40))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def succeed(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fail(*arguments: object) -> str:
    """The one line that a failing command prints."""
    before = sorted(Path().iterdir())
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("bbans: ") and result.stderr.count("\n") == 1, result.stderr
    assert sorted(Path().iterdir()) == before, "a failing command left something behind"
    return result.stderr


def test_help_names_the_commands() -> None:
    assert "bench" in CliRunner().invoke(main, ["--help"]).stdout
    assert {"baselines", "rate-vs-steps"} <= set(succeed("--help").stdout.split())


def test_help_imports_nothing_slow() -> None:
    program = (
        "import sys; from bbans.cli import main\n"
        "for words in (['--help'], ['bench', 'baselines', '--help']):\n"
        "    main(words, standalone_mode=False)\n"
        "assert not {'numpy', 'torch', 'matplotlib'} & set(sys.modules), 'a slow import'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_rate_vs_steps(folder: Path, model_folder: Path, binary_model: Model) -> None:
    arguments = ["rate-vs-steps", "images.npy", "--model", model_folder, "--steps", "2,0-1", "-n", 30, "--threads", 1]
    result = succeed(*arguments, "-o", "rates.json")
    found = json.loads((folder / "rates.json").read_text())
    assert found["data"]["shape"] == [30, 5, 4] and found["machine"]["bbans"] == bbans.__version__
    assert [(row["posterior"], row["steps"]) for row in found["files"]] == [
        (posterior, steps) for posterior in binary_model.encoders for steps in (0, 1, 2)
    ]
    images = np.load("images.npy")[:30]
    for row in found["files"]:
        codec = bbans.Codec.of(binary_model, posterior=row["posterior"], steps=row["steps"])
        assert row["bytes"] == len(codec.compress(images))
        assert row["bits_per_dimension"] == pytest.approx(8 * row["bytes"] / images.size)
        assert f"{row['bits_per_dimension']:.4f}" in result.stdout
    assert found["files"][0]["encode_time_over_no_steps"] == found["files"][0]["decode_time_over_no_steps"] == 1


def test_ratios_need_no_steps_to_be_measured(folder: Path, model_folder: Path) -> None:
    succeed("rate-vs-steps", "images.npy", "--model", model_folder, "--steps", "1", "-o", "rates.json")
    found = json.loads((folder / "rates.json").read_text())
    assert {row["encode_time_over_no_steps"] for row in found["files"]} == {None}
    points = [
        Point("a", 0, 1, 1.0, 2.0, 4.0, 0),
        Point("b", 5, 1, 1.0, 2.0, 4.0, 0),
        Point("a", 5, 1, 1.0, 3.0, 8.0, 0),
    ]
    assert time_ratios(points) == [(1, 1), None, (1.5, 2)]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_plot(folder: Path, model_folder: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    succeed("rate-vs-steps", "images.npy", "--model", model_folder, "--steps", "0,1", "--plot", f"plot.{kind}")
    assert (folder / f"plot.{kind}").read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_a_plot_of_no_known_kind(folder: Path, model_folder: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("plot.xyz", "plot"):
        assert "file of type" in fail("rate-vs-steps", "images.npy", "--model", model_folder, "--plot", name)


def test_only_a_plot_needs_matplotlib(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["rate-vs-steps", "images.npy", "--model", model_folder, "--steps", "0"]
    assert "pip install matplotlib" in fail(*arguments, "--plot", "plot.png")
    succeed(*arguments)


@pytest.mark.parametrize("steps", ["", "a", "1,,2", "5-2", "-1", "1.5", "0-99999999"])
def test_steps_that_are_no_numbers(folder: Path, model_folder: Path, steps: str) -> None:
    assert invoke("rate-vs-steps", "images.npy", "--model", model_folder, f"--steps={steps}").exit_code == 2


def test_rate_vs_steps_of_what_does_not_fit(folder: Path, model_folder: Path) -> None:
    np.save("grey.npy", np.full((3, 5, 4), 9))
    np.save("none.npy", np.zeros((0, 5, 4), np.uint8))
    np.save("number.npy", np.array(5))
    np.save("words.npy", np.array([["some", "words"]]))
    (folder / "text.npy").write_text("no array")
    own = ["--model", model_folder]
    assert "does not fit" in fail("rate-vs-steps", "grey.npy", *own)
    assert "no shipped model fits" in fail("rate-vs-steps", "images.npy")
    assert "no model 'nonesuch'" in fail("rate-vs-steps", "images.npy", "--model", "nonesuch")
    for command in ("rate-vs-steps", "baselines"):
        assert "holds no images" in fail(command, "none.npy", *own)
        assert "holds no images" in fail(command, "number.npy", *own)
        assert "numbers" in fail(command, "words.npy", *own)
        assert "not a .npy file" in fail(command, "text.npy", *own)
        assert "No such file" in fail(command, "missing.npy", *own)
        assert "exists; -f overwrites it" in fail(command, "images.npy", "-o", "text.npy", *own)
        assert "not a folder" in fail(command, "images.npy", "-o", "nowhere/out.json", *own)
    assert "no posterior 'x'" in fail("rate-vs-steps", "images.npy", *own, "--posterior", "x")
    assert "refined by 0 to" in fail("rate-vs-steps", "images.npy", *own, "--steps", "0,99999999")


def pictures(shape: tuple[int, ...], values: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, values, shape, dtype=np.uint8)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: f"{baseline.name}-{baseline.arrangement}")
@pytest.mark.parametrize(
    "array",
    [
        pictures((7, 6, 5), 2),
        pictures((7, 6, 5), 2).astype(bool),
        pictures((7, 6, 5), 256),
        pictures((3, 6, 5, 3), 256),
        pictures((3, 6, 5, 3), 2),
        np.zeros((1, 1, 1), np.uint8),
    ],
    ids=["binary", "bool", "grey", "colour", "colour-binary", "one-pixel"],
)
def test_each_baseline_comes_back(baseline: Baseline, array: NDArray[np.uint8]) -> None:
    pytest.importorskip(baseline.module, exc_type=ImportError)
    row = measure(baseline, array)
    assert isinstance(row, Row), row
    assert row.bits_per_dimension == pytest.approx(8 * row.bytes / array.size)


def test_arrays_that_are_no_pictures_go_to_codecs_of_bytes_only() -> None:
    for array in (np.arange(20.0).reshape(4, 5), pictures((4, 20), 256)):
        results = [measure(baseline, array) for baseline in BASELINES if baseline.name in ("xz-9e", "png")]
        assert [type(result) for result in results] == [Row, Skipped, Skipped]


@pytest.mark.parametrize("count", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("side", [1, 12, 8192])
@pytest.mark.parametrize("colours", [(), (3,)])
def test_tiles(monkeypatch: pytest.MonkeyPatch, count: int, side: int, colours: tuple[int, ...]) -> None:
    monkeypatch.setattr(baselines, "GRID_SIDE", side)
    images = pictures((count, 4, 3, *colours), 256)
    grids = tile(images)
    assert all(max(grid.shape[:2]) <= max(side, 4) for grid in grids)
    np.testing.assert_array_equal(untile(grids, images.shape), images)


def test_baselines(folder: Path, model_folder: Path) -> None:
    names = [argument for name in NAMES for argument in ("--codec", name)]
    result = succeed("baselines", "images.npy", "--model", model_folder, *names, "-n", 30, "-o", "baselines.json")
    found = json.loads((folder / "baselines.json").read_text())
    assert {row["codec"] for row in found["codecs"]} == {"bbans, tiny", *NAMES}
    sizes = [row["bytes"] for row in found["codecs"]]
    assert sizes == sorted(sizes) and all(f"{size:,}" in result.stdout for size in sizes)
    assert found["skipped"] == [] and found["data"]["shape"] == [30, 5, 4]
    without = succeed("baselines", "images.npy", "--model", "none", "--codec", "xz-9e").stdout
    assert "bbans," not in without
    automatic = succeed("baselines", "images.npy", "--codec", "xz-9e")
    assert "stored rows through zstandard" in automatic.stderr
    assert "there is no codec 'x'" in fail("baselines", "images.npy", "--codec", "x")


@pytest.mark.parametrize("name", ["bzip3", "zpaq-5", "jxl-9"])
def test_a_missing_package_is_named_and_skipped(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {baseline.name: (baseline.module, baseline.package) for baseline in BASELINES}
    module, package = packages[name]
    monkeypatch.setitem(sys.modules, module, None)
    result = succeed("baselines", "images.npy", "--codec", name, "--codec", "xz-9e", "--model", "none", "-o", "x.json")
    assert f"skipped {name}" in result.stderr and f"pip install {package}" in result.stderr
    assert "xz-9e" in result.stdout
    assert json.loads((folder / "x.json").read_text())["skipped"]


def test_a_codec_that_loses_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (xz,) = (baseline for baseline in BASELINES if baseline.name == "xz-9e")
    loses = replace(xz, decode=lambda files, like: np.zeros_like(like))
    monkeypatch.setattr(baselines, "BASELINES", (loses,))
    message = fail("baselines", "images.npy", "--model", "none", "-o", "x.json")
    assert "xz-9e, raw: what it wrote does not decode to what it was given" in message


def test_a_codec_that_fails_is_skipped() -> None:
    (xz,) = (baseline for baseline in BASELINES if baseline.name == "xz-9e")

    def refuses(array: NDArray[np.uint8]) -> list[bytes]:
        raise RuntimeError("too large")

    result = measure(replace(xz, encode=refuses), pictures((2, 3, 4), 2))
    assert result == Skipped("xz-9e", "raw", "failed: too large")


def test_throughput(folder: Path, model_folder: Path) -> None:
    """More images than there are, two engines, another codec: whole files, which all have the same size."""
    succeed(
        "throughput", "images.npy", "--model", model_folder, "-n", "10,50", "--engine", "numpy,torch", "--threads", "1",
        "--codec", "zstd-19", "--repeats", "1", "-o", "speeds.json", "--plot", "speeds.svg",
    )  # fmt: skip
    assert b"zstd-19, raw" in (folder / "speeds.svg").read_bytes()
    speeds = json.loads((folder / "speeds.json").read_text())["speeds"]
    own, other = speeds[:-1], speeds[-1]
    assert [(speed["setting"]["engine"], speed["images"]) for speed in own] == [
        ("numpy", 10), ("numpy", 50), ("torch", 10), ("torch", 50),
    ]  # fmt: skip
    images = np.load("images.npy")
    codec = bbans.Codec.of(bbans.load_model(model_folder))
    for speed in own:
        assert speed["bytes"] == len(codec.compress(np.resize(images, (speed["images"], *images.shape[1:]))))
        assert speed["encode_images_per_second"] > 0 and speed["peak_megabytes"] > 1
    assert other["codec"] == "zstd-19, raw" and other["setting"] is None and other["images"] == 40


@pytest.mark.parametrize("option", [("-n", "0"), ("-n", "1,x"), ("--threads", "0"), ("--engine", "abacus")])
def test_throughput_refuses_what_makes_no_sense(folder: Path, model_folder: Path, option: tuple[str, str]) -> None:
    result = invoke("throughput", "images.npy", "--model", model_folder, *option)
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit)
