"""What torch computes on a device, on the CPU: the same code, but that nothing is captured there.

A tape takes the place of a CUDA graph: it records operations on tensors and does them again, without Python.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_images, tiny_context_model, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import bbans
from bbans.ans import HEAD_MINIMUM, core_named
from bbans.ans.numpy_core import NumpyStack
from bbans.ans.tensor_stack import HostLanes, TensorStack
from bbans.errors import FormatError, StackUnderflow
from bbans.model import Model
from bbans.portable.network import Linear
from bbans.portable.torch_device import Device, Function, Gate
from bbans.portable.torch_engine import TorchEngine
from bbans.portable.torch_product import DigitProduct, DoubleProduct, fastest
from bbans.tensor_likelihoods import LoadedDecoder, TensorContextLikelihood

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@settings(max_examples=30)
@given(
    rows=st.integers(0, 40),
    inputs=st.integers(1, 30),
    outputs=st.integers(1, 20),
    magnitude=st.sampled_from([1, 127, 128, 2047, 32639, 65535]),
    largest=st.sampled_from([1, 100, 128, 32767, 131068]),
    seed=st.integers(0, 1 << 32),
)
def test_products_are_exact(rows: int, inputs: int, outputs: int, magnitude: int, largest: int, seed: int) -> None:
    """In float64 and of digits, against Python's integers."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([-largest, largest, largest // 2, 0], (outputs, inputs)).astype(np.int32)
    layer = Linear(weight, rng.integers(-(1 << 30), 1 << 30, outputs), int(rng.integers(0, 20)), -99999, 1 << 24)
    x = rng.choice([-magnitude, magnitude, magnitude // 3], (rows, inputs))
    sums = x.astype(object) @ weight.T.astype(object) + layer.bias.astype(object)
    expected = np.clip(sums // (1 << layer.shift), layer.minimum, layer.maximum)
    digits = DigitProduct.of(layer, magnitude, CPU)
    assert digits is not None
    for product in (DoubleProduct.of(layer, CPU), digits):
        found = product(torch.from_numpy(x.astype(np.float64)))
        assert found.dtype == torch.float64 and (found.numpy() == expected).all()


def test_digits_are_left_to_those_who_can_hold_them() -> None:
    def layer(inputs: int, largest: int) -> Linear:
        return Linear(np.full((1, inputs), largest, np.int64), np.zeros(1, np.int64), 0, 0, 1)

    assert DigitProduct.of(layer((1 << 16) - 1, 1), 1 << 14, CPU) is not None
    assert DigitProduct.of(layer(1 << 16, 1), 1 << 14, CPU) is None, "two digits, each product up to 2**14"
    assert DigitProduct.of(layer(1, 1 << 24), 1, CPU) is None
    assert DigitProduct.of(layer(1, 1), 1 << 24, CPU) is None


def test_a_product_that_the_device_lacks_is_not_taken() -> None:
    product = DoubleProduct.of(Linear(np.ones((3, 2), np.int16), np.zeros(3, np.int64), 0, 0, 9), CPU)

    class Missing(DoubleProduct):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such unit")

    missing = Missing(product.weight, product.bias, 0, 9)
    assert fastest([missing, product], 2, Device("cpu")) is product
    assert fastest([missing, missing], 2, Device("cpu")) is missing, "and says so when it is used"


@settings(max_examples=30)
@given(
    lanes=st.integers(1, 20), precisions=st.lists(st.integers(1, 24), min_size=1, max_size=20), seed=st.integers(0, 99)
)
def test_stacks_on_a_device_pop_as_others(lanes: int, precisions: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << 32, 2 * lanes + 500, dtype=np.uint32)
    words[:lanes] = HEAD_MINIMUM >> 1
    expected, other = (core_named("numpy").from_words(words, lanes) for _ in range(2))
    assert isinstance(other, NumpyStack)
    on_device = TensorStack(lanes, lanes * len(precisions), CPU)
    on_device.load(other)
    left_there = HostLanes(core_named("numpy").from_words(words, lanes), CPU)
    for precision in precisions:
        count = int(rng.integers(1, lanes + 1))
        values = expected.peek(count, precision)
        frequency = 1 + (rng.random(count) * ((1 << precision) - values - 1)).astype(np.uint64)
        expected.pop(values, frequency, precision)
        for stack in (on_device, left_there):
            peeked = stack.peek(count, precision)
            assert (peeked.numpy() == values.astype(np.int64)).all()
            stack.pop(peeked, torch.from_numpy(frequency.astype(np.int64)), precision)
    on_device.store(other)
    for stack in (other, left_there.stack):
        assert (stack.to_words() == expected.to_words()).all()
        assert (stack.tail_words, stack.low_water) == (expected.tail_words, expected.low_water)


def test_a_word_too_few_is_noticed() -> None:
    stack = core_named("numpy").from_words(np.array([0, 0, 1 << 31, 1 << 31, 7], np.uint32), lanes=2)
    assert isinstance(stack, NumpyStack)
    before = stack.to_words()
    on_device = TensorStack(2, 2, CPU)
    on_device.load(stack)
    on_device.pop(on_device.peek(2, 8), torch.ones(2, dtype=torch.int64), 8)
    with pytest.raises(StackUnderflow, match="needs 2 words, the stack's tail holds 1"):
        on_device.store(stack)
    assert (stack.to_words() == before).all()


@pytest.mark.parametrize(("likelihood", "channels"), [("bernoulli", 1), ("logistic-mixture", 3)])
def test_files_are_those_of_other_engines(likelihood: str, channels: int) -> None:
    """More images than are evaluated at once, and lanes that grow, on each core that is installed."""
    model = tiny_context_model(likelihood, (4, 5, channels))
    x = random_images(model, 45).reshape(45, -1).astype(np.int64)
    coders = [bbans.Codec.of(model, engine="numpy", ans="numpy").chunk_coder()]
    for ans in filter(find_spec, bbans.ans.core_names()):  # cores have the names of their packages
        coders.append(bbans.Codec.of(model, engine=TorchEngine("cpu", block=8), ans=ans).chunk_coder())
    payloads = [coder.encode(x) for coder in coders]
    assert len(set(payloads)) == 1
    assert all((coder.decode(payloads[0], len(x)) == x).all() for coder in coders)


class Tape(TorchFunctionMode):
    """Records functions of tensors, and calls them again: with the same numbers, and results where they were."""

    WAITS = ("item", "tolist", "__int__", "__bool__", "__index__", "nonzero", "masked_select", "cpu", "numpy")

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.__name__ not in self.WAITS, f"{func.__name__} waits for the device, and can't be captured"
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            seen = {_memory(tensor) for tensor in _tensors((args, kwargs))}
            for old, new in zip(_tensors(result), _tensors(func(*args, **kwargs)), strict=True):
                if _memory(old) not in seen:  # else it is a view, or was changed in place
                    old.copy_(new)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Taped:
    """A :class:`bbans.portable.torch_device.Recorder` that a test can look into."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        yield

    def record(self, function: Function) -> Function:
        function()
        with Tape() as tape:
            function()
        self.recorded += 1

        def replay() -> None:
            tape.replay()
            self.replayed += 1

        return replay


@pytest.mark.parametrize(("likelihood", "channels"), [("bernoulli", 1), ("logistic-mixture", 3)])
def test_what_is_recorded_looks_at_nothing_but_its_buffers(
    likelihood: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is recorded once for all lines of a length, before there is anything to decode, and used for batch after
    batch, with more symbols in a line than there are lanes.
    """
    model = tiny_context_model(likelihood, (5, 9, channels))
    taped = Taped()
    monkeypatch.setattr(Device, "recorder", lambda device: taped)
    loaded = _loaded(model)
    assert len({line.count for line in loaded.lines}) == 3 and len(loaded.lines) > 20
    numpy = bbans.Codec.of(model, engine="numpy").evaluated
    assert numpy is not None
    for seed in range(2):
        x = random_images(model, 3, seed).reshape(3, -1).astype(np.int64)
        z = np.random.default_rng(seed).integers(0, 1 << model.latent_precision, (3, model.latents))
        stack = core_named("numpy").from_words(np.repeat(np.array([0, HEAD_MINIMUM], np.uint32), 4), lanes=4)
        before = stack.to_words()
        numpy.likelihood(z).push(stack, x)
        likelihood_of_z = loaded.likelihood(numpy.bins.centres[z])
        assert (likelihood_of_z.pop(stack) == x).all()
        assert (stack.to_words() == before).all()
    assert taped.recorded == 3 and taped.replayed == 2 * len(loaded.lines)


def _loaded(model: Model) -> LoadedDecoder:
    evaluated = bbans.Codec.of(model, engine="torch", device="cpu").evaluated
    assert evaluated is not None
    likelihood = evaluated.likelihood(np.zeros((1, model.latents), np.int64))
    assert isinstance(likelihood, TensorContextLikelihood)
    return likelihood.loaded


def test_workspaces_are_used_again_and_by_one_at_a_time() -> None:
    loaded = _loaded(tiny_context_model("bernoulli"))
    first, second = loaded.workspace(2, 4), loaded.workspace(2, 4)
    loaded.idle.put(first)
    assert loaded.workspace(3, 4) is not first and loaded.workspace(2, 8) is not first
    assert loaded.workspace(2, 4) is first
    loaded.idle.memory = first.state.size_in_bytes
    loaded.idle.put(first)
    loaded.idle.put(second)
    assert loaded.idle.waiting == [second], "the oldest goes first"


def test_one_alone_waits_for_the_others_and_they_for_it() -> None:
    gate, log = Gate(), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def beside() -> None:
        with gate.beside_others():
            log.append("beside")
            inside.set()
            leave.wait(10)
            log.append("left")

    def alone() -> None:
        with gate.alone():
            log.append("alone")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(beside)
        inside.wait(10)
        second = pool.submit(alone)
        while not gate._closed:
            time.sleep(0.001)
        third = pool.submit(beside)
        leave.set()
        for task in (first, second, third):
            task.result(10)
    assert log == ["beside", "left", "alone", "beside", "left"]


def test_threads_share_a_codec() -> None:
    model = tiny_context_model("logistic-mixture", (4, 5, 1))
    codec = bbans.Codec.of(model, engine="torch", device="cpu")
    images = [random_images(model, 12, seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(codec.compress, images))
        assert all((codec.decompress(data) == x).all() for data, x in zip(written, images, strict=True))
        read = pool.map(codec.decompress, written)
        assert all((x == y).all() for x, y in zip(images, read, strict=True))


def test_a_payload_without_end_is_refused() -> None:
    model = tiny_context_model("bernoulli")
    coder = bbans.Codec.of(model, engine="torch", device="cpu").chunk_coder()
    payload = coder.encode(np.zeros((60, model.pixels), np.int64))
    with pytest.raises(FormatError, match="damaged"):
        coder.decode(payload[:40], 60)


def test_codecs_on_torch_go_to_other_processes() -> None:
    codec = bbans.Codec.of(tiny_model("bernoulli"), engine=TorchEngine("cpu", block=7))
    again = pickle.loads(pickle.dumps(codec))
    assert isinstance(again.engine, TorchEngine) and again.engine.block == 7 and not again.engine.device.is_cuda


@needs_cuda
@pytest.mark.parametrize(("likelihood", "channels"), [("bernoulli", 1), ("logistic-mixture", 3)])
def test_files_are_the_same_on_cuda(likelihood: str, channels: int) -> None:
    model = tiny_context_model(likelihood, (6, 7, channels))
    images = random_images(model, 300)
    on_cpu = bbans.Codec.of(model, engine="numpy", ans="numpy")
    on_cuda = bbans.Codec.of(model, device="cuda", threads=4)
    data = on_cpu.compress(images, chunk_size=75)
    assert on_cuda.compress(images, chunk_size=75) == data
    for _ in range(2):  # captured, and launched again
        assert (on_cuda.decompress(data) == images).all()


@needs_cuda
def test_products_are_exact_on_cuda() -> None:
    rng = np.random.default_rng(0)
    for rows, inputs, outputs, magnitude in [(1, 1, 1, 2047), (17, 37, 29, 2047), (5000, 200, 40, 65535)]:
        weight = rng.integers(-32767, 32768, (outputs, inputs)).astype(np.int16)
        layer = Linear(weight, rng.integers(-(1 << 30), 1 << 30, outputs), 9, -(1 << 24), 1 << 24)
        x = torch.from_numpy(rng.integers(-magnitude, magnitude + 1, (rows, inputs)).astype(np.float64))
        expected = DoubleProduct.of(layer, CPU)(x)
        cuda = torch.device("cuda")
        digits = DigitProduct.of(layer, magnitude, cuda)
        assert digits is not None
        for product in (DoubleProduct.of(layer, cuda), digits):
            assert (product(x.to(cuda)).cpu() == expected).all()


@needs_cuda
@pytest.mark.parametrize("name", ["mnist", "cifar10", "gg-mnist", "gg-cifar10"])
def test_shipped_models_are_the_same_on_cuda(name: str) -> None:
    model = bbans.load_model(name)
    images = bbans.sample_images(model, 40)
    data = bbans.Codec.of(model, device="cpu").compress(images)
    codec = bbans.Codec.of(model, device="cuda")
    assert codec.compress(images) == data and (codec.decompress(data) == images).all()
