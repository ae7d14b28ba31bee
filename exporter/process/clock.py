"""The time of day, which may be set while we run, and time in which we did not run.

A machine's clock is set by an hour when somebody corrects it; a machine that was suspended wakes up much later. Beams
know neither: a batch that began ten seconds before the clock was set is ten seconds old, and an engine that slept with
its machine has not stalled. So each reading is compared with the one before it and with a clock that nobody can set,
and whoever keeps moments is told what to do to them before the new time is handed out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

_SET_SECONDS = 1.0
"""Less is the daemon that keeps the clock right, or this thread waiting between two readings."""

ASLEEP_SECONDS = 5.0
"""A process whose clock is read every second, and was not for so long, was stopped, or its machine was."""

TimeEvent = Literal["set", "asleep"]
"""The clock was set, or time has passed in which we did not run."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def uptime() -> float:
    """Seconds since the machine was started, those included in which it was suspended; nobody can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Keeper(Protocol):
    """Who keeps moments."""

    def move(self, seconds: float, /) -> None:
        """The clock was set by so much, forwards or back: every moment is another now."""

    def excuse(self, seconds: float, /) -> None:
        """So much time has passed in which nothing could be seen: it is no silence."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment.

    Args:
        at: UTC epoch seconds.
        uptime: seconds since the machine was started.
        boot_id: of that start; ``None`` where the kernel does not say.
    """

    at: float
    uptime: float
    boot_id: str | None

    def set_since(self, before: Reading) -> float:
        """By how many seconds the clock has been set since ``before``; 0 where that cannot be told."""
        if self.boot_id is None or self.boot_id != before.boot_id:
            return 0.0
        seconds = (self.at - before.at) - (self.uptime - before.uptime)
        return seconds if abs(seconds) > _SET_SECONDS else 0.0


class Clock:
    """Tells the time; must be asked at least every second (:data:`ASLEEP_SECONDS`).

    Args:
        keeper: told of what has happened to time.
        said: told once of each such event, with seconds, for the log.
        wall: UTC epoch seconds.
        uptime: seconds of a clock that nobody can set.
    """

    def __init__(
        self,
        keeper: Keeper,
        *,
        said: Callable[[TimeEvent, float], None] = lambda *_: None,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime,
    ) -> None:
        self._keeper = keeper
        self._said = said
        self._wall = wall
        self._uptime = uptime
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else None
        self._lock = threading.Lock()
        self._last = self._read()

    def _read(self) -> Reading:
        return Reading(self._wall(), self._uptime(), self._boot_id)

    def __call__(self) -> float:
        """UTC epoch seconds."""
        return self.reading().at

    def reading(self) -> Reading:
        """Both clocks now; the keeper knows what happened to them."""
        with self._lock:
            before, self._last = self._last, self._read()
            now = self._last
            seconds = (now.at - before.at) - (now.uptime - before.uptime)
            if abs(seconds) > _SET_SECONDS:
                self._keeper.move(seconds)
                self._said("set", seconds)
            asleep = now.uptime - before.uptime
            if asleep > ASLEEP_SECONDS:
                self._keeper.excuse(asleep)
                self._said("asleep", asleep)
            return now
