"""A steady timeline beside the wall clock.

The wall clock may be set, and a machine may be suspended. Neither must make a stall or hide one. So instants inside the
exporter are on a timeline that nobody can set and that stands still while this process cannot run. Wall-clock times of
files and rows are converted when they come in (:meth:`Timeline.from_wall`), instants are converted back in views
(:meth:`Timeline.to_wall`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

_STEP_SECONDS = 1.0
"""Smaller differences are a clock being disciplined, or a thread that waited between two readings."""

SUSPENDED_SECONDS = 5.0
"""The clock is read every two seconds. A longer pause means that the process, or its machine, was stopped."""

_AFTER_GAP_SECONDS = 0.001
"""The first instant after a gap is so much later than the last one before it, so that the two can be told apart."""

_GAPS_KEPT = 100

ClockEvent = Literal["set", "suspended"]
"""The wall clock was set, or time has passed in which this process did not run."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def uptime() -> float:
    """Return the seconds since the machine was started, with the time in which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A moment at which the wall clock was set, as exactly as it is known.

    Args:
        after, before: the clock was set between these instants: that of the last reading, and when it was noticed.
        wall_offset_seconds: of the timeline until then.
    """

    after: float
    before: float
    wall_offset_seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the steady timeline and the wall clock correspond at present.

    Args:
        wall_offset_seconds: what the wall clock says minus the present instant.
        gaps: instants at which the process was suspended, with the seconds that passed meanwhile; oldest first.
        clock_steps: how often the wall clock has been set. What was learned by comparing times that were written
            before and after a step is worth nothing.
        last_step: the last of these; ``None`` if there was none, or an earlier process noticed it.
    """

    wall_offset_seconds: float = 0.0
    gaps: tuple[tuple[float, float], ...] = ()
    clock_steps: int = 0
    last_step: ClockStep | None = None

    def to_wall(self, at: float) -> float:
        """Return the wall-clock time of an instant, in UTC epoch seconds by the clock as it is set now."""
        wall = at + self.wall_offset_seconds
        for gap_at, seconds in reversed(self.gaps):
            if at > gap_at:
                break
            wall -= seconds
        return wall

    def from_wall(self, wall: float) -> float:
        """Return the instant of a wall-clock time (UTC epoch seconds).

        It was written since the last clock step, or shortly before: a time that the old clock said between the last
        reading and the step was not seen by anybody, and is still told by that clock.
        """
        step = self.last_step
        if step is not None and step.after <= wall - step.wall_offset_seconds <= step.before:
            return wall - step.wall_offset_seconds
        at = wall - self.wall_offset_seconds
        for gap_at, seconds in reversed(self.gaps):
            if at > gap_at:
                break
            at = min(at + seconds, gap_at)
        return at


UNSET_CLOCK = Timeline()
"""The timeline of a wall clock that was never set, and of a process that always ran."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """All clocks at one moment, from which another process continues the timeline.

    Args:
        at: wall clock, UTC epoch seconds.
        uptime: seconds since the machine was started.
        boot_id: identifies that start; ``None`` where the kernel does not tell.
        steady: the instant; ``None`` in a state of an exporter whose instants were wall-clock times.
        gaps, clock_steps: see :class:`Timeline`.
    """

    at: float
    uptime: float
    boot_id: str | None
    steady: float | None = None
    gaps: tuple[tuple[float, float], ...] = ()
    clock_steps: int = 0


class Clock:
    """Tells the present instant; thread-safe. Somebody must ask every few seconds (:data:`SUSPENDED_SECONDS`).

    Args:
        on_event: called with each event and its seconds, for the log.
        wall: UTC epoch seconds.
        uptime: seconds of a clock that nobody can set.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[ClockEvent, float], None] = lambda *_: None,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = uptime,
    ) -> None:
        self._on_event = on_event
        self._wall = wall
        self._uptime = uptime
        self._boot_id = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else None
        self._lock = threading.Lock()
        self._last_uptime = uptime()
        self._start = wall() - self._last_uptime  # the present instant is this plus the uptime
        self._timeline = Timeline()
        self._events: list[tuple[ClockEvent, float]] = []

    @property
    def timeline(self) -> Timeline:
        """How instants and wall-clock times corresponded at the last reading."""
        return self._timeline

    def now(self) -> float:
        """Return the present instant, in seconds since about the epoch."""
        return self._read()[0]

    def wall_now(self) -> float:
        """Return the wall-clock time, in UTC epoch seconds."""
        return self._read()[1]

    def reading(self) -> ClockReading:
        """Return what another process needs to continue the timeline."""
        with self._lock:
            at, wall = self._advance()
            known = self._timeline
            return ClockReading(wall, self._last_uptime, self._boot_id, at, known.gaps, known.clock_steps)

    def resume(self, last: ClockReading) -> None:
        """Continue the timeline of an earlier process, with the time between the two; before instants are kept.

        Args:
            last: the reading that the earlier process saved with its state. After another start of the machine only
                the wall clock tells how long that was ago.
        """
        with self._lock:
            at, wall = self._advance()
            same_boot = self._boot_id is not None and self._boot_id == last.boot_id
            before = last.at if last.steady is None else last.steady
            now = before + max(0.0, self._last_uptime - last.uptime if same_boot else wall - last.at)
            self._start += now - at
            self._timeline = Timeline(last.at - before, last.gaps, last.clock_steps)
            self._follow_wall(now, wall, last_reading=before)

    def _read(self) -> tuple[float, float]:
        with self._lock:
            times = self._advance()
            events, self._events = self._events, []
        for event, seconds in events:  # not under the lock: a log that blocks must not stop every thread
            self._on_event(event, seconds)
        return times

    def _advance(self) -> tuple[float, float]:
        """Read both clocks and note what has happened to them; the lock is held."""
        wall, uptime = self._wall(), self._uptime()
        last_at, passed = self._start + self._last_uptime, uptime - self._last_uptime
        self._last_uptime = uptime
        at = self._start + uptime
        self._follow_wall(at, wall, last_reading=at if passed > SUSPENDED_SECONDS else last_at)
        if passed > SUSPENDED_SECONDS:
            gap = passed - _AFTER_GAP_SECONDS
            self._start -= gap
            known = self._timeline
            gaps = (*known.gaps, (last_at, gap))[-_GAPS_KEPT:]
            self._timeline = replace(known, wall_offset_seconds=known.wall_offset_seconds + gap, gaps=gaps)
            self._events.append(("suspended", passed))
        return self._start + uptime, wall

    def _follow_wall(self, at: float, wall: float, *, last_reading: float) -> None:
        """Notice that the wall clock was set.

        Args:
            at, wall: the present instant and wall-clock time.
            last_reading: the instant at which the clocks were read before.
        """
        known = self._timeline
        offset = wall - at
        step = offset - known.wall_offset_seconds
        if abs(step) > _STEP_SECONDS:
            step_now = ClockStep(last_reading, at, known.wall_offset_seconds)
            self._timeline = replace(
                known, wall_offset_seconds=offset, clock_steps=known.clock_steps + 1, last_step=step_now
            )
            self._events.append(("set", step))
