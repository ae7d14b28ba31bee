"""Following one log by size and modification time.

What a log does while we look elsewhere: it grows by whole lines or by half of one; it is truncated by the next run's
``>``; it is deleted and comes back; it is replaced by a file of the same name, often of the same inode, sometimes
longer than what we had read; it is rotated. Only its bytes tell: at every read the last bytes before our offset are
read again and compared. Two files that agree in them and are swapped between two looks cannot be told apart.

:class:`Tailer` opens no file and reads no clock: its owner asks the :class:`~exporter.sources.source.LogSource`,
so that many logs can be asked for at once. :class:`LocalLogTailer` and :class:`RemoteLogTailer` are the plan's blocking
iterators.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.logs.parser import LINE_LIMIT
from exporter.sources.embedding_arguments import (
    BadArgument,
    Logger,
    Reporter,
    described,
    log_path_text,
    seconds_or_none,
    shown,
)
from exporter.sources.local import LocalLogSource
from exporter.sources.source import LogProblem, LogSource, LogStat, ReadRequest, SourceUnavailable
from exporter.sources.tail_lines import LAST_BYTES, keep_last_bytes

if TYPE_CHECKING:
    import paramiko

ANCHOR_BYTES = 256
"""So many bytes before the offset are compared at each read: more than two lines, little to keep for 10 000 logs."""

READ_BYTES = 1 << 20
"""Most bytes asked for in one read, so that one big log takes its turn with the others."""

_SLACK_BYTES = 4096

LOCAL_POLL_SECONDS = 0.5
REMOTE_POLL_SECONDS = 1.0

_CANNOT_FOLLOW = "Log cannot be followed"
_LINE_END = re.compile(rb"\r\n|\n|\r")


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
class LogPosition:
    """How far a log has been read. It is known again by its bytes before the offset; only their digest is kept.

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


class Tailer:
    """Offset and identity of one log.

    Usage: :meth:`changed` says whether a look is worth a read, :meth:`request` which bytes to ask for, :meth:`receive`
    what they mean.

    Args:
        path: the log, as its source knows it.

    Attributes:
        offset: how many bytes of it have been read.
        last_bytes: the last lines (:mod:`exporter.sources.tail_lines`); their end is compared at each read.
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
        """Where it is."""
        return LogPosition(self.path, self.offset, len(self.last_bytes), hashlib.sha256(self.last_bytes).hexdigest())

    @classmethod
    def at(cls, position: LogPosition) -> Tailer:
        """Return a tailer that goes on there if the log still holds the bytes before; they are read again first."""
        tailer = cls(position.path)
        tailer.offset = position.offset
        tailer._before = position
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
        again = self._before.before_bytes if self._before is not None else min(ANCHOR_BYTES, len(self.last_bytes))
        return ReadRequest(self.path, self.offset - again, again + expected)

    def receive(self, data: bytes) -> Chunk | None:
        """Take the answer to the last :meth:`request`.

        Args:
            data: the bytes that were read.

        Returns:
            What they bring, or ``None`` where they show that the log was replaced: then ask again.
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
        """Read the log from its beginning, as one that has been replaced."""
        self.offset = 0
        self.last_bytes = b""
        self._before = None
        self._seen = None
        self._replaced = True


class FollowControl:
    """Ends a :class:`LineFollower` from other threads, and tells them when it has polled first."""

    def __init__(self) -> None:
        self.polled = threading.Event()
        self.stopped = False
        self.finishing = False
        self._wake = threading.Event()

    def stop(self) -> None:
        """End at once: at the next line, or after the poll that is under way."""
        self.stopped = True
        self._wake.set()

    def finish(self) -> None:
        """End after one more poll."""
        self.finishing = True
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Wait until the next poll is due, or one of the above is called."""
        self._wake.wait(seconds)


class LineFollower:
    """The lines of one log as they are completed, for a thread that has nothing else to do.

    Args:
        source: where the log is; closed when following ends.
        path: the log; it need not exist yet.
        reporter: told once about each problem: a log that does not appear or cannot be read, a lost connection.
        poll_interval: seconds between two polls.
        on_replaced: called before the first line of a log that has taken the place of the one read before.
        skip_existing: yield nothing of what stands in the log at the first poll.
        control: ends following; one of its own where none is given.
    """

    def __init__(
        self,
        source: LogSource,
        path: str,
        reporter: Reporter,
        poll_interval: float,
        on_replaced: Callable[[], None] = lambda: None,
        *,
        skip_existing: bool = False,
        control: FollowControl | None = None,
    ) -> None:
        self._source = source
        self._tailer = Tailer(path)
        self._reporter = reporter
        self._poll_interval = poll_interval
        self._on_replaced = on_replaced
        self._skip_existing = skip_existing
        self.control = control if control is not None else FollowControl()
        self._unfinished = b""
        self._after_return = False
        self._seen = False
        self._troubled = False

    def follow(self, timeout: float | None) -> Iterator[str]:
        """Yield complete lines until ``timeout`` seconds have passed or :attr:`control` ends it.

        Args:
            timeout: seconds in all; 0 or less for one poll; ``None`` for no limit.
        """
        seconds = self._seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        control = self.control
        try:
            while not control.stopped:
                last = control.finishing
                skip = self._skip_existing and not control.polled.is_set()
                for line in self._new_lines():
                    if control.stopped:
                        return
                    if not skip:
                        yield line
                control.polled.set()
                wait = self._poll_interval if deadline is None else deadline - time.monotonic()
                if wait <= 0 and not (self._seen or self._troubled):
                    self._warn(f"no log at {self._tailer.path} within {seconds:g} s; check the path")
                if wait <= 0 or last:
                    return
                control.pause(min(wait, self._poll_interval))
        finally:
            # What goes wrong here concerns a source that is not used any more.
            with contextlib.suppress(Exception):
                self._source.close()

    def _new_lines(self) -> Iterator[str]:
        """Lines completed since the last poll."""
        for chunk in self._read():
            self._seen = True
            if chunk.replaced:
                self._unfinished, self._after_return = b"", False
                self._on_replaced()
            yield from self._lines(chunk.data)

    def _seconds(self, timeout: float | None) -> float | None:
        try:
            return seconds_or_none(timeout, "timeout")
        except BadArgument as error:
            reason = f"{error}. The log is followed until stop() is called"
            self._reporter.error("Timeout cannot be used", {"path": self._tailer.path, "error": reason})
            return None

    def _read(self) -> Iterator[Chunk]:
        """What has been written since the last poll, a chunk at a time."""
        path = self._tailer.path
        try:
            stat = self._source.stat([path]).get(path)
            if isinstance(stat, LogProblem):
                raise stat
            if stat is None or not self._tailer.changed(stat):
                return
            more = True
            while more and not self.control.stopped:
                [data] = self._source.read([self._tailer.request(stat)])
                if isinstance(data, LogProblem):
                    raise data
                chunk = self._tailer.receive(data)
                if chunk is not None:
                    more = chunk.more
                    yield chunk
            self._reporter.is_over(_CANNOT_FOLLOW)
        except (LogProblem, SourceUnavailable) as problem:
            self._warn(str(problem))
        except Exception as error:  # noqa: BLE001 - a client of the caller's may raise anything; logged, tried again
            self._warn(f"{described(error)}; it is tried again at each poll")

    def _lines(self, data: bytes) -> Iterator[str]:
        r"""Lines completed by ``data``; a line ends with ``\n``, ``\r\n`` or ``\r``."""
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]  # the second half of a \r\n whose first half came with the data before
        self._after_return = data.endswith(b"\r")
        *complete, unfinished = _LINE_END.split(self._unfinished + data)
        self._unfinished = unfinished[:LINE_LIMIT]
        for line in complete:
            yield line[:LINE_LIMIT].decode("utf-8", "replace")

    def _warn(self, problem: str) -> None:
        self._troubled = True
        self._reporter.warning(_CANNOT_FOLLOW, {"path": self._tailer.path, "error": problem})


class _LogTailer:
    """What both tailers share.

    Args:
        lines: follows the log.
    """

    def __init__(self, lines: LineFollower) -> None:
        self._lines = lines

    def tail(self, timeout: float | None = None) -> Iterator[str]:
        """Yield complete lines, from the beginning of the log on and again from its beginning when it is replaced.

        Args:
            timeout: seconds after which to end, in all; 0 or less for one poll; ``None`` for never.

        Yields:
            Lines without their ends, decoded as UTF-8 with replacement.
        """
        return self._lines.follow(timeout)

    def stop(self) -> None:
        """End :meth:`tail` at its next poll, from any thread."""
        self._lines.control.stop()


class LocalLogTailer(_LogTailer):
    """Yields the lines of one local log as they are completed (the plan's phase 4).

    Args:
        log_path: the log; it need not exist yet.
        logger: told about each problem once; ``None`` for the standard logger ``exporter.embedding``.
        poll_interval: seconds between two polls.

    Raises:
        ValueError: ``log_path`` is no path, or ``poll_interval`` no number of seconds.
    """

    def __init__(
        self,
        log_path: str | bytes | os.PathLike[str],
        logger: Logger | logging.Logger | None = None,
        poll_interval: float = LOCAL_POLL_SECONDS,
    ) -> None:
        path, interval = log_path_text(log_path), _interval(poll_interval)
        super().__init__(LineFollower(LocalLogSource("local"), path, Reporter(logger), interval))


class RemoteLogTailer(_LogTailer):
    """The same for a log on another host (the plan's phase 4), over SFTP: no command is executed there.

    Args:
        ssh_client: a connected client; it stays the caller's.
        remote_log_path: the log, as an absolute path on the host; it need not exist yet.
        logger: told about each problem once, a lost connection among them; ``None`` for the standard logger
            ``exporter.embedding``.
        poll_interval: seconds between two polls.

    Raises:
        ValueError: ``remote_log_path`` is no path, ``ssh_client`` no client, or ``poll_interval`` no number of seconds.
    """

    def __init__(
        self,
        ssh_client: paramiko.SSHClient,
        remote_log_path: str | bytes | os.PathLike[str],
        logger: Logger | logging.Logger | None = None,
        poll_interval: float = REMOTE_POLL_SECONDS,
    ) -> None:
        path, interval = log_path_text(remote_log_path), _interval(poll_interval)
        super().__init__(LineFollower(client_source(ssh_client), path, Reporter(logger), interval))


def client_source(ssh_client: paramiko.SSHClient) -> LogSource:
    """Logs on the host that a client is connected to.

    Raises:
        BadArgument: it is no client.
    """
    # Here, since only those who read logs on other hosts should pay for its libraries: 16 MiB.
    from exporter.sources.ssh.source import ClientLogSource

    if not callable(getattr(ssh_client, "get_transport", None)):
        raise BadArgument(f"ssh_client is {shown(ssh_client)}; pass a connected paramiko.SSHClient")
    return ClientLogSource(ssh_client)


def _interval(poll_interval: float) -> float:
    seconds = seconds_or_none(poll_interval, "poll_interval")
    if not seconds:
        raise BadArgument(f"poll_interval is {shown(poll_interval)}; pass a number of seconds above 0")
    return seconds
