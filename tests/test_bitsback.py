"""Algorithm 1: decoding undoes encoding, and the stack grows by the negative ELBO."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import random_images, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from bbans.ans import core_named
from bbans.bitsback import pop_images, push_images
from bbans.chunk import EMPTY_HEAD, ChunkCoder, schedule
from bbans.errors import FormatError
from bbans.evaluated import EvaluatedModel
from bbans.intervals.distribution import Distribution
from bbans.model import Model
from bbans.portable.engines import engine_named
from bbans.portable.network import Network

MODELS = {kind: tiny_model(kind) for kind in ("bernoulli", "discretized-logistic")}


def evaluated(model: Model) -> EvaluatedModel:
    return EvaluatedModel.of(model, "amortized", engine_named("numpy"))


def coder_for(model: Model) -> ChunkCoder:
    return ChunkCoder(evaluated(model), core_named(), model.image_bits, model.latent_bits)


def flat(model: Model, count: int, seed: int = 0) -> np.ndarray:
    return random_images(model, count, seed).reshape(count, -1).astype(np.int64)


@pytest.mark.parametrize("lanes", [1, 5, 64])
def test_pop_undoes_push(model: Model, lanes: int) -> None:
    words = np.random.default_rng(0).integers(0, 1 << 32, 500, dtype=np.uint32)
    words[:lanes] = 1 << 30
    stack = core_named().from_words(words, lanes)
    x = flat(model, 30)
    push_images(stack, evaluated(model), x)
    assert (pop_images(stack, evaluated(model), 30) == x).all()
    assert (stack.to_words() == words).all()


def information(distribution: Distribution, symbols: np.ndarray) -> float:
    """Bits that the symbols cost."""
    return float(np.sum(distribution.precision - np.log2(distribution.interval(symbols)[1].astype(float))))


def test_the_stack_grows_by_the_negative_elbo(model: Model) -> None:
    """-log p(x, z) + log q(z given x), for the very z that is popped, to a fraction of a percent."""
    coded = evaluated(model)
    x = flat(model, 400)
    words = np.random.default_rng(0).integers(0, 1 << 32, 5000, dtype=np.uint32)
    words[:16] = 1 << 30
    stack = core_named().from_words(words, lanes=16)
    before = held_bits(stack.to_words())
    push_images(stack, coded, x)
    grown = held_bits(stack.to_words()) - before

    stack = core_named().from_words(words, lanes=16)
    from bbans.intervals import pop

    z = pop(stack, coded.posterior(x))
    elbo = information(coded.posterior(x), z)
    elbo -= coded.likelihood(z.reshape(400, -1)).bits(x) + information(coded.prior(400), z)
    assert grown == pytest.approx(-elbo, rel=2e-4)


def held_bits(words: np.ndarray, lanes: int = 16) -> float:
    heads = words[:lanes].astype(float) * 2.0**32 + words[lanes : 2 * lanes]
    return float(np.log2(heads).sum()) + 32 * (len(words) - 2 * lanes)


@pytest.mark.parametrize("kind", sorted(MODELS))
@given(count=st.integers(1, 300), seed=st.integers(0, 1000))
def test_chunks_round_trip(kind: str, count: int, seed: int) -> None:
    model = MODELS[kind]
    x = flat(model, count, seed)
    coder = coder_for(model)
    payload = coder.encode(x)
    assert (coder.decode(payload, count) == x).all()


def test_the_first_image_costs_its_latents_and_a_head(binary_model: Model) -> None:
    """Nothing is stored that was not needed: one image borrows 3 latents of 8 bits and a head of 8 bytes."""
    payload = coder_for(binary_model).encode(flat(binary_model, 1))
    assert len(payload) <= 8 + 8 + 4 * 2


def test_single_images_round_trip(model: Model) -> None:
    """A payload may be shorter than the checksum that it gives back: part of that is in the head."""
    coder = coder_for(model)
    for x in flat(model, 50 if isinstance(model.decoder, Network) else 10)[:, None]:
        assert (coder.decode(coder.encode(x), 1) == x).all()


@given(images=st.integers(0, 20_000), image_bits=st.integers(1, 50_000), latent_bits=st.integers(1, 5_000))
def test_schedule_covers_all_images(images: int, image_bits: int, latent_bits: int) -> None:
    batches = schedule(images, image_bits, latent_bits)
    assert sum(batch.images for batch in batches) == images
    assert all(batch.images >= 1 for batch in batches)
    assert [batch.lanes for batch in batches] == sorted(batch.lanes for batch in batches)


def test_schedule_is_part_of_the_format() -> None:
    """Changing it breaks every file."""
    batches = schedule(3000, 136, 95)
    assert [(batch.images, batch.lanes) for batch in batches] == [
        (1, 1), (1, 1), (1, 2), (2, 2), (3, 4), (5, 8), (7, 16), (15, 16), (26, 32), (41, 64), (60, 128), (129, 128),
        (221, 256), (362, 512), (512, 1024), (512, 1024), (512, 2048), (512, 2048), (78, 2048),
    ]  # fmt: skip


def test_images_cheaper_than_their_latents_draw_more_first_words(binary_model: Model) -> None:
    """A schedule that expects far more than comes runs the stack dry; the chunk is coded all the same."""
    coder = ChunkCoder(evaluated(binary_model), core_named(), image_bits=100_000, latent_bits=1)
    x = flat(binary_model, 3000)
    assert (coder.decode(coder.encode(x), 3000) == x).all()


def test_damaged_payloads_are_refused(model: Model) -> None:
    coder = coder_for(model)
    payload = coder.encode(flat(model, 20))
    step = max(1, len(payload) // (100 if isinstance(model.decoder, Network) else 12))  # others decode slowly
    for position in range(0, len(payload), step):
        damaged = bytearray(payload)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(FormatError, match="damaged"):
            coder.decode(bytes(damaged), 20)
    for length in range(0, len(payload), step):
        with pytest.raises(FormatError, match="damaged"):
            coder.decode(payload[:length], 20)
    for count in (1, 19, 21, 200):
        with pytest.raises(FormatError, match="damaged"):
            coder.decode(payload, count)


def test_empty_head_holds_nothing() -> None:
    assert EMPTY_HEAD.tolist() == [0, 1 << 31]
