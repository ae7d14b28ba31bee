"""A thread that does one round of work after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)

_OVERDUE_SECONDS = 60.0
_AFTER_ERROR_SECONDS = 1.0


class Waiter(Protocol):
    """Something to wait for."""

    def wait(self, seconds: float, /) -> None:
        """Wait at most so long."""

    def wake(self) -> None:
        """End the wait, also one that has not begun; from any thread."""


class Worker:
    """Calls ``step`` again and again in a thread of its own, and survives whatever a round meets.

    Args:
        name: of the thread, in log lines and as ``where`` of ``mqi_exporter_errors_total``.
        step: one round of work; returns how many seconds to wait before the next.
        count_error: told the name when a round ends with an unexpected error.
        clock: seconds of a clock that never steps.
        waiter: what waits instead of the thread's own event, where something else may end the wait, too.
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
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does at the end of its round."""
        self._stopped.set()
        self._woken.set()
        if self._waiter is not None:
            self._waiter.wake()

    def wake(self) -> None:
        """Have the next round now instead of after the wait; a wait after an unexpected error is not cut short."""
        self._woken.set()

    def join(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the thread's end.

        Returns:
            Whether it has ended.
        """
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def trouble(self) -> str | None:
        """Why the loop cannot be said to work; ``None`` when it does."""
        if not self._thread.is_alive():
            return f"the thread {self.name} has ended"
        overdue = self._clock() - self._due_at
        return f"the thread {self.name} is {overdue:.0f} s late" if overdue > _OVERDUE_SECONDS else None

    def _run(self) -> None:
        while True:
            # In this order: whoever wakes or stops from here on ends the wait below.
            self._woken.clear()
            if self._stopped.is_set():
                return
            waiter: Waiter | threading.Event = self._waiter or self._woken
            try:
                wait = self._step()
                self._said = None
            except Exception as error:  # noqa: BLE001 - the loop outlives it; said once and counted
                self._count_error(self.name)
                if repr(error) != self._said:
                    self._said = repr(error)
                    _log.exception("unexpected error, going on", thread=self.name)
                wait, waiter = _AFTER_ERROR_SECONDS, self._stopped
            self._due_at = self._clock() + wait
            waiter.wait(wait)
