"""A worker thread that repeats one step and survives its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)

_OVERDUE_SECONDS = 60.0
"""A step that is later than this makes the process unhealthy."""
_AFTER_ERROR_SECONDS = 1.0
"""Wait after an unexpected error, so that an error that repeats at once costs little."""


class Waiter(Protocol):
    """Waits until a time-out or a wake-up."""

    def wait(self, seconds: float, /) -> None:
        """Wait at most ``seconds``."""

    def wake(self) -> None:
        """End the current or else the next wait. Any thread may call this."""


class Worker:
    """Calls ``step`` repeatedly in a thread of its own. An exception is logged and counted, and the thread goes on.

    Args:
        name: name of the thread, also for log lines and the label ``where`` of ``mqi_exporter_errors_total``.
        step: one step of the work; returns the seconds to wait before the next.
        count_error: called with the name if a step raises.
        clock: monotonic clock in seconds.
        waiter: waits between two steps; ``None`` to wait for :meth:`wake` only.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        count_error: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        waiter: Waiter | None = None,
    ) -> None:
        self.name = name
        self._step = step
        self._count_error = count_error
        self._clock = clock
        self._waiter = waiter
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._due_at = clock()
        self._last_error: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after the current step."""
        self._stopped.set()
        self._woken.set()
        if self._waiter is not None:
            self._waiter.wake()

    def wake(self) -> None:
        """Start the next step now. This does not shorten the wait after an error."""
        self._woken.set()

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the thread to end.

        Returns:
            Whether it has ended.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def problem(self) -> str | None:
        """Why the thread does not work; ``None`` if it does."""
        if not self._thread.is_alive():
            return f"the thread {self.name} has ended"
        overdue = self._clock() - self._due_at
        return f"the thread {self.name} is {overdue:.0f} s late" if overdue > _OVERDUE_SECONDS else None

    def _run(self) -> None:
        while True:
            # Clear before the check: a wake() or stop() from now on ends the wait below.
            self._woken.clear()
            if self._stopped.is_set():
                return
            waiter: Waiter | threading.Event = self._waiter or self._woken
            try:
                wait = self._step()
                self._last_error = None
            except Exception as error:  # noqa: BLE001 - logged once and counted
                self._count_error(self.name)
                if repr(error) != self._last_error:
                    self._last_error = repr(error)
                    _log.exception("unexpected error, going on", thread=self.name)
                wait, waiter = _AFTER_ERROR_SECONDS, self._stopped
            self._due_at = self._clock() + wait
            waiter.wait(wait)
