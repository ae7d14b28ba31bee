"""A steady timeline under a wall clock that a test holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exporter.process.clock import Timeline


class ManualClock:
    """Stands in for :class:`exporter.process.clock.Clock`.

    Args:
        wall: the wall clock of the test, UTC epoch seconds.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.timeline = Timeline()

    def now(self) -> float:
        return self.timeline.from_wall(self._wall())

    def was_set(self, seconds: float) -> None:
        """The wall clock was set by so much."""
        known = self.timeline
        offset = known.wall_offset_seconds + seconds
        self.timeline = replace(known, wall_offset_seconds=offset, clock_steps=known.clock_steps + 1)

    def was_suspended(self, seconds: float) -> None:
        """The process did not run for so long, until now."""
        known = self.timeline
        offset = known.wall_offset_seconds + seconds
        gap_at = self._wall() - offset
        self.timeline = replace(known, wall_offset_seconds=offset, gaps=(*known.gaps, (gap_at, seconds)))
