"""Networks for images of any size: the same on every engine, cut in strips and sections, and safe from damage."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import tiny_local_model, tiny_local_network
from hypothesis import given, settings
from hypothesis import strategies as st

import bbans
from bbans.codec import Codec
from bbans.container import Method, read_directory
from bbans.errors import FormatError, ModelError
from bbans.fields import FieldReader, varint
from bbans.intervals.location_scale import PRECISION
from bbans.local import strips
from bbans.local.coder import LocalCoder
from bbans.local.likelihood import NumpyStripLikelihood
from bbans.local.strips import BITS_UNIT, LANES_MAXIMUM, Fronts, Sections, Strip, schedule
from bbans.model import Model
from bbans.portable.local import Front, LoadedLocal, LocalState, fronts
from bbans.portable.local import LocalNetwork as FrozenNetwork
from bbans.training.freeze_local import freeze_local
from bbans.training.thaw import CodedLikelihood, thaw, thaw_local

KINDS = ["numpy"] + (["numba"] if find_spec("numba") else [])
MODELS = {(channels, blocks): tiny_local_model(channels, blocks) for channels in (1, 3) for blocks in (1, 2)}
CODECS = {
    (*key, engine, ans): Codec.of(model, engine=engine, ans=ans, threads=1)
    for key, model in MODELS.items()
    for engine, ans in itertools.product(KINDS, KINDS)
}
CONTENTS = ["noise", "constant", "smooth", "extremes"]


def image_of(content: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """An array of images whose last axes are height, width and channels."""
    rng = np.random.default_rng(seed)
    if content == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if content == "constant":
        return np.full(shape, rng.integers(0, 256), np.uint8)
    if content == "extremes":
        return np.uint8(255) * rng.integers(0, 2, shape, dtype=np.uint8)
    down, right, channel = (np.arange(size) for size in shape[-3:])
    ramp = 128 + 40 * np.sin(down / 5)[:, None, None] + 3 * right[:, None] + 5 * channel
    return np.broadcast_to(ramp, shape).astype(np.uint8)


def coder_of(codec: Codec, shape: tuple[int, ...], threads: int = 1) -> LocalCoder:
    coder = codec.fitted_to(shape).chunk_coder(threads)
    assert isinstance(coder, LocalCoder)
    return coder


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of up to 7 rows, and sections of two or three."""
    monkeypatch.setattr(strips, "STRIP_ROWS", 7)
    monkeypatch.setattr(strips, "SECTION_POSITIONS", 100)


@settings(max_examples=20)
@given(
    height=st.one_of(st.just(1), st.integers(1, 13)),
    width=st.one_of(st.just(1), st.integers(1, 13)),
    images=st.integers(1, 3),
    kind=st.sampled_from(sorted(MODELS)),
    opacity=st.booleans(),
    content=st.sampled_from(CONTENTS),
    seed=st.integers(0, 100),
)
def test_every_engine_writes_the_same_and_reads_it(
    height: int, width: int, images: int, kind: tuple[int, int], opacity: bool, content: str, seed: int
) -> None:
    shape = (images, height, width, kind[0] + opacity)
    x = image_of(content, shape, seed).reshape(images, -1)
    fitted = shape[1:] if shape[3] > 1 else shape[1:3]
    coders = [coder_of(codec, fitted) for key, codec in CODECS.items() if key[:2] == kind]
    payloads = [coder.encode(x) for coder in coders]
    assert len(set(payloads)) == 1
    for coder in coders:
        np.testing.assert_array_equal(coder.decode(payloads[0], images), x)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (65, 67)])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_rows_than_a_tile_has(channels: int, shape: tuple[int, int]) -> None:
    """Compiled code goes by tiles of rows."""
    x = image_of("noise", (1, *shape, channels)).reshape(1, -1)
    fitted = (*shape, 3) if channels == 3 else shape
    coders = [coder_of(codec, fitted) for key, codec in CODECS.items() if key[:2] == (channels, 2) and key[2] == key[3]]
    payloads = {coder.encode(x) for coder in coders}
    assert len(payloads) == 1
    np.testing.assert_array_equal(coders[-1].decode(*payloads, 1), x)


@pytest.mark.parametrize("engine", KINDS)
@pytest.mark.parametrize("dtype", ["|u1", "|b1", "<u2", ">i4", "<f4"])
def test_arrays_of_every_kind(local_model: Model, engine: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other types with values that fit, strided, backwards, read-only; read and written as they are."""
    monkeypatch.setattr("bbans.codec.stored_if_smaller", lambda *_: None)  # an untrained model is worse than zstandard
    codec = Codec.of(local_model, engine=engine, threads=1)
    shape = (4, 5, 6, 3)[: len(local_model.image_shape) + 1]
    x = np.random.default_rng(0).integers(0, 2 if dtype == "|b1" else 256, shape).astype(dtype)
    x.flags.writeable = False
    for array in (x[0], x[:, ::-1, ::2], np.asfortranarray(x[::3])):
        data = codec.compress(array)
        assert read_directory(io.BytesIO(data)).chunks[0].method is Method.BITS_BACK
        for again in (
            codec.decompress(data),
            codec.decode_chunk(codec.encode_chunk(array), array.shape, array.dtype),
        ):
            assert again.dtype == array.dtype
            np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("engine", KINDS)
@pytest.mark.parametrize("opacity", [False, True])
def test_strips_and_sections(engine: str, opacity: bool, small_parts: None) -> None:
    """Several of both, in one image and over several, on as many threads as there are."""
    codec = CODECS[3, 2, engine, engine]
    x = image_of("noise", (2, 24, 3, 3 + opacity)).reshape(2, -1)
    coder = coder_of(codec, (2, 24, 3, 3 + opacity))
    cut = Sections(2, 24, 3, coder.network.reach)
    assert len(cut) > 1 and max(map(len, cut)) > 2
    payload = coder.encode(x)
    several = replace(coder, threads=3)
    assert several.encode(x) == payload
    np.testing.assert_array_equal(several.decode(payload, 2), x)
    if engine != "numpy":
        assert coder_of(CODECS[3, 2, "numpy", "numpy"], (2, 24, 3, 3 + opacity)).encode(x) == payload


@given(
    images=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    reach=st.integers(2, 6),
    rows=st.integers(1, 9),
    room=st.integers(1, 400),
)
def test_strips_cover_every_row_once(images: int, height: int, width: int, reach: int, rows: int, room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "STRIP_ROWS", rows)
        patch.setattr(strips, "STRIP_POSITIONS", 100)
        patch.setattr(strips, "SECTION_POSITIONS", room)
        cut = list(Sections(images, height, width, reach))
    covered = [(part.image, row) for section in cut for part in section for row in range(part.first, part.stop)]
    assert covered == [(image, row) for image in range(images) for row in range(height)]
    for section in cut:
        assert section and section[0].above == 0
        assert all(part.above == min(part.first, reach) for part in section[1:])
        assert all(part.stop - part.first <= rows for part in section)
        assert len(section) == 1 or sum((part.stop - part.first) * width for part in section) <= room


@given(height=st.integers(1, 12), width=st.integers(1, 12), above=st.integers(0, 4), slope=st.integers(3, 6))
def test_fronts_hold_every_pixel_once_after_what_it_sees(height: int, width: int, above: int, slope: int) -> None:
    found = Fronts.of(Strip(0, above, above + height, above), width, slope)
    times = {(row, time - slope * row): time for time, first, stop in found.all.tolist() for row in range(first, stop)}
    assert set(times) == set(itertools.product(range(above + height), range(width)))
    assert found.counts.min() >= 0 and found.counts.sum() == height * width
    for (row, column), time in times.items():
        for there, beside in itertools.product(range(-2, 1), range(1 - slope, slope)):
            before = there < 0 or beside < 0
            if before and (row + there, column + beside) in times:
                assert times[row + there, column + beside] < time


@given(counts=st.lists(st.integers(0, 300), min_size=1, max_size=30), bits=st.integers(1, 10_000))
def test_lanes_only_fold_while_decoding(counts: list[int], bits: int) -> None:
    lanes = schedule(np.array(counts, np.int64), bits)
    assert lanes[-1] == 1 and set(lanes.tolist()) <= {1 << power for power in range(LANES_MAXIMUM.bit_length())}
    assert (np.diff(lanes) <= 0).all()


@pytest.mark.parametrize("engine", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_sees_the_rows_above(engine: str, channels: int) -> None:
    """As far as the network looks: nothing is lost at its edge, and something is other without these rows."""
    likelihood = coder_of(CODECS[channels, 2, engine, engine], (20, 9, channels)[: 2 + channels // 2]).likelihood
    x = image_of("smooth", (20, 9, channels))
    reach = MODELS[channels, 2].decoder.reach  # type: ignore[union-attr]
    costs = []
    for strip in (Strip(0, 0, 12, 0), Strip(0, 12, 20, reach), Strip(0, 0, 20, 0), Strip(0, 12, 20, 0)):
        _, frequency = likelihood.intervals(x[strip.first - strip.above : strip.stop], strip)
        costs.append(float((PRECISION - np.log2(frequency)).sum()))
    assert costs[0] + costs[1] == pytest.approx(costs[2], rel=1e-12)
    assert costs[3] != pytest.approx(costs[1], rel=1e-3)


@pytest.mark.parametrize("engine", KINDS)
def test_bits_of_values_are_those_of_the_payload(engine: str, small_parts: None) -> None:
    codec = CODECS[3, 2, engine, engine]
    for content in CONTENTS[-2:]:
        x = image_of(content, (2, 20, 6, 3)).reshape(2, -1)
        coder = coder_of(codec, (2, 20, 6, 3))
        bits, payload = coder.bits_each(x), coder.encode(x)
        assert bits.shape == x.shape and (bits >= 0).all()
        overhead = len(payload) - bits.sum() / 8
        parts = len(Sections(2, 20, 6, coder.network.reach))
        assert 0 < overhead < parts * 24 + 0.001 * len(payload)
    x = image_of("noise", (1, 6, 5, 4)).reshape(1, -1)
    bits = coder_of(codec, (6, 5, 4)).bits_each(x).reshape(6, 5, 4)
    assert (bits[..., 3] == 0).all() and (bits[..., :3] > 0).any()


def outputs_of(model: Model, x: np.ndarray) -> np.ndarray:
    """The parameters of all distributions, ``(height, width, channels, outputs)``, in NumPy."""
    network = model.decoder
    assert isinstance(network, FrozenNetwork)
    state = LocalState(LoadedLocal.of(network), len(x))
    found = np.zeros((*x.shape, network.outputs), np.int64)
    for time, first, stop in fronts(*x.shape[:2], network.slope).tolist():
        front = Front(time, first, stop, network.slope)
        state.look(front)
        for channel in range(network.channels):
            found[(*front.index, channel)] = state.parameters(front, channel).T
            state.learn(front, channel, x[(*front.index, channel)])
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_no_distribution_depends_on_what_comes_later(channels: int) -> None:
    """Rows, columns and channels, in this order; and what comes right before it does matter."""
    model = MODELS[channels, 2]
    x = image_of("noise", (7, 8, channels))
    before = outputs_of(model, x)
    for row, column, channel in [(0, 0, 0), (3, 4, channels - 1), (6, 7, 0), (2, 7, channels // 2), (3, 0, 0)]:
        changed = x.copy()
        changed[row, column, channel] ^= 255
        place = np.ravel_multi_index((row, column, channel), x.shape)
        after = outputs_of(model, changed).reshape(x.size, -1)
        differs = (after != before.reshape(x.size, -1)).any(axis=1)
        assert not differs[: place + 1].any()
        if place + 1 < x.size and (column + 1 < x.shape[1] or channel + 1 < channels):
            assert differs[place + 1 :].any()


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_frozen_thawed_and_frozen_again(channels: int) -> None:
    """All say the same of images like those that they were calibrated on, to half a percent."""
    images = np.stack([image_of(content, (13, 12, channels)) for content in CONTENTS[:3]])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    network = tiny_local_network(channels)
    frozen = replace(MODELS[channels, 2], decoder=freeze_local(network, pixels))
    thawed = thaw_local(frozen)
    again = replace(frozen, decoder=freeze_local(thawed, pixels))
    shape = images.shape if channels > 1 else images.shape[:3]
    found = [
        coder_of(Codec.of(each, engine="numpy"), shape).bits_each(images.reshape(len(images), -1)).sum(1)
        for each in (frozen, again)
    ]
    for each in (network, thawed):
        each.likelihood = CodedLikelihood(each.likelihood, PRECISION)
        found.append(-each(pixels).flatten(1).sum(1).numpy() / math.log(2))
    for bits in found[1:]:
        np.testing.assert_allclose(bits, found[0], rtol=5e-3)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_values_and_of_differences(channels: int) -> None:
    """Setting what was read changes nothing; and the weights of values do what those of differences do."""
    network = tiny_local_network(channels)
    mask = network.window_mask.bool()
    window = network.window.weight.clone()
    network.set_raw_window(network.raw_window())
    assert torch.allclose(network.window.weight[:, :, mask], window[:, :, mask], atol=1e-5)
    for layers in (network.heads, network.outputs):
        for channel, layer in enumerate(layers):
            assert isinstance(layer, torch.nn.Linear)
            weight = layer.weight.clone()
            network.set_raw(layer, channel, network.raw(layer, channel))
            assert torch.allclose(layer.weight, weight, atol=1e-5)
            raw = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            network.set_raw(layer, channel, raw)
            assert torch.allclose(network.raw(layer, channel), raw, atol=1e-4)
    raw = torch.randn(window.shape, generator=torch.Generator().manual_seed(1)) * network.window_mask
    network.set_raw_window(raw)
    assert torch.allclose(network.raw_window(), raw, atol=1e-4)


def test_the_network_keeps_its_causality_in_training() -> None:
    """The gradient of a value's distribution with respect to all that comes after, and itself, is zero."""
    network = tiny_local_network(3)
    x = torch.from_numpy(image_of("noise", (1, 7, 8, 3))).permute(0, 3, 1, 2).float().requires_grad_()
    for channel in range(3):
        (gradient,) = torch.autograd.grad(network.distributions(x)[channel][0, 3, 4].sum(), x)
        seen = gradient[0].permute(1, 2, 0).reshape(-1).abs() > 0
        place = np.ravel_multi_index((3, 4, channel), (7, 8, 3))
        assert not seen[place:].any() and seen[:place].any()


class TestDamage:
    """No payload ends in anything but an image or a FormatError."""

    SHAPE = (2, 11, 3, 4)
    X = image_of("noise", SHAPE).reshape(2, -1)

    @pytest.fixture(params=KINDS)
    def coder(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LocalCoder:
        """Two sections, the first of them of two strips."""
        monkeypatch.setattr(strips, "STRIP_ROWS", 6)
        monkeypatch.setattr(strips, "SECTION_POSITIONS", 36)
        return coder_of(CODECS[3, 1, request.param, request.param], self.SHAPE)

    def tries(self, coder: LocalCoder) -> int:
        """NumPy is slow."""
        return 5 if isinstance(coder.likelihood, NumpyStripLikelihood) else 40

    def test_flips(self, coder: LocalCoder) -> None:
        payload = coder.encode(self.X)
        for place in range(0, len(payload), max(1, len(payload) // self.tries(coder))):
            damaged = bytearray(payload)
            damaged[place] ^= 1 << place % 8
            with pytest.raises(FormatError):
                coder.decode(bytes(damaged), 2)

    def test_truncations_and_what_is_too_long(self, coder: LocalCoder) -> None:
        payload = coder.encode(self.X)
        for size in [*range(9), *range(12, len(payload), max(1, len(payload) // self.tries(coder)))]:
            with pytest.raises(FormatError):
                coder.decode(payload[:size], 2)
        for more in (b"\0", b"\0" * 4, payload):
            with pytest.raises(FormatError):
                coder.decode(payload + more, 2)

    def test_the_opacity(self, coder: LocalCoder) -> None:
        payload = coder.encode(self.X)
        assert payload[0] in (Method.ZSTANDARD, Method.PLANES)
        for method in {*range(256)} - {int(Method.ZSTANDARD), int(Method.PLANES)}:
            with pytest.raises(FormatError, match=f"stored by method {method}"):
                coder.decode(bytes([method]) + payload[1:], 2)
        for size in (0, 1, 5, len(payload), 1 << 40, (1 << 63) - 1):
            with pytest.raises(FormatError):
                coder.decode(payload[:1] + varint(size) + payload[2:], 2)

    def test_lengths_of_sections(self, coder: LocalCoder) -> None:
        coder = replace(coder, image_shape=(11, 3, 3))
        assert [len(section) for section in Sections(2, 11, 3, coder.network.reach)] == [2, 2]
        payload = coder.encode(self.X.reshape(self.SHAPE)[..., :3].reshape(2, -1))
        reader = FieldReader(payload)
        size, parts = reader.varint(), reader.rest()
        for wrong in (0, 1, 4, 8, size - 4, size + 4, len(payload), 1 << 40, (1 << 63) - 1):
            with pytest.raises(FormatError):
                coder.decode(varint(wrong) + parts, 2)

    def test_noise(self, coder: LocalCoder) -> None:
        for seed in range(self.tries(coder)):
            noise = np.random.default_rng(seed).integers(0, 256, 4 * seed, dtype=np.uint8).tobytes()
            with pytest.raises(FormatError):
                coder.decode(noise, 2)

    def test_another_image(self, coder: LocalCoder) -> None:
        payload = coder.encode(self.X)
        with pytest.raises(FormatError):
            coder.decode(payload, 1)
        with pytest.raises(FormatError):
            replace(coder, image_shape=(3, 11, 4)).decode(payload, 2)


def test_cheap_images_cost_little() -> None:
    """A model that says more of a large image than the first words hold."""
    model = MODELS[1, 1]
    coder = coder_of(CODECS[1, 1, KINDS[-1], KINDS[-1]], (300, 200))
    assert model.image_bits == 8 * BITS_UNIT
    x = image_of("constant", (1, 300, 200, 1)).reshape(1, -1)
    cheap = replace(coder, bits=16 * BITS_UNIT)  # it expects far more than there will be
    payload = cheap.encode(x)
    np.testing.assert_array_equal(cheap.decode(payload, 1), x)


@pytest.mark.parametrize("engine", KINDS)
def test_wrong_use_says_what_to_do(local_model: Model, engine: str) -> None:
    with pytest.raises(ModelError, match=r"no latents.*2 steps"):
        Codec.of(local_model, steps=2, engine=engine)
    with pytest.raises(ModelError, match="no posterior 'amortized'; it has: none"):
        Codec.of(local_model, posterior="amortized", engine=engine)
    codec = Codec.of(local_model, engine=engine)
    images = image_of("noise", (3, 18, 20, 3))[..., : len(local_model.image_shape[2:]) * 2 + 1]
    images = images if local_model.image_shape[2:] else images[..., 0]
    with pytest.raises(bbans.ArrayError, match="none: keep order"):
        codec.compress(images, ordered=False)
    with pytest.raises(bbans.ArrayError, match=r"takes images of shape \(any, any"):
        codec.encode_chunk(np.zeros(7, np.uint8))
    with pytest.raises(bbans.ArrayError, match=r"takes images of shape .* not \(0, 5, 6, 3\)"):
        codec.encode_chunk(np.zeros((0, 5, 6, 3), np.uint8))
    with pytest.raises(ModelError, match="say which"):
        bbans.sample_images(local_model, 1)
    with pytest.raises(ModelError, match="no posterior"):
        local_model.identity("half-asleep")
    with pytest.raises(ModelError, match="no latents"):
        thaw(local_model)
