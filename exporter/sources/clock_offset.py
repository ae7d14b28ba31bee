"""Learns the offset between a source's file clock and ours from log growth that we saw.

A log that grew between two polls was written between them by our clock, and its modification time is by the source's
clock. So each growth bounds the offset from both sides. A single observation can be wrong: ``rsync -t``, ``cp -p`` and
``touch`` set old times, and a network file system may show growth late. So the last observations vote, as time servers
do in NTP (Marzullo's algorithm): the offset is where most of their intervals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

_OBSERVATIONS_PER_LOG = 4
_OBSERVATIONS = 2 * _OBSERVATIONS_PER_LOG - 1
"""With seven observations, four growths of one log outvote all older ones. So a corrected clock is noticed even if only
one log grows."""

_GRANULARITY_SECONDS = 0.01
"""The resolution of file time stamps in the kernel; they are rounded down."""

_SAVED_ERROR_SECONDS = 0.5
"""Assumed error of the offset that an earlier process learned."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """Bounds of the offset from one growth of a log, in seconds; both ends are included."""

    path: str
    low: float
    high: float

    def contains(self, seconds: float) -> bool:
        return self.low <= seconds <= self.high


class ClockOffset:
    """The offset of a source's file clock: its time stamps minus our clock, in seconds.

    Args:
        seconds: the offset that an earlier process learned; ``None`` if there is none.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._intervals: list[_Interval] = []
        if seconds is not None:
            self._intervals.append(_Interval("", seconds - _SAVED_ERROR_SECONDS, seconds + _SAVED_ERROR_SECONDS))

    @property
    def seconds(self) -> float | None:
        """The offset; negative if the source's clock is behind ours, ``None`` before any observation."""
        return self._seconds

    def forget(self) -> None:
        """Forget all observations, after our own clock was set."""
        self._seconds = None
        self._intervals.clear()

    def observe(self, path: str, modified_at: float, earliest: float, latest: float) -> None:
        """Learn from one growth of a log.

        Args:
            path: the log.
            modified_at: its modification time after the growth, epoch seconds by the source's clock.
            earliest: when the poll began that did not see the growth, epoch seconds by our clock.
            latest: when the growth was seen, epoch seconds by our clock.
        """
        if latest < earliest:
            return
        # SFTP, and some file systems, give whole seconds.
        granularity = 1.0 if modified_at == int(modified_at) else _GRANULARITY_SECONDS
        self._add(_Interval(path, modified_at - latest, modified_at - earliest + granularity))
        self._seconds = self._agreed()

    def withdraw(self, path: str) -> None:
        """Forget the last growth of a log, because its time stamp was changed just after."""
        for number in reversed(range(len(self._intervals))):
            if self._intervals[number].path == path:
                del self._intervals[number]
                return

    def _add(self, interval: _Interval) -> None:
        kept = self._intervals
        of_this_log = [number for number, each in enumerate(kept) if each.path == interval.path]
        if len(of_this_log) >= _OBSERVATIONS_PER_LOG:
            del kept[of_this_log[0]]
        kept.append(interval)
        if len(kept) > _OBSERVATIONS:
            del kept[0]

    def _agreed(self) -> float:
        """Return the offset that most observations allow; the present one while no other has more support."""
        before, intervals = self._seconds, self._intervals
        support = {each.low: sum(other.contains(each.low) for other in intervals) for each in intervals}
        most = max(support.values())
        if before is not None and sum(each.contains(before) for each in intervals) == most:
            low = before
        else:
            # If several have the same support, the one with the newest observation.
            low = next(each.low for each in reversed(intervals) if support[each.low] == most)
        allowed = [each for each in intervals if each.contains(low)]
        low, high = max(each.low for each in allowed), min(each.high for each in allowed)
        if low <= 0.0 <= high:
            return 0.0  # the observations allow that both clocks agree
        if before is not None and low <= before <= high:
            return before
        return (low + high) / 2
