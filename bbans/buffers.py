"""Bytes in memory, whatever holds them, as a file that is read without a copy of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, cast

from bbans.errors import ArrayError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def flat_view(data: Buffer) -> memoryview:
    """The bytes of what has the buffer protocol; :class:`bbans.errors.ArrayError` if it has gaps, or hasn't."""
    try:
        return memoryview(data).cast("B")
    except (TypeError, BufferError) as error:
        raise ArrayError(
            f"expected bytes, or what holds them in one piece, got {type(data).__name__}: {error}"
        ) from error


def open_buffer(data: Buffer) -> BinaryIO:
    """A file to read in what has the buffer protocol: bytes, a memoryview, an array, mapped memory."""
    return cast(BinaryIO, _BufferFile(data))


class _BufferFile(io.RawIOBase):
    def __init__(self, data: Buffer) -> None:
        self._data = flat_view(data)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, out: Buffer, /) -> int:
        found = self._data[self._position : self._position + len(memoryview(out))]
        memoryview(out)[: len(found)] = found
        self._position += len(found)
        return len(found)

    def close(self) -> None:
        """Let go of the data."""
        self._data = memoryview(b"")
        super().close()
