"""Whether a log that stood there when it was first polled is of the beam's present run or of the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exporter.process.clock import Timeline

RESTAMPED_SECONDS = 60.0
"""A time stamp that changes so soon after a write, and nothing else with it, is that of the write: who copies logs may
date them afterwards, and network file systems may tell a new size before the new time."""

ROW_TIME_TOLERANCE_SECONDS = 2.0
"""A row's time stamp has whole seconds, and its writer may be a moment behind the log's."""


@dataclass(slots=True)
class FirstRead:
    """By which times a log that stood there when it was first polled was dated and attributed to a run.

    Both are done again when the offset of its source's clock is learned. Never changed; not frozen, since a frozen one
    takes three times as long to make, and thousands of logs may stand there at the start.

    Args:
        modified_at: its modification time, epoch seconds by the source's clock.
        dated_at: when it was taken to be written, epoch seconds.
        read_at: when it was read, epoch seconds.
        earliest: it was not written before, epoch seconds; ``None`` where that is not known.
        row_updated_at: when the row was updated that it was compared with, epoch seconds; ``None`` where the two could
            not be compared.
        size_bytes: its length.
    """

    modified_at: float
    dated_at: float
    read_at: float
    earliest: float | None
    row_updated_at: float | None
    size_bytes: int

    @property
    def predates_row(self) -> bool:
        """Whether the log is older than the row's last update. Then it belongs to the previous run."""
        return self.row_updated_at is not None and self.row_updated_at > self.dated_at + ROW_TIME_TOLERANCE_SECONDS

    def dated(self, clock_offset_seconds: float, timeline: Timeline) -> FirstRead:
        """The same with the date that the source's clock offset gives.

        Args:
            clock_offset_seconds: how much later the source's files are dated than our clock says.
            timeline: converts time stamps of files.
        """
        dated_at = min(timeline.from_wall(self.modified_at - clock_offset_seconds), self.read_at)
        return replace(self, dated_at=dated_at if self.earliest is None else max(dated_at, self.earliest))
