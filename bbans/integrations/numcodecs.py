"""bbans as a codec of numcodecs, for zarr v2 and all else that takes these.

    zarr.create_array(store, data=images, chunks=(1000, 28, 28), zarr_format=2, compressors=BitsBack("mnist"))

An encoded buffer describes itself, model aside: see "Buffers of numcodecs" in ``docs/format.md``.
"""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

import bbans
from bbans.integrations.loading import load, load_setting

try:
    from numcodecs.abc import Codec
    from numcodecs.compat import ensure_contiguous_ndarray, ensure_ndarray
    from numcodecs.registry import register_codec
except ImportError as error:
    raise ImportError(
        f"bbans.integrations.numcodecs needs numcodecs, pip install 'bbans[numcodecs]': {error}"
    ) from error

START = struct.Struct("<B4s")
"""Number of axes, plus 128 in Fortran order; type of the elements, filled up with zeros."""
FORTRAN = 128


class BitsBack(Codec):
    """The codec, for arrays of images of the model's shape: ``(n, 28, 28)``, say, or ``(n, 784)``.

    ``model`` is a name, a path or a loaded model. Raises :class:`bbans.ModelError` if there is no such model, or one of
    another ``identity``.

    >>> import bbans, numcodecs
    >>> images = bbans.sample_images(bbans.load_model("gg-mnist-binary"), 5)
    >>> codec = BitsBack("gg-mnist-binary")
    >>> bool((codec.decode(codec.encode(images)) == images).all())
    True
    >>> numcodecs.get_codec(codec.get_config()) == codec
    True
    """

    codec_id = "bbans"

    def __init__(
        self,
        model: str | os.PathLike[str] | bbans.Model,
        *,
        posterior: str | None = None,
        steps: int = 0,
        identity: str | None = None,
    ) -> None:
        self._loaded = load(model, posterior, steps, identity)
        self._source: Any = model if isinstance(model, bbans.Model) else os.fspath(model)

    def encode(self, buf: Any) -> bytes:
        """Images, in C or Fortran order, to bytes; :class:`bbans.ArrayError` if they are not the model's images."""
        array = ensure_ndarray(buf)
        self._loaded.model.check_images(array.shape, array.dtype)
        fortran = FORTRAN if array.flags.f_contiguous and not array.flags.c_contiguous else 0
        dtype = array.dtype.str.encode("ascii")
        head = START.pack(array.ndim + fortran, dtype) + struct.pack(f"<{array.ndim}I", *array.shape)
        return head + self._loaded.codec(array.size).encode_chunk(array)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The images, of the shape, type and order they had; or ``out``, a buffer of as many bytes, with them in it.

        Raises :class:`bbans.FormatError` if ``buf`` is damaged, and :class:`bbans.ArrayError` if ``out`` doesn't fit.
        """
        data = memoryview(ensure_contiguous_ndarray(buf)).cast("B")
        shape, dtype, fortran, start = _read_head(data)
        model = self._loaded.model
        try:
            model.check_images(shape, dtype)
        except bbans.ArrayError as error:
            raise bbans.FormatError(f"the buffer is damaged, or of another model: {error}") from error
        order: Any = "F" if fortran else "C"
        array = np.empty(shape, dtype, order) if out is None else _room(out, shape, dtype, order)
        self._loaded.codec(array.size).decode_chunk(data[start:], shape, dtype, array)
        return array if out is None else out

    def get_config(self) -> dict[str, Any]:
        """The configuration, for JSON."""
        return {"id": self.codec_id, **self._loaded.setting.to_json()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BitsBack:
        """The codec of a configuration, whose model's name is not taken for a path."""
        codec = cls.__new__(cls)
        codec._loaded = load_setting({key: value for key, value in config.items() if key != "id"})
        codec._source = None
        return codec

    def __repr__(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in self._loaded.setting.to_json().items())
        return f"BitsBack({fields})"

    def __hash__(self) -> int:
        return hash(self._loaded.setting)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        """For other processes, which load the model from the same place."""
        if self._source is None:
            return BitsBack.from_config, (self.get_config(),)
        setting = self._loaded.setting
        return _again, (self._source, setting.posterior, setting.steps, setting.identity)


def _again(source: str | bbans.Model, posterior: str, steps: int, identity: str) -> BitsBack:
    """A codec that was sent to another process."""
    return BitsBack(source, posterior=posterior, steps=steps, identity=identity)


def _read_head(data: memoryview) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, type, order and where the chunk begins."""
    try:
        first, name = START.unpack_from(data)
        shape = struct.unpack_from(f"<{first % FORTRAN}I", data, START.size)
        return shape, np.dtype(name.rstrip(b"\0").decode("ascii")), first >= FORTRAN, START.size + 4 * len(shape)
    except (struct.error, TypeError, ValueError) as error:
        raise bbans.FormatError(f"not a buffer that codec bbans has encoded, or damaged: {error}") from error


def _room(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], order: Any) -> NDArray[Any]:
    """``out`` as the array that is to be decoded; :class:`bbans.ArrayError` if it isn't just as large."""
    try:
        flat = np.frombuffer(memoryview(ensure_contiguous_ndarray(out)).cast("B"), np.uint8)
        if not flat.flags.writeable:
            raise ValueError("it can't be written to")
        return flat.view(dtype).reshape(shape, order=order)
    except (TypeError, ValueError) as error:
        raise bbans.ArrayError(f"out= must be a buffer for {dtype} {shape}: {error}") from error


register_codec(BitsBack)
