"""Follows the lines of one log, for a thread that has nothing else to do.

:class:`LocalLogTailer` and :class:`RemoteLogTailer` are the blocking iterators of the development plan.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
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
from exporter.sources.source import LogProblem, LogSource, SourceUnavailable
from exporter.sources.tailer import Chunk, Tailer

if TYPE_CHECKING:
    import paramiko

LOCAL_POLL_SECONDS = 0.5
REMOTE_POLL_SECONDS = 1.0

_CANNOT_FOLLOW = "Log cannot be followed"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class FollowControl:
    """Ends a :class:`LineFollower` from other threads.

    Attributes:
        polled: set after the first poll.
    """

    def __init__(self) -> None:
        self.polled = threading.Event()
        self.stopped = False
        self.finishing = False
        self._wake = threading.Event()

    def stop(self) -> None:
        """End at the next line, or after the poll that is under way."""
        self.stopped = True
        self._wake.set()

    def finish(self) -> None:
        """End after one more poll."""
        self.finishing = True
        self._wake.set()

    def pause(self, seconds: float) -> None:
        """Wait so long, or until :meth:`stop` or :meth:`finish` is called."""
        self._wake.wait(seconds)


class LineFollower:
    """Yields the lines of one log as they are completed.

    Args:
        source: where the log is; closed at the end.
        path: the log; it need not exist yet.
        reporter: logs each problem once: a log that does not appear or cannot be read, a lost connection.
        poll_interval: seconds between two polls.
        on_replaced: called before the first line of a log that has replaced the one before.
        skip_existing: whether to leave out what stands in the log at the first poll.
        control: ends following; ``None`` for a new one.
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
            # An error here does not matter: the source is not used any more.
            with contextlib.suppress(Exception):
                self._source.close()

    def _new_lines(self) -> Iterator[str]:
        """Poll, and yield the lines completed since the last poll."""
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
        """Yield what was written since the last poll, chunk by chunk."""
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
        r"""Yield the lines that ``data`` completes. A line ends with ``\n``, ``\r\n`` or ``\r``."""
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
    """Base of both tailers.

    Args:
        lines: follows the log.
    """

    def __init__(self, lines: LineFollower) -> None:
        self._lines = lines

    def tail(self, timeout: float | None = None) -> Iterator[str]:
        """Yield complete lines from the beginning of the log, and again from its beginning when it is replaced.

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
    """Yields the lines of one local log as they are completed (development plan, phase 4).

    Args:
        log_path: the log; it need not exist yet.
        logger: gets each problem once; ``None`` for the standard logger ``exporter.embedding``.
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
    """Yields the lines of a log on another host over SFTP (development plan, phase 4). It executes no command there.

    Args:
        ssh_client: a connected client; it stays the caller's.
        remote_log_path: the log, as an absolute path on the host; it need not exist yet.
        logger: gets each problem once, also a lost connection; ``None`` for the standard logger
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
    """Return the logs on the host that a client is connected to.

    Raises:
        BadArgument: it is no client.
    """
    # Imported here: its libraries take 16 MiB, and only those who read logs on other hosts need them.
    from exporter.sources.ssh.source import ClientLogSource

    if not callable(getattr(ssh_client, "get_transport", None)):
        raise BadArgument(f"ssh_client is {shown(ssh_client)}; pass a connected paramiko.SSHClient")
    return ClientLogSource(ssh_client)


def _interval(poll_interval: float) -> float:
    seconds = seconds_or_none(poll_interval, "poll_interval")
    if not seconds:
        raise BadArgument(f"poll_interval is {shown(poll_interval)}; pass a number of seconds above 0")
    return seconds
