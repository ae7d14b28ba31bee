"""The work of a source's thread: poll what is due, read hints, and wait for the next of both."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from exporter.polling.poller import SourcePoller
from exporter.polling.schedule import PollScope
from exporter.sources.inotify import InotifyWatcher

_SHORTEST_PAUSE = 0.2
"""Of the interval: polls that take longer than it must not become a busy loop."""

_AFTER_ERROR_SECONDS = 1.0
"""Pause after an unexpected error, so that one that comes again at once costs little."""

_GATHER_SECONDS = 0.002
_GATHER_TIMES = 9
"""After a hinted poll, hints are gathered for nine times as long as the poll took, and for 2 ms at least. So a log that
is written as fast as possible takes a tenth of a core and not all of it."""


class SourceLoop:
    """Polls one source. :meth:`run_once` and :meth:`wait` take turns in the source's thread.

    Args:
        poller: polls the source.
        watcher: its hints end a wait; ``None`` for none.
        interval_seconds: between two polls of active logs.
        discover: finds beams by the names of logs; returns the seconds until it is due again. It calls its argument
            now and then, to poll hinted logs. ``None`` if beams are found elsewhere.
    """

    def __init__(
        self,
        poller: SourcePoller,
        watcher: InotifyWatcher | None,
        interval_seconds: float,
        discover: Callable[[Callable[[], object]], float] | None = None,
    ) -> None:
        self.poller = poller
        self._watcher = watcher
        self._shortest_pause = _SHORTEST_PAUSE * interval_seconds
        self._discover = discover
        self._gather_seconds = math.inf
        self._requests: deque[threading.Event] = deque()
        self._woken = threading.Event()

    def run_once(self) -> float:
        """Poll what is due, hinted or asked for.

        Returns:
            Seconds until the next poll is due.
        """
        try:
            discovery_wait = math.inf if self._discover is None else self._discover(self.poll_hinted)
            return min(self._poll(), discovery_wait)
        except Exception as error:  # noqa: BLE001 - whatever it is, the source is down; logged and counted
            self.poller.failed(error)
            return _AFTER_ERROR_SECONDS

    def _poll(self) -> float:
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        due = bool(requests) or self.poller.wait_seconds() <= 0
        # A due poll answers no hint, so it must not hold up those that follow.
        self._gather_seconds = 0.0
        if due:
            more = self.poller.poll(PollScope.ALL if requests else PollScope.DUE)
            for polled in requests:
                polled.set()
            return 0.0 if more else max(self._shortest_pause, self.poller.wait_seconds())
        began = time.monotonic()
        if self.poll_hinted():
            self._gather_seconds = max(_GATHER_SECONDS, _GATHER_TIMES * (time.monotonic() - began))
        return self.poller.wait_seconds()

    def poll_hinted(self) -> bool:
        """Poll hinted logs, also while the thread is busy with something else; return whether there were hints."""
        if self._watcher is None or not self._watcher.pending():
            return False
        self.poller.poll(PollScope.HINTED)
        return True

    def poll_all(self) -> threading.Event:
        """Ask for a poll of all logs now, from any thread.

        Returns:
            Set when that poll is over.
        """
        polled = threading.Event()
        self._requests.append(polled)
        self.wake()
        return polled

    def wait(self, seconds: float) -> None:
        """Wait for a hint, for :meth:`wake`, or until the time is over."""
        # A poll that raised has left its hints unread: they must not end this wait at once.
        gather, self._gather_seconds = self._gather_seconds, math.inf
        if self._watcher is not None:
            self._watcher.wait(seconds, gather)
        else:
            self._woken.wait(seconds)
            self._woken.clear()

    def wake(self) -> None:
        """End :meth:`wait`, or the next one if none is under way. May be called from any thread."""
        self._woken.set()
        if self._watcher is not None:
            self._watcher.wake()

    def close(self) -> None:
        """Close the watcher. The thread must have ended."""
        if self._watcher is not None:
            self._watcher.close()
