"""Learns the offset between a source's file clock and ours from log growth that we saw.

A log that grew between two polls was written between them by our clock; its modification time is by the source's
clock. So each such growth bounds the offset from both sides. One observation can be wrong: ``rsync -t``, ``cp -p``
and ``touch`` set old times, and a network file system may show growth late. So the last few observations vote, as
time servers do in NTP (Marzullo's algorithm): the offset is where most of their intervals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

_OBSERVATIONS_PER_LOG = 4
_OBSERVATIONS = 2 * _OBSERVATIONS_PER_LOG - 1
"""Few enough that one log alone outvotes all older observations once it has grown four times: a clock that was
corrected is followed even where nothing else is written. More than one log needs to be wrong three times in a row."""

_GRANULARITY_SECONDS = 0.01
"""Kernels stamp files with a clock that ticks up to 10 ms apart, and round down."""

_SAVED_ERROR_SECONDS = 0.5
"""How exact an offset of an earlier process is taken to be."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """Bounds of the offset that one growth of a log gives, in seconds; both ends belong to it."""

    path: str
    low: float
    high: float

    def contains(self, seconds: float) -> bool:
        return self.low <= seconds <= self.high


class ClockOffset:
    """The offset of one source's file clock: what files say minus what our clock says, in seconds.

    Args:
        seconds: the offset that an earlier process learned; ``None`` where there is none.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._intervals: list[_Interval] = []
        if seconds is not None:
            self._intervals.append(_Interval("", seconds - _SAVED_ERROR_SECONDS, seconds + _SAVED_ERROR_SECONDS))

    @property
    def seconds(self) -> float | None:
        """The offset: negative where the source's clock is behind ours, ``None`` while nothing has been learned."""
        return self._seconds

    def forget(self) -> None:
        """Start anew: our own clock was set, so every observation is of another offset."""
        self._seconds = None
        self._intervals.clear()

    def observe(self, path: str, modified_at: float, earliest: float, latest: float) -> None:
        """Learn from one growth of a log.

        Args:
            path: the log.
            modified_at: its modification time after the growth, epoch seconds by the source's clock.
            earliest: when the poll before began, in which it had not grown yet, epoch seconds by our clock.
            latest: when it was seen to have grown.
        """
        if latest < earliest:
            return
        # SFTP, and some file systems, give whole seconds.
        granularity = 1.0 if modified_at == int(modified_at) else _GRANULARITY_SECONDS
        self._add(_Interval(path, modified_at - latest, modified_at - earliest + granularity))
        self._seconds = self._agreed()

    def withdraw(self, path: str) -> None:
        """Forget the last growth of a log: it got another time stamp just after, which is observed instead."""
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
        """The offset that most observations allow; the present one as long as no other has more support."""
        before, intervals = self._seconds, self._intervals
        support = {each.low: sum(other.contains(each.low) for other in intervals) for each in intervals}
        most = max(support.values())
        if before is not None and sum(each.contains(before) for each in intervals) == most:
            low = before
        else:
            # Several may have as much: then the one with the newest observation.
            low = next(each.low for each in reversed(intervals) if support[each.low] == most)
        allowed = [each for each in intervals if each.contains(low)]
        low, high = max(each.low for each in allowed), min(each.high for each in allowed)
        if low <= 0.0 <= high:
            return 0.0  # nothing speaks against two clocks that agree
        if before is not None and low <= before <= high:
            return before
        return (low + high) / 2
