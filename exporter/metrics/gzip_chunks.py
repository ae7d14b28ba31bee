"""Text compressed in pieces, so that an answer can be put together of what is kept.

A piece ends with a full flush, which makes it independent of the pieces around it, and the checksum that gzip wants of
the whole is combined from the pieces'.

Compressing lets go of the interpreter's lock, so other threads get their turn after each piece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from isal import igzip, isal_zlib

_LEVEL = 1
"""Of compression: the slowest takes four times as long and saves nothing of what this one leaves."""
_SMALL_BYTES = 1 << 18
"""Less is compressed anew as a whole: pieces of a few lines each come out three times as large as they could."""
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LAST_BLOCK = b"\x03\x00"
_RAW = -isal_zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text, compressed such that pieces can be strung together.

    Args:
        deflated: a raw deflate stream without its end.
        crc: of the text.
        size_bytes: of the text.
    """

    deflated: bytes
    crc: int
    size_bytes: int


_NOTHING = Piece(b"", 0, 0)


class Compressor:
    """Makes pieces, one after the other; making one of these costs as much as a short piece does."""

    def __init__(self) -> None:
        self._stream = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _RAW)

    def piece(self, text: str | bytes) -> Piece:
        """A piece of this text."""
        data = text if isinstance(text, bytes) else text.encode()
        if not data:
            return _NOTHING
        deflated = self._stream.compress(data) + self._stream.flush(isal_zlib.Z_FULL_FLUSH)
        return Piece(deflated, isal_zlib.crc32(data), len(data))


def strung(pieces: Iterable[Piece]) -> Piece:
    """Pieces one after the other as one."""
    every = list(pieces)
    crc = 0
    for piece in every:
        crc = isal_zlib.crc32_combine(crc, piece.crc, piece.size_bytes)
    return Piece(b"".join([piece.deflated for piece in every]), crc, sum(piece.size_bytes for piece in every))


def gzipped(piece: Piece) -> bytes:
    """A piece as a gzip stream of one member."""
    if piece.size_bytes < _SMALL_BYTES:
        return igzip.compress(plain(piece), _LEVEL, mtime=0)
    trailer = struct.pack("<LL", piece.crc, piece.size_bytes & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, piece.deflated, _LAST_BLOCK, trailer))


def plain(piece: Piece) -> bytes:
    """A piece as it is without compression."""
    return isal_zlib.decompress(piece.deflated + _LAST_BLOCK, _RAW, max(1, piece.size_bytes))
