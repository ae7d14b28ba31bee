"""Learns from each poll how far a source's clock is off, and gives the offset to the store."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from exporter.beams.attribution import RESTAMPED_SECONDS
from exporter.beams.snapshot import BeamKey
from exporter.polling.sink import PollSink
from exporter.polling.stats import PollStats
from exporter.sources.clock_offset import ClockOffset
from exporter.sources.source import LogStat

Log = tuple[str, LogStat]
"""A log's path and stat."""


class SourceClock:
    """The offset of one source's clock. Used by the source's thread.

    Args:
        source: its name.
        sink: receives the offset; knows when our own clock was set.
        stats: logs a large offset once.
        clock: the present instant.
    """

    def __init__(self, source: str, sink: PollSink, stats: PollStats, clock: Callable[[], float]) -> None:
        self._source = source
        self._sink = sink
        self._stats = stats
        self._clock = clock
        self._offset = ClockOffset()
        self._clock_steps = sink.timeline.clock_steps
        self._comparable_since = float("-inf")  # our clock was set before that
        self._other_logs: dict[BeamKey, list[Log]] = {}
        # When the poll before the last growth of a log began, and when that growth was seen.
        self._growths: dict[BeamKey, tuple[str, float, float]] = {}

    @property
    def offset_seconds(self) -> float | None:
        """The time stamps of the source's files minus our clock, in seconds; ``None`` if unknown."""
        return self._offset.seconds

    def adopt(self, other: SourceClock) -> None:
        """Continue with the offset that ``other`` learned, of the same source before a reload."""
        self._offset, self._clock_steps = other._offset, other._clock_steps
        self._comparable_since = other._comparable_since

    def resume(self) -> None:
        """Continue with the offset that an earlier process learned."""
        self._offset = ClockOffset(self._sink.clock_offset_seconds(self._source))

    def detect_clock_step(self, at: float) -> None:
        """Forget the offset if our own clock was set since the last call.

        Args:
            at: when this poll began. Growth since an earlier poll is not compared with our clock.
        """
        steps = self._sink.timeline.clock_steps
        if steps == self._clock_steps:
            return
        self._clock_steps, self._comparable_since = steps, at
        self._offset.forget()
        self._growths.clear()

    def find_grown(self, key: BeamKey, followed: Log | None, there: list[Log], earliest: float | None) -> set[str]:
        """Return which logs of a beam have grown since the last poll, and learn from their time stamps.

        Args:
            key: the beam.
            followed: the followed log at the last poll; ``None`` if unknown.
            there: all its logs now.
            earliest: when the last poll of them began; ``None`` if unknown.

        Returns:
            Paths of the logs that have grown.
        """
        others = self._other_logs.pop(key, None) if self._other_logs else None
        if followed is None and others is None:
            return set()  # the first poll of each log, at the start of thousands
        before = dict(others or ())
        if followed is not None:
            before[followed[0]] = followed[1]
        known = [(path, stat, before[path]) for path, stat in there if path in before]
        grown = {path for path, now, then in known if _has_grown(now, then)}
        if known and earliest is not None and earliest >= self._comparable_since:
            latest, timeline = self._clock(), self._sink.timeline
            earliest, latest = timeline.to_wall(earliest), timeline.to_wall(latest)
            for path, now, then in known if timeline.clock_steps == self._clock_steps else ():
                if path in grown:
                    self._offset.observe(path, now.modified_at, earliest, latest)
                    self._growths[key] = path, earliest, latest
                elif _was_restamped(now, then):
                    self._restamp(key, path, now.modified_at, latest)
        return grown

    def _restamp(self, key: BeamKey, path: str, modified_at: float, latest: float) -> None:
        """Use the new time stamp of a log that did not grow: just after growth it dates that growth."""
        grown, earliest, seen_at = self._growths.get(key, ("", 0.0, 0.0))
        if grown == path and 0.0 <= latest - seen_at <= RESTAMPED_SECONDS:
            self._offset.withdraw(path)
            self._offset.observe(path, modified_at, earliest, latest)

    def remember(self, key: BeamKey, others: list[Log]) -> None:
        """Remember the logs of a beam that are not followed, to notice when they grow."""
        if others:
            self._other_logs[key] = others

    def keep_only(self, keys: AbstractSet[BeamKey]) -> None:
        """Forget all other beams."""
        for key in [key for key in self._other_logs if key not in keys]:
            del self._other_logs[key]
        for key in [key for key in self._growths if key not in keys]:
            del self._growths[key]

    def publish(self) -> None:
        """Give the offset to the store if it has changed."""
        seconds = self._offset.seconds
        if seconds != self._stats.clock_offset_seconds:
            self._sink.set_clock_offset(self._source, seconds, clock_steps=self._clock_steps)
            self._stats.set_clock_offset(seconds)


def _has_grown(now: LogStat, before: LogStat) -> bool:
    """Return whether a log was appended to between two polls."""
    return now.size_bytes > before.size_bytes and now.identity == before.identity


def _was_restamped(now: LogStat, before: LogStat) -> bool:
    """Return whether only the time stamp of a log changed."""
    same = now.size_bytes == before.size_bytes and now.identity == before.identity
    return same and now.modified_at != before.modified_at
