"""One beam: its row, its log and its runs, and how what is told of one of them bears on the others.

Row and log are read by two threads, and one may be of another run than the other. A row that was reset begins a new
run, unless its log was written since. A log that was finished before the row was last touched belongs to the run
before: until it is rewritten the beam waits. A run that the log has told of is one that the row, as it was read last,
cannot know.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from exporter.beams.attribution import RESTAMPED_SECONDS, ROW_TIME_TOLERANCE_SECONDS, FirstRead
from exporter.beams.output import NO_CHECK, OutputCheck
from exporter.beams.rules import StatusRules
from exporter.beams.run import BeamRun
from exporter.beams.runs import RunSequence
from exporter.beams.saved_fields import NotSaved
from exporter.beams.snapshot import BeamRow, BeamState
from exporter.beams.view_cache import Standing
from exporter.logs.events import Event, LogRead, LogReplaced, RunHead
from exporter.process.clock import UNSET_CLOCK, Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat

_NEWER_LOG_SECONDS = 10.0
"""A second log of a beam takes over when it is newer by so much; less may be the same file seen over the network."""


@dataclass(slots=True)
class Beam:
    """What the store keeps of one beam; only the store touches it, under its lock.

    Whoever changes what a view shows, other than by a beam's methods, must call :meth:`invalidate`.

    Args:
        row: what discovery read last.
        first_seen_at: when discovery first found it; like all instants here on the steady timeline, in seconds.
        row_written_at: when the row was last written, by its own time stamp; ``None`` without one.
        run_sequence: its runs.
        source, path, stat: the log that is followed; log_modified_at: when it was last written, by its time stamp.
        clock_offset_seconds: how much later it is dated than our clock says; ``None`` while that is not known.
        first_read: by which times it was dated and attributed, while it is as it was when it was first read.
        checkpoint: how far it has been read; ``more_to_read``: whether there is more to read at once.
        state, state_since: as it was judged last.
        waiting_since: when the beam, or its current run, was met.
        row_terminal_since: when we saw that its row is over; ``row_missing_since``: that there is none any more.
        run_counted: its current run has been, as one that ended.
        anomalies: those of its current run that have been counted.
        recent: the log's last bytes.
        stale: the log is of the run before, and nothing of it is shown.
        read_again: it must be read from its beginning: what was taken for the run before's is this run's.
        set_aside: what the log told that was taken for the run before's when it was met, while it is as it was.
        grew: the log of a run that had not ended was seen to grow.
        shown_ratio: the highest estimated progress shown since as many announcements as ``shown_announcements``.
        unknown_to_row_since: when the run was met, while the row has not been read since.
        output: whether the dose file of the current run is there.
        clock_steps: of the wall clock, when the row was found, or the first read of a log was over, whichever was last.
        standing: how long its state holds; ``None`` when it must be judged anew.
    """

    row: BeamRow
    first_seen_at: float
    row_written_at: float | None = None
    clock_steps: int = 0
    run_sequence: RunSequence = field(default_factory=RunSequence)
    source: str | None = None
    path: str | None = None
    stat: LogStat | None = None
    log_modified_at: float | None = None
    checkpoint: Checkpoint | None = None
    state: BeamState = BeamState.WAITING
    state_since: float = 0.0
    waiting_since: float = 0.0
    row_terminal_since: float | None = None
    row_missing_since: NotSaved[float | None] = None  # discovery finds that out again
    more_to_read: bool = False
    run_counted: bool = False
    anomalies: Counter[str] = field(default_factory=Counter)
    recent: NotSaved[bytes] = b""  # read again
    stale: bool = False
    read_again: NotSaved[bool] = False  # found out again
    set_aside: BeamRun | None = None
    grew: bool = False
    shown_ratio: float = 0.0
    shown_announcements: int = 0
    unknown_to_row_since: float | None = None
    output: OutputCheck = NO_CHECK
    clock_offset_seconds: float | None = None
    first_read: FirstRead | None = None
    standing: NotSaved[Standing | None] = None
    _refused: NotSaved[tuple[str, LogStat] | None] = None  # found out again
    _looked: bool = False

    @classmethod
    def new(cls, row: BeamRow, at: float, timeline: Timeline = UNSET_CLOCK) -> Beam:
        """Return a beam that was met now.

        Args:
            row: what discovery has read.
            at: the present instant.
            timeline: converts the row's time stamp.
        """
        written_at = None if row.updated_at is None else timeline.from_wall(row.updated_at)
        return cls(row, at, written_at, timeline.clock_steps, state_since=at, waiting_since=at)

    @property
    def run(self) -> BeamRun:
        """The current run."""
        return self.run_sequence.run

    @property
    def stage(self) -> tuple[object, ...]:
        """What the column ``progress`` follows; it moves with the log, not with the clock."""
        run, batches = self.run, self.run.batches
        counts = batches.announcements, batches.started, batches.total
        return self.run_sequence.number, *counts, run.ended, run.succeeded, self.grew

    def apply_row(self, row: BeamRow, at: float, statuses: StatusRules, timeline: Timeline) -> bool:
        """Take what discovery has read.

        Args:
            row: it.
            at: when discovery began to read.
            statuses: what they mean.
            timeline: converts the row's time stamp.

        Returns:
            Whether the row says that a new run begins.
        """
        before, self.row_missing_since = self.row, None
        met_at = self.unknown_to_row_since
        if met_at is not None and met_at <= at:
            self.unknown_to_row_since = None
            self.invalidate()
        if row is before:
            return False
        self.row = row = row if row.key is before.key else before.read_again(row)
        if _same_but_read_again(row, before):
            return False
        self.invalidate()
        if row.updated_at != before.updated_at:
            self.row_written_at = None if row.updated_at is None else timeline.from_wall(row.updated_at)
        if row.status not in statuses.terminal:
            self.row_terminal_since = None
        elif self.row_terminal_since is None:
            self.row_terminal_since = at
        # Its log has told of the run that such a row belongs to.
        told = met_at is not None and (at < met_at or row.status not in statuses.reset)
        if told or not self._was_reset(before, statuses, known=met_at is None):
            return False
        began = self.run.started_at is not None
        self.first_read = None
        if began:
            self.stale, self.set_aside = not self.run_sequence.undecided, None
            self.run_sequence.start_run(keep_undecided=True)
            self._forget_run(at)
        self.run_counted = False
        return began

    def reclaim_log(self, statuses: StatusRules) -> None:
        """The source was looked at after the row was over: a log that was taken for the run before's is as it was.

        Where the row says that the run was completed, that log was this run's: nothing else has been written.
        """
        if self.set_aside is not None and self.row.status in statuses.completed:
            self.invalidate()
            self.run_sequence.run, self.set_aside, self.stale = self.set_aside, None, False

    def _was_reset(self, before: BeamRow, statuses: StatusRules, *, known: bool) -> bool:
        """The row has become another run's since it was read before; ``known``: the run is one that it was read in."""
        row = self.row
        if row.status is None or before.status is None:
            return False
        put_back = row.status in statuses.reset and before.status not in statuses.reset
        from_the_run = before.status in (statuses.terminal | statuses.simulating | statuses.post_run)
        if put_back and from_the_run and known and self.run.ended:
            return True  # however soon it was: the log has told the end of the run that the row knows
        revived = before.status in statuses.terminal and row.status not in statuses.terminal
        if not ((put_back and from_the_run) or revived or self._was_emptied(before, put_back, statuses)):
            return False
        # One that is dated in the future was written before the clock was set back: before it was read, in any case.
        written_at = None if self.row_written_at is None else min(self.row_written_at, row.read_at)
        return not self._written_since(written_at)

    def _was_emptied(self, before: BeamRow, put_back: bool, statuses: StatusRules) -> bool:
        """The row says 0 again.

        An engine may run under a row that stays as it is, and the mirror itself says 0 of a run that has just begun; it
        never does of one that got further. A database that was made anew keeps the time stamps of its rows, which may
        be of before the clock was set back.
        """
        row, run = self.row, self.run
        if row.progress != 0.0 or not before.progress:
            return False
        if put_back or row.status != before.status:
            return put_back
        if row.status in statuses.reset:
            return run.batches.finished > 0
        written_at = self.row_written_at
        written = written_at is not None and row.updated_at != before.updated_at and written_at <= row.read_at
        return row.status in statuses.simulating and run.ended and run.batches.finished > 0 and written

    def _written_since(self, moment: float | None) -> bool:
        """The log was written at that moment or later: it is not older than what the row says."""
        grown = self.run.last_growth_at
        return moment is not None and grown is not None and moment <= grown + ROW_TIME_TOLERANCE_SECONDS

    def claim(
        self,
        source: str,
        path: str,
        stat: LogStat,
        at: float,
        statuses: StatusRules,
        *,
        modified_at: float,
        moved: bool = False,
        written: bool = False,
        clock_offset_seconds: float | None = None,
    ) -> bool:
        """A log was found for this beam.

        Args:
            source, path, stat: it.
            at: now, epoch seconds.
            statuses: what they mean.
            modified_at: when the log was last written, by its time stamp.
            moved: by its row the beam's log is not where the one is that is followed.
            written: it appeared or grew since the last poll.
            clock_offset_seconds: how much later the source's files are dated than our clock says; ``None`` while that
                is not known.

        Returns:
            Whether it is the one to follow: the first found, or one clearly newer than the one followed.
        """
        if self.source == source and self.path == path:
            if self.stat != stat:
                self.invalidate()
                self.stat, self.log_modified_at = stat, modified_at
            return True
        if self.stat is not None and self.log_modified_at is not None:
            same_clock = source == self.source
            comparable = same_clock or None not in (clock_offset_seconds, self.clock_offset_seconds)
            outlived = written and not comparable and self._silent_since_polls(at)
            newer_by = stat.modified_at - self.stat.modified_at if same_clock else modified_at - self.log_modified_at
            if not comparable and self.run.last_growth_at is not None:
                newer_by = min(newer_by, modified_at - self.run.last_growth_at)
            if not outlived and newer_by <= (0.0 if moved else _NEWER_LOG_SECONDS):
                return False
            if self._is_copy(path, stat, statuses):
                return False
        self.invalidate()
        self.source, self.path, self.stat, self.recent, self.checkpoint = source, path, stat, b"", None
        self.clock_offset_seconds, self.log_modified_at = clock_offset_seconds, modified_at
        self._looked = self.stale = self.read_again = False
        self.set_aside = self.first_read = None
        if self.run.started_at is not None:
            self.run_sequence.start_run()
            self._forget_run(at)
            self.unknown_to_row_since = at
        return True

    def _silent_since_polls(self, at: float) -> bool:
        """The log that is followed has not been written for a while, whatever the clock that dates it says."""
        grown = self.run.last_growth_at
        return not (self.grew and grown is not None and at - grown <= _NEWER_LOG_SECONDS)

    def _is_copy(self, path: str, stat: LogStat, statuses: StatusRules) -> bool:
        """Another log seems to be one that was made of ours when the run was over: it is as long, or does not grow.

        Whoever begins a new run resets the row first; but nobody need have read it yet.
        """
        if not (self.grew and self.run.ended and self.row.status in statuses.post_run | statuses.terminal):
            return False
        if self._refused is None or self._refused[0] != path:
            self._refused = path, stat
        since = self._refused[1]
        grows = stat.size_bytes != since.size_bytes and stat.modified_at > since.modified_at + _NEWER_LOG_SECONDS
        return not grows or (self.stat is not None and stat.size_bytes == self.stat.size_bytes)

    def _forget_run(self, at: float) -> None:
        self.waiting_since = at
        self.output = NO_CHECK
        self.run_counted = False
        self.anomalies = Counter()
        self.shown_ratio, self.shown_announcements = 0.0, 0

    def apply(
        self,
        events: list[Event],
        at: float,
        *,
        read_at: float,
        more: bool,
        statuses: StatusRules,
        timeline: Timeline,
        polled_at: float | None = None,
    ) -> bool:
        """Take what one read has brought.

        Args:
            events: what the log says.
            at: when it was written, epoch seconds.
            read_at: when it was read.
            more: there is more to read at once.
            statuses: what they mean.
            timeline: converts time stamps of files.
            polled_at: the poll before, which did not see what this read has brought; ``None`` where there was none.

        Returns:
            Whether a new run has begun.
        """
        self.invalidate()
        self.more_to_read = more
        clock_was_set = self.clock_steps != timeline.clock_steps
        if clock_was_set:
            self.first_read = None
        if self._looked and self.first_read is not None and events:
            sizes = {event.size_bytes if isinstance(event, LogRead) else None for event in events}
            if sizes == {self.first_read.size_bytes}:
                return self._restamped(self.first_read, read_at, statuses, timeline)
            self.first_read = None
        if self.stale:
            events = self._of_this_run(events, at, statuses)
            if not events:
                return False
            self.stale = self.read_again = False
            self.set_aside = None
        began, unmet = False, self.run.started_at is None
        live = any(isinstance(event, LogRead) and event.live for event in events)
        for event in events:
            if self.run_sequence.apply(event, at, first_poll=not (self._looked or live)):
                began = True
                self._forget_run(at)
                self.unknown_to_row_since = read_at
        if live and not self.run.ended:
            self.grew = True
        if not self._looked and not more:
            self._looked = True
            # A log that appeared while we watched is of this run, whatever its time stamp says.
            if not live and self.stat is not None:
                size_bytes = sum(event.size_bytes for event in events if isinstance(event, LogRead))
                first = FirstRead(
                    self.stat.modified_at,
                    at,
                    read_at,
                    polled_at,
                    None if clock_was_set else self._row_to_compare(statuses),
                    size_bytes,
                )
                # Nobody knows whether the log was written before the clock was set or after it: its date stays.
                self.first_read = None if clock_was_set else first
                if self.run.ended and first.predates_row:
                    self.set_aside, self.run_sequence.run = self.run, BeamRun()
                    self._forget_run(at)
                    self.stale = True
            self.clock_steps = timeline.clock_steps
        if began or (unmet and self.run.started_at is not None):
            self.output = OutputCheck(run_after=polled_at)
        if self.run.succeeded and self.stat is not None:
            self.output = self.output.with_log_time(self.stat.modified_at, timeline.to_wall(at))
        return began

    def _of_this_run(self, events: list[Event], at: float, statuses: StatusRules) -> list[Event]:
        """What a log that was of the run before says of this one.

        Nothing, until it was replaced or goes on with a head. One that only grows may have been replaced all the same,
        by one that begins with the same bytes: where the row says that the engine runs and the log goes on after that,
        it is to be read again.
        """
        for number, event in enumerate(events):
            if isinstance(event, LogReplaced | RunHead):
                return events[number:]
        runs_since = self.row_written_at if self.row.status in statuses.simulating else None
        if runs_since is not None and at > runs_since + ROW_TIME_TOLERANCE_SECONDS:
            self.read_again = any(not isinstance(event, LogRead) for event in events)
        return []

    def _row_to_compare(self, statuses: StatusRules) -> float | None:
        """When the row was written that the log is compared with; ``None`` where the two cannot be compared."""
        written_at = self.row_written_at
        if written_at is None or not self._may_run(statuses):
            return None
        return None if written_at > self.row.read_at + ROW_TIME_TOLERANCE_SECONDS else written_at

    def _restamped(self, first: FirstRead, read_at: float, statuses: StatusRules, timeline: Timeline) -> bool:
        """The log holds what it held at its first read, and may be dated otherwise; see :meth:`correct_dates`."""
        soon = read_at - first.read_at <= RESTAMPED_SECONDS
        if self.stat is None or self.stat.modified_at == first.modified_at or not soon:
            return False
        again = replace(first, modified_at=self.stat.modified_at)
        return self._judge_again(first, again.dated(self.clock_offset_seconds or 0.0, timeline), statuses)

    def _may_run(self, statuses: StatusRules) -> bool:
        """The row does not say that the engine is done."""
        status = self.row.status
        return status is not None and status not in statuses.terminal and status not in statuses.post_run

    def correct_dates(self, clock_offset_seconds: float, statuses: StatusRules, timeline: Timeline) -> bool:
        """The log's source dates its files otherwise than was thought.

        Where the log is as it was at its first read, it is dated anew, and attributed anew to this run or the one
        before.

        Args:
            clock_offset_seconds: how much later they are dated than our clock says.
            statuses: what they mean.
            timeline: converts time stamps of files.

        Returns:
            Whether a new run has begun: what was taken for this run was the one before.
        """
        self.invalidate()
        self.clock_offset_seconds = clock_offset_seconds
        self.output = self.output.with_clock_offset(clock_offset_seconds)
        if self.stat is not None:
            self.log_modified_at = timeline.from_wall(self.stat.modified_at - clock_offset_seconds)
        if self.clock_steps != timeline.clock_steps:
            self.first_read = None
        if self.first_read is None:
            return False
        return self._judge_again(self.first_read, self.first_read.dated(clock_offset_seconds, timeline), statuses)

    def _judge_again(self, before: FirstRead, first: FirstRead, statuses: StatusRules) -> bool:
        """Date and attribute the log anew; see :meth:`correct_dates`."""
        self.first_read = first
        for run in (self.run, self.set_aside):
            if run is not None:
                run.correct_timestamps(before.dated_at, first.dated_at)
        if self.set_aside is not None and not first.predates_row:
            self.run_sequence.run, self.set_aside, self.stale = self.set_aside, None, False
        elif self.set_aside is None and self.run.ended and first.predates_row and self._may_run(statuses):
            run = self.run
            self.run_sequence.start_run()
            self.set_aside, self.stale = run, True
            self._forget_run(first.read_at)
            return True
        return False

    def invalidate(self) -> None:
        """Something that a view shows, or a state depends on, may be different now."""
        self.standing = None


def _same_but_read_again(row: BeamRow, before: BeamRow) -> bool:
    """Two reads of a row have found the same."""
    return (
        row.status == before.status
        and row.progress == before.progress
        and row.updated_at == before.updated_at
        and row.beam_path == before.beam_path
        and row.hpc_job_id == before.hpc_job_id
        and row.log_path == before.log_path
    )
