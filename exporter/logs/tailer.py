"""Following one log by size and modification time.

What a log does while we look elsewhere: it grows by whole lines or by half of one; it is truncated by the next run's
``>``; it is deleted and comes back; it is replaced by a file of the same name, often of the same inode, sometimes
longer than what we had read; it is rotated. Only its bytes tell: at every read the last bytes before our offset are
read again and compared. Two files that agree in them and are swapped between two looks cannot be told apart.

:class:`Tailer` opens no file and asks no clock: a :class:`~exporter.logs.source.LogSource` is asked by whoever owns it,
so that many logs can be asked for at once. :class:`LocalLogTailer` and :class:`RemoteLogTailer` are the plan's blocking
iterators.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from exporter.logs.local import LocalSource
from exporter.logs.parser import LINE_LIMIT
from exporter.logs.recent import RECENT_BYTES, recent_bytes
from exporter.logs.source import LogProblem, LogSource, LogStat, ReadRequest, SourceUnavailable

if TYPE_CHECKING:
    import paramiko

ANCHOR_BYTES = 256
"""So many bytes before the offset are compared at each read: more than two lines, little to keep for 10 000 logs."""

READ_BYTES = 1 << 20
"""Most bytes asked for in one read, so that one big log takes its turn with the others."""

_SLACK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read has brought.

    Args:
        read: the bytes as they were read, those compared with what was read before included.
        start: where the new ones begin among them.
        replaced: the file is another than before, and ``data`` is from its beginning.
        more: there was more to read when the file was looked at.
    """

    read: bytes
    start: int
    replaced: bool
    more: bool

    @property
    def data(self) -> bytes:
        """The new bytes, empty where there are none."""
        return self.read[self.start :]

    @property
    def size_bytes(self) -> int:
        """How many bytes are new."""
        return len(self.read) - self.start


@dataclass(frozen=True, slots=True)
class TailerState:
    """A :class:`Tailer` as plain data. A log is known again by its bytes before the offset; only their digest is kept.

    Args:
        path: the log.
        offset: how many of its bytes have been read.
        before_bytes: so many bytes before the offset were digested.
        before_sha256: their digest, in hexadecimal digits.
    """

    path: str
    offset: int
    before_bytes: int
    before_sha256: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a tailer is; cheap enough to be made at every read."""

    path: str
    offset: int
    recent: bytes

    def to_state(self) -> TailerState:
        """The same as plain data."""
        return TailerState(self.path, self.offset, len(self.recent), hashlib.sha256(self.recent).hexdigest())


class Tailer:
    """Offset and identity of one log.

    Usage: :meth:`changed` says whether a look is worth a read, :meth:`request` which bytes to ask for, :meth:`take`
    what they mean.

    Args:
        path: the log, as its source knows it.

    Attributes:
        offset: how many bytes of it have been read.
        recent: the last of them, for people (:mod:`exporter.logs.recent`); the very last are compared at each read.
    """

    __slots__ = ("_asked", "_before", "_replaced", "_seen", "offset", "path", "recent")

    NOT_SAVED = frozenset({"recent", "_before", "_seen", "_asked", "_replaced"})
    """What was read before is read again and compared at the first look, however the log looks then."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.offset = 0
        self.recent = b""
        self._before: TailerState | None = None
        self._seen: LogStat | None = None
        self._asked: LogStat | None = None
        self._replaced = False

    def mark(self) -> Mark:
        """Where it is."""
        return Mark(self.path, self.offset, self.recent)

    @classmethod
    def from_state(cls, state: TailerState) -> Tailer:
        """A tailer that goes on where the one was whose state this is, if the log still holds the bytes read then."""
        tailer = cls(state.path)
        tailer.offset = state.offset
        tailer._before = state
        return tailer

    def changed(self, stat: LogStat) -> bool:
        """The log looks other than after the last complete read."""
        return stat != self._seen

    def request(self, stat: LogStat) -> ReadRequest:
        """The next bytes to read, given how the log looks now.

        A size below the offset proves nothing either: network file systems tell an old one for a while.
        """
        self._asked = stat
        # A little more than the look showed: what was written since then comes along.
        expected = min(READ_BYTES, max(0, stat.size_bytes - self.offset) + _SLACK_BYTES)
        again = self._before.before_bytes if self._before is not None else min(ANCHOR_BYTES, len(self.recent))
        return ReadRequest(self.path, self.offset - again, again + expected)

    def take(self, data: bytes) -> Chunk | None:
        """Take the answer to the last :meth:`request`.

        Args:
            data: the bytes that were read.

        Returns:
            What they bring, or ``None`` where they show that the log was replaced: then ask again.
        """
        assert self._asked is not None, "take() answers a request()"
        before, self._before = self._before, None
        if before is not None:
            self.recent = data[: before.before_bytes]
            if self.mark().to_state() != before:
                self.start_again()
                return None
            data = data[before.before_bytes - len(self.recent[-ANCHOR_BYTES:]) :]
        anchor = self.recent[-ANCHOR_BYTES:]
        if not data.startswith(anchor):
            self.start_again()
            return None
        start = len(anchor)
        new_bytes = len(data) - start
        if new_bytes:
            self.offset += new_bytes
            self.recent = recent_bytes(self.recent, data[max(start, len(data) - RECENT_BYTES) :])
        more = self.offset < self._asked.size_bytes and new_bytes > 0
        if not more:
            self._seen = self._asked
        replaced, self._replaced = self._replaced, False
        return Chunk(data, start, replaced, more)

    def start_again(self) -> None:
        """Read the log from its beginning, as one that has been replaced."""
        self.offset = 0
        self.recent = b""
        self._before = None
        self._seen = None
        self._replaced = True


class Logger(Protocol):
    """What the embedding program gives us to log with: the communicator's own logger fits."""

    def info(self, message: str, context: Mapping[str, Any], /) -> Any: ...

    def warning(self, message: str, context: Mapping[str, Any], /) -> Any: ...

    def error(self, message: str, context: Mapping[str, Any], /) -> Any: ...


class LineFollower:
    """The lines of one log as they are completed, for a thread that has nothing else to do.

    Args:
        source: where the log is.
        path: the log; it need not exist yet.
        logger: told once about a log that does not appear or cannot be read; optional.
        poll_interval: seconds between two looks.
        on_replaced: called before the first line of a log that has taken the place of the one read before.
    """

    def __init__(
        self,
        source: LogSource,
        path: str,
        logger: Logger | None,
        poll_interval: float,
        on_replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._tailer = Tailer(path)
        self._logger = logger
        self._poll_interval = poll_interval
        self._on_replaced = on_replaced
        self._stopped = threading.Event()
        self._unfinished = b""
        self._complaint: str | None = None

    def stop(self) -> None:
        """End :meth:`follow` at its next look, from any thread."""
        self._stopped.set()

    def follow(self, timeout: float | None) -> Iterator[str]:
        """Yield complete lines until ``timeout`` seconds have passed or :meth:`stop` is called."""
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = False
        while not self._stopped.is_set():
            for chunk in self._read():
                seen = True
                if chunk.replaced:
                    self._unfinished = b""
                    self._on_replaced()
                yield from self._lines(chunk.data)
                if self._stopped.is_set():
                    return
            wait = self._poll_interval
            if deadline is not None:
                wait = min(wait, deadline - time.monotonic())
                if wait <= 0:
                    if not seen:
                        self._warn(f"no log at {self._tailer.path} within {timeout} s")
                    return
            self._stopped.wait(wait)

    def _read(self) -> Iterator[Chunk]:
        """What has been written since the last look, a chunk at a time."""
        path = self._tailer.path
        try:
            stat = self._source.stat([path]).get(path)
            if isinstance(stat, LogProblem):
                raise stat
            if stat is None or not self._tailer.changed(stat):
                return
            more = True
            while more:
                [data] = self._source.read([self._tailer.request(stat)])
                if isinstance(data, LogProblem):
                    raise data
                chunk = self._tailer.take(data)
                if chunk is not None:
                    more = chunk.more
                    yield chunk
            self._complaint = None
        except (LogProblem, SourceUnavailable) as problem:
            self._warn(str(problem))

    def _lines(self, data: bytes) -> Iterator[str]:
        *complete, self._unfinished = (self._unfinished + data).split(b"\n")
        self._unfinished = self._unfinished[:LINE_LIMIT]
        for line in complete:
            yield line[:LINE_LIMIT].rstrip(b"\r").decode("utf-8", "replace")

    def _warn(self, complaint: str) -> None:
        """Say it once, not at every look."""
        if self._logger is not None and complaint != self._complaint:
            context = {"path": self._tailer.path, "error": complaint}
            self._logger.warning("Log cannot be followed", context)
        self._complaint = complaint


class LocalLogTailer:
    """Yields the lines of one local log as they are completed (the plan's phase 4).

    Args:
        log_path: the log; it need not exist yet.
        logger: told about a log that does not appear or cannot be read; optional.
        poll_interval: seconds between two looks.
    """

    def __init__(self, log_path: Path | str, logger: Logger | None = None, poll_interval: float = 0.5) -> None:
        self._logger = logger
        self._lines = LineFollower(LocalSource("local"), str(log_path), logger, poll_interval)

    def tail(self, timeout: float | None = None) -> Iterator[str]:
        """Yield complete lines, from the beginning of the log on and again from its beginning when it is replaced.

        Args:
            timeout: seconds after which to end, in all; ``None`` for never.

        Yields:
            Lines without their ends, decoded as UTF-8 with replacement.
        """
        return self._lines.follow(timeout)

    def stop(self) -> None:
        """End :meth:`tail` at its next look, from any thread."""
        self._lines.stop()


class RemoteLogTailer:
    """The same for a log on another host (the plan's phase 4), over SFTP: no command is executed there.

    Args:
        ssh_client: a connected client; it stays the caller's.
        remote_log_path: the log, as an absolute path on the host; it need not exist yet.
        logger: told about a log that does not appear or cannot be read, and about a connection that is lost; optional.
        poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        ssh_client: paramiko.SSHClient,
        remote_log_path: str,
        logger: Logger | None = None,
        poll_interval: float = 1.0,
    ) -> None:
        # Here, since only those who read logs on other hosts should pay for its libraries: 16 MiB.
        from exporter.logs.ssh import ClientSource

        self._lines = LineFollower(ClientSource(ssh_client), remote_log_path, logger, poll_interval)

    def tail(self, timeout: float | None = None) -> Iterator[str]:
        """See :meth:`LocalLogTailer.tail`."""
        return self._lines.follow(timeout)

    def stop(self) -> None:
        """End :meth:`tail` at its next look, from any thread."""
        self._lines.stop()
