"""Storing through zstandard what no model codes better."""

from __future__ import annotations

import zstandard

from bbans.errors import FormatError

LEVEL = 19
QUICK_LEVEL = 3
NEAR = 0.7
"""What is below this share of what the quick level makes is taken to be better than the full level too."""


def store(data: bytes) -> bytes:
    """``data`` as a zstandard frame with its length and a checksum of the content."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def quick_size(data: bytes) -> int:
    """How many bytes the quick level makes of ``data``."""
    return len(zstandard.ZstdCompressor(level=QUICK_LEVEL).compress(data))


def stored_if_smaller(data: bytes, size: int, thorough: bool) -> bytes | None:
    """What :func:`store` makes of ``data``, if zstandard makes less than ``size`` bytes of it, or else None.

    The quick level decides, unless the comparison is to be ``thorough``: then the full level does.
    """
    quick = quick_size(data)
    if size < (NEAR * quick if thorough else quick):
        return None
    stored = store(data)
    return stored if len(stored) < size else None


def restore(payload: bytes, length: int) -> bytes:
    """The ``length`` bytes that :func:`store` was given.

    Raises :class:`bbans.errors.FormatError` if they are not that many, or damaged.
    """
    try:
        if zstandard.frame_content_size(payload) != length:
            raise FormatError(f"a stored chunk should hold {length} bytes and says otherwise: the file is damaged")
        return zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError as error:
        raise FormatError(f"a stored chunk is damaged: {error}") from error
