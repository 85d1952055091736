"""bbans as a serializer of zarr v3: a chunk of an array of images is one bits-back stack, without anything around it.

    zarr.create_array(store, data=images, chunks=(1000, 28, 28), serializer=BitsBack("mnist"), compressors=None)

zarr finds the codec by its name, ``bbans``, when an array is opened. The array's metadata names model, identity,
posterior and steps, and nothing else is needed to decode but the model.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bbans
from bbans.integrations.loading import Loaded, load, load_setting

try:
    from zarr.abc.codec import ArrayBytesCodec
    from zarr.registry import register_codec
except ImportError as error:
    raise ImportError(f"bbans.integrations.zarr needs zarr 3, pip install 'bbans[zarr]': {error}") from error

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

NAME = "bbans"


@dataclass(frozen=True)
class BitsBack(ArrayBytesCodec):
    """The codec, for chunks that are made of images of the model's shape: ``(n, 28, 28)``, say, or ``(n, 784)``.

    ``model`` is a name, a path or a loaded model. Elements are booleans, integers or floats, in whose type they come
    back. What zstandard makes less of, and chunks with values that the model doesn't have, it stores. Raises
    :class:`bbans.ModelError` if there is no such model, or one of another ``identity``, and :class:`bbans.ArrayError`
    for an array whose chunks or elements the model can't take.

    zarr codes many chunks at once, each in a thread of its own (``async.concurrency`` in its configuration). What is
    read of a chunk is all of it, so chunks are as large as what is mostly read, or lie in shards.
    """

    is_fixed_size = False

    model: str
    """The model's name."""
    identity: str
    """Of the model with this posterior, in hexadecimal digits."""
    posterior: str
    steps: int
    _source: str | bbans.Model | None = field(repr=False, compare=False)
    _loaded: Loaded = field(repr=False, compare=False)

    def __init__(
        self,
        model: str | os.PathLike[str] | bbans.Model,
        *,
        posterior: str | None = None,
        steps: int = 0,
        identity: str | None = None,
    ) -> None:
        loaded = load(model, posterior, steps, identity)
        self._set(loaded, model if isinstance(model, bbans.Model) else os.fspath(model))

    def _set(self, loaded: Loaded, source: str | bbans.Model | None) -> None:
        for name, value in loaded.setting.to_json().items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_loaded", loaded)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BitsBack:
        """The codec that an array's metadata describes."""
        if data.get("name") != NAME:
            raise bbans.ModelError(f"expected the configuration of codec {NAME}, got {data}")
        codec = object.__new__(cls)
        codec._set(load_setting(data.get("configuration") or {}), None)
        return codec

    def to_dict(self) -> dict[str, Any]:
        """What stands in the array's metadata."""
        return {"name": NAME, "configuration": self._loaded.setting.to_json()}

    def __reduce__(self) -> tuple[Callable[..., BitsBack], tuple[object, ...]]:
        """For other processes, which load the model from the same place."""
        if self._source is None:
            return BitsBack.from_dict, (self.to_dict(),)
        return _again, (self._source, self.posterior, self.steps, self.identity)

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raise :class:`bbans.ArrayError` unless the chunks of an array are made of images.

        Chunks of different shapes are looked at when they are coded.
        """
        model = self._loaded.model
        fallback = tuple(size or 1 for size in model.image_shape)
        model.check_images(getattr(chunk_grid, "chunk_shape", fallback), dtype.to_native_dtype())

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("how large a chunk becomes depends on what is in it")

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        array = chunk_data.as_numpy_array()
        return chunk_spec.prototype.buffer.from_bytes(self._loaded.codec(array.size).encode_chunk(array))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        shape, dtype = chunk_spec.shape, chunk_spec.dtype.to_native_dtype()
        self._loaded.model.check_images(shape, dtype)
        codec = self._loaded.codec(math.prod(shape))
        decoded = codec.decode_chunk(chunk_data.as_buffer_like(), shape, dtype)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(decoded)


def _again(source: str | bbans.Model, posterior: str, steps: int, identity: str) -> BitsBack:
    """A codec that was sent to another process."""
    return BitsBack(source, posterior=posterior, steps=steps, identity=identity)


register_codec(NAME, BitsBack)
