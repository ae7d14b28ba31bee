"""Keeps the offset and the identity of one log.

Between two polls a log may grow by whole lines or by half of one. It may be truncated by the next run's ``>``, deleted
and created again, rotated, or replaced by a file of the same name: often with the same inode, sometimes longer than
what was read before. Only its bytes tell. So every read begins before the offset, and compares the bytes there with
those read before. If somebody swaps two files that agree in these bytes, nothing notices.

:class:`Tailer` opens no file and reads no clock. Its owner asks the :class:`~exporter.sources.source.LogSource`, for
many logs at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from exporter.sources.source import LogStat, ReadRequest
from exporter.sources.tail_lines import LAST_BYTES, keep_last_bytes

ANCHOR_BYTES = 256
"""Bytes before the offset that are compared at each read: more than two lines, and little to keep for 10 000 logs."""

READ_BYTES = 1 << 20
"""Most bytes of one read, so that a big log does not keep the others waiting."""

_SLACK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of one read.

    Args:
        read: all bytes that were read, with the compared ones before the offset.
        start: index of the first new byte.
        replaced: whether this is another file than before; then the new bytes are from its beginning.
        more: whether the file held more at the last poll.
    """

    read: bytes
    start: int
    replaced: bool
    more: bool

    @property
    def data(self) -> bytes:
        """The new bytes; may be empty."""
        return self.read[self.start :]

    @property
    def size_bytes(self) -> int:
        """The number of new bytes."""
        return len(self.read) - self.start


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far a log has been read, with a digest of the last bytes read, by which the log is recognised again.

    Args:
        path: the log.
        offset: number of bytes that were read.
        before_bytes: number of digested bytes before the offset.
        before_sha256: their digest, in hexadecimal digits.
    """

    path: str
    offset: int
    before_bytes: int
    before_sha256: str


class Tailer:
    """Offset and identity of one log.

    :meth:`changed` says whether a read is needed, :meth:`request` which bytes to read, and :meth:`receive` takes them.

    Args:
        path: the log, as its source knows it.

    Attributes:
        offset: number of bytes that were read.
        last_bytes: the end of what was read (:mod:`exporter.sources.tail_lines`); compared at each read.
    """

    __slots__ = ("_asked", "_before", "_replaced", "_seen", "last_bytes", "offset", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.offset = 0
        self.last_bytes = b""
        self._before: LogPosition | None = None
        self._seen: LogStat | None = None
        self._asked: LogStat | None = None
        self._replaced = False

    @property
    def position(self) -> LogPosition:
        """How far the log has been read."""
        return LogPosition(self.path, self.offset, len(self.last_bytes), hashlib.sha256(self.last_bytes).hexdigest())

    @classmethod
    def at(cls, position: LogPosition) -> Tailer:
        """Return a tailer that continues at a position, if the log still holds the bytes before it."""
        tailer = cls(position.path)
        tailer.offset = position.offset
        tailer._before = position
        return tailer

    def changed(self, stat: LogStat) -> bool:
        """Return whether the log's stat differs from that of the last complete read."""
        return stat != self._seen

    def request(self, stat: LogStat) -> ReadRequest:
        """Return which bytes to read next.

        A size below the offset does not prove a truncation: network file systems report an old size for a while.

        Args:
            stat: the log's stat now.
        """
        self._asked = stat
        # A little more than the size, for what was written since the poll.
        expected = min(READ_BYTES, max(0, stat.size_bytes - self.offset) + _SLACK_BYTES)
        again = self._before.before_bytes if self._before is not None else min(ANCHOR_BYTES, len(self.last_bytes))
        return ReadRequest(self.path, self.offset - again, again + expected)

    def receive(self, data: bytes) -> Chunk | None:
        """Process the bytes of the last :meth:`request`.

        Args:
            data: the bytes that were read.

        Returns:
            The new bytes. ``None`` if the log was replaced: then request again, from its beginning.
        """
        assert self._asked is not None, "receive() answers a request()"
        before, self._before = self._before, None
        if before is not None:
            self.last_bytes = data[: before.before_bytes]
            if self.position != before:
                self.restart()
                return None
            data = data[before.before_bytes - len(self.last_bytes[-ANCHOR_BYTES:]) :]
        anchor = self.last_bytes[-ANCHOR_BYTES:]
        if not data.startswith(anchor):
            self.restart()
            return None
        start = len(anchor)
        new_bytes = len(data) - start
        if new_bytes:
            self.offset += new_bytes
            self.last_bytes = keep_last_bytes(self.last_bytes, data[max(start, len(data) - LAST_BYTES) :])
        more = self.offset < self._asked.size_bytes and new_bytes > 0
        if not more:
            self._seen = self._asked
        replaced, self._replaced = self._replaced, False
        return Chunk(data, start, replaced, more)

    def restart(self) -> None:
        """Read the log from its beginning next, as one that was replaced."""
        self.offset = 0
        self.last_bytes = b""
        self._before = None
        self._seen = None
        self._replaced = True
