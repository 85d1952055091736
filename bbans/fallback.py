"""Storing through zstandard what no model codes better."""

from __future__ import annotations

import zstandard

from bbans.errors import FormatError

LEVEL = 19
QUICK_LEVEL = 3
NEAR = 0.7
"""A payload below this share of what the quick level makes is better than the full level too."""


def store(data: bytes) -> bytes:
    """``data`` as a zstandard frame with its length and a checksum of the content."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def stored_if_smaller(data: bytes, payload: bytes) -> bytes | None:
    """``data`` as :func:`store` makes it, if that is smaller than ``payload``; tried only if it may be."""
    quick = len(zstandard.ZstdCompressor(level=QUICK_LEVEL).compress(data))
    if len(payload) < NEAR * quick:
        return None
    stored = store(data)
    return stored if len(stored) < len(payload) else None


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
