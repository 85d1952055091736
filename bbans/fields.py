"""The fields that headers are made of: integers and names, each of which is written in one way only."""

from __future__ import annotations

from collections.abc import Callable

from bbans.errors import FormatError

VARINT_BYTES_MAXIMUM = 9
STRING_BYTES_MAXIMUM = 255


class FieldReader:
    """Reads fields one after the other, and refuses to read beyond their end.

    Its methods raise :class:`bbans.errors.FormatError`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        taken = self._data[self._position : self._position + count]
        if len(taken) != count:
            raise FormatError("a field reaches beyond the end of its part: the file is damaged")
        self._position += count
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        return decode_varint(self.take)

    def string(self) -> str:
        try:
            return self.take(self.byte()).decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError("a name is not UTF-8: the file is damaged") from None

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._position)

    def finish(self) -> None:
        """Refuse bytes that are left over."""
        if self._position != len(self._data):
            raise FormatError("bytes are left over after the last field: the file is damaged")


def string(text: str) -> bytes:
    """A byte with the length, and UTF-8; :class:`bbans.errors.FormatError` if it is too long for that."""
    data = text.encode("utf-8")
    if len(data) > STRING_BYTES_MAXIMUM:
        raise FormatError(f"a name of {len(data)} bytes does not fit in a file: {STRING_BYTES_MAXIMUM} at most")
    return bytes([len(data)]) + data


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the top bit set on all bytes but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(take: Callable[[int], bytes]) -> int:
    """The integer that :func:`varint` wrote, from bytes that ``take`` gives."""
    value = 0
    for place in range(VARINT_BYTES_MAXIMUM):
        byte = take(1)[0]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if byte == 0 and place:
                raise FormatError("a number is written longer than it needs to be: the file is damaged")
            return value
    raise FormatError("a number is too large: the file is damaged")
