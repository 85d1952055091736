"""A file written anywhere decodes everywhere, and is the same file.

Each case is a child process with another engine, thread count, evaluation batch, ANS core, instruction set or
version of NumPy. The bytes that it writes must be those written here, and it must decode what was written here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bbans
from bbans.portable.network import Network
from bbans.portable.numpy_engine import NumpyEngine

FILES = {
    "gg-mnist+0": 120, "gg-mnist+5": 30, "gg-mnist-binary+0": 120, "gg-mnist-binary+5": 30, "mnist-binary+0": 10,
    "mnist-binary+2": 4, "mnist+2": 2, "fashion+0": 2, "cifar10+0": 2, "gg-cifar10+2": 2,
}  # fmt: skip
"""How many images are coded with a model and so many steps."""
REPOSITORY = Path(__file__).parent.parent
OTHER_NUMPY = os.environ.get("BBANS_OTHER_NUMPY")
"""The Python of an environment with another major version of NumPy."""


def numpy_features_beyond_baseline() -> str:
    """What NumPy found on this machine and can do without."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each model an array and the file written here."""
    folder = tmp_path_factory.mktemp("portability")
    for name in FILES:
        model, steps = bbans.load_model(name.split("+")[0]), int(name.split("+")[1])
        images = bbans.sample_images(model, FILES[name], seed=3)
        np.save(folder / f"{name}.npy", images)
        codec = bbans.Codec.of(model, steps=steps, engine="numpy", ans="numpy", threads=1)
        (folder / f"{name}.bba").write_bytes(codec.compress(images, chunk_size=len(images) // 2))
    return folder


CASES = {
    "numpy, batches of 1": (["numpy", "1", "1", "numpy"], {}),
    "numpy, batches of 7, 2 threads": (["numpy", "2", "7", "numpy"], {}),
    "numpy, batches of 512": (["numpy", "1", "512", "numpy"], {}),
    "numpy, 2 BLAS threads": (["numpy", "1", "512", "numpy"], {"OPENBLAS_NUM_THREADS": "2"}),
    "numpy, no SIMD": (["numpy", "1", "512", "numpy"], {"NPY_DISABLE_CPU_FEATURES": numpy_features_beyond_baseline()}),
    "numpy, old BLAS kernels": (["numpy", "1", "512", "numpy"], {"OPENBLAS_CORETYPE": "Prescott"}),
    "torch, batches of 1": (["torch", "1", "1", "numpy"], {}),
    "torch, batches of 7, 2 threads": (["torch", "2", "7", "numpy"], {}),
    "torch, batches of 512": (["torch", "1", "512", "numpy"], {}),
    "torch, no SIMD": (["torch", "1", "512", "numpy"], {"ATEN_CPU_CAPABILITY": "default"}),
    "torch, old kernels": (
        ["torch", "2", "512", "numpy"],
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    ),
    "numba": (["numba", "1", "512", "numba"], {}),
    "numba, 2 threads, no SIMD beyond the least": (
        ["numba", "2", "512", "numba"],
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    ),
    "craystack": (["numpy", "1", "512", "craystack"], {}),
    "other NumPy": (["numpy", "1", "512", "numpy"], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_bytes_are_the_same_everywhere(case: str, folder: Path) -> None:
    arguments, environment = CASES[case]
    python = sys.executable
    for package in ("craystack", "numba"):
        if package in arguments and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if case == "other NumPy":
        if OTHER_NUMPY is None:
            pytest.skip("BBANS_OTHER_NUMPY names no other environment")
        python = OTHER_NUMPY
        environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [python, str(Path(__file__).with_name("portability_child.py")), *arguments, str(folder)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if case == "other NumPy":
        assert result["numpy"].split(".")[0] != np.__version__.split(".")[0]
    for name in FILES:
        digest, decoded = result[name]
        assert decoded, f"{name}: a file written here does not decode there"
        assert digest == hashlib.sha256((folder / f"{name}.bba").read_bytes()).hexdigest(), f"{name}: other bytes"


def float_frequencies(network: Network, inputs: np.ndarray, batch: int) -> np.ndarray:
    """16-bit frequencies of ones from the same decoder as a float32 network, as others evaluate it.

    Activations are scaled by a power of two a layer, which changes no rounding, to keep them near one.
    """
    outputs = []
    for part in torch.split(torch.from_numpy(inputs).float() / 4096, batch):
        unit = 1 / 4096
        for layer in network.layers:
            weight = torch.from_numpy(layer.weight.astype(np.float32)) / 2**14
            bias = torch.from_numpy((layer.bias * (unit / 2**14)).astype(np.float32))
            unit *= 2.0 ** (layer.shift - 14)
            part = (part @ weight.t() + bias).clamp(layer.minimum * unit, layer.maximum * unit)
        outputs.append(part / unit / 2**16)
    return np.rint(torch.sigmoid(torch.cat(outputs)).numpy() * 65536).astype(np.int64)


def test_a_float_network_fails_this_test() -> None:
    """Why the networks are integers: in float32 the frequencies depend on how many images are evaluated at once.

    One changed frequency breaks a file. The same decoder in integers gives the same frequencies for any batch.
    """
    model = bbans.load_model("gg-mnist-binary")
    z = np.random.default_rng(0).normal(size=(512, model.latents)) * 4096
    inputs = np.clip(np.rint(z), -model.decoder.input_magnitude, model.decoder.input_magnitude).astype(np.int64)
    alone = float_frequencies(model.decoder, inputs, batch=1)
    together = float_frequencies(model.decoder, inputs, batch=512)
    assert np.abs(alone - together).max() <= 4, "the two evaluations should be the same network"
    assert (alone != together).any(axis=1).mean() > 0.05, "float32 would do on this machine, if only on this one"
    exact = [NumpyEngine(block).load(model.decoder)(inputs) for block in (1, 512)]
    assert (exact[0] == exact[1]).all()
