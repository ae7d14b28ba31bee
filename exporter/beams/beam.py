"""One beam: its row, its log and its runs, and how news of one of them bears on the others.

Which run a log and a row belong to is decided by the tables of :mod:`exporter.beams.attribution`. This module keeps
what they need, calls them, and carries their decisions out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from exporter.beams.attribution import (
    LOG_DECISIONS,
    NEW_RUN_RULES,
    RESTAMPED_SECONDS,
    ROW_TIME_TOLERANCE_SECONDS,
    FirstRead,
    LogAttribution,
    LogNews,
    RowKnowledge,
    RowPhase,
    decide_row,
    log_evidence,
    row_change,
    row_phase,
)
from exporter.beams.decisions import Decision, Rule
from exporter.beams.output import NO_CHECK, OutputCheck
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.runs import RunSequence
from exporter.beams.saved_fields import NotSaved
from exporter.beams.snapshot import BeamRow, BeamState
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import Evidence
from exporter.beams.view_cache import CachedView
from exporter.logs.events import Event, LogRead, LogReplaced, RunHead
from exporter.process.clock import UNSET_CLOCK, Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat

_NEWER_LOG_SECONDS = 10.0
"""A second log of a beam takes over when it is newer by this much; less may be the same file seen over the network."""


@dataclass(slots=True)
class Beam:
    """What the store keeps of one beam; only the store uses it, under its lock.

    Code that changes what a view shows, other than by a beam's methods, must call :meth:`invalidate`. Instants are
    on the steady timeline (:mod:`exporter.process.clock`), in seconds.

    Args:
        row: the row as discovery read it last.
        first_seen_at: when the beam was first seen.
        row_written_at: when the row was last written, by its own time stamp; ``None`` without one.
        clock_steps: of the wall clock, when the beam was first seen or a log was read to its end for the first time.
        run_sequence: its runs.
        source, path, stat: the log that is followed; ``log_modified_at``: when it was last written, by its time stamp.
        clock_offset_seconds: how much later the log is dated than our clock says; ``None`` while that is not known.
        first_read: by which times the log was dated and attributed, until it changes after its first read.
        checkpoint: how far the log has been read.
        more_to_read: there is more to read at once.
        log: which run the log belongs to; ``log_rule`` says why.
        provisional_run: the run in a log that belongs to the previous run by its date; it may prove to be current.
        log_seen_growing: the log of a run that had not ended was seen to grow.
        row_knowledge: whether the row can know the current run; ``run_met_at``: when that run was first seen, for a row
            that cannot; ``row_rule``: the last decision about the row.
        row_terminal_since: when we saw that the row's status is terminal; ``row_missing_since``: that it was deleted.
        state, state_since: the last recorded state.
        waiting_since: when the beam, or its current run, was first seen.
        run_counted: the current run was counted as one that ended.
        anomalies: those of the current run that have been counted.
        recent: the log's last bytes.
        shown_ratio: the highest estimated progress shown since as many announcements as ``shown_announcements``.
        prior_rate: pace of earlier runs like the current one, in seconds per particle (or batch); ``None`` without any.
        output: the output check of the current run.
        view: the view made last, with the condition it shows; ``None`` when they must be made again.
        decisions: what was decided since the store logged the last decisions.
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
    row_missing_since: NotSaved[float | None] = None  # discovery finds it again
    more_to_read: bool = False
    run_counted: bool = False
    anomalies: Counter[str] = field(default_factory=Counter)
    recent: NotSaved[bytes] = b""  # read again
    log: LogAttribution = LogAttribution.NONE
    log_rule: Rule = Rule.NO_LOG
    provisional_run: BeamRun | None = None
    log_seen_growing: bool = False
    row_knowledge: RowKnowledge = RowKnowledge.CURRENT
    run_met_at: float | None = None
    row_rule: Rule | None = None
    shown_ratio: float = 0.0
    shown_announcements: int = 0
    prior_rate: float | None = None
    output: OutputCheck = NO_CHECK
    clock_offset_seconds: float | None = None
    first_read: FirstRead | None = None
    view: NotSaved[CachedView | None] = None
    decisions: NotSaved[tuple[Decision, ...]] = ()
    _copy_candidate: NotSaved[tuple[str, LogStat] | None] = None  # found again

    @classmethod
    def new(cls, row: BeamRow, at: float, timeline: Timeline = UNSET_CLOCK) -> Beam:
        """Return a beam that was first seen now.

        Args:
            row: the row as discovery has read it.
            at: now.
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
        """What the column ``progress`` depends on; it changes with the log, not with the clock."""
        run, batches = self.run, self.run.batches
        counts = batches.announcements, batches.started, batches.total
        return self.run_sequence.number, *counts, run.ended, run.succeeded, self.log_seen_growing

    def evidence(self, rules: StoreRules, source: SourceState) -> Evidence:
        """Everything that the state of the beam depends on.

        Args:
            rules: limits of silence, and what statuses mean.
            source: health of the log's source; of all sources together without a log.
        """
        return Evidence(
            self.run_sequence.run,
            self.row,
            self.row_written_at,
            self.row_knowledge,
            self.row_terminal_since,
            self.log,
            self.source,
            self.more_to_read,
            self.waiting_since,
            self.output,
            source,
            self.state,
            self.state_since,
            rules,
        )

    def apply_row(self, row: BeamRow, at: float, statuses: StatusRules, timeline: Timeline = UNSET_CLOCK) -> bool:
        """Apply a row that discovery has read.

        Args:
            row: the row.
            at: when discovery began to read.
            statuses: what the words in the row mean.
            timeline: converts the row's time stamp.

        Returns:
            Whether the row begins a new run.
        """
        before, self.row_missing_since = self.row, None
        knowledge, met_at = self.row_knowledge, self.run_met_at
        if met_at is not None and met_at <= at:
            self.row_knowledge, self.run_met_at = RowKnowledge.CURRENT, None
            self.invalidate()
        if row is before:
            return False
        self.row = row = row if row.key is before.key else before.read_again(row)
        if _same_content(row, before):
            return False
        self.invalidate()
        if row.updated_at != before.updated_at:
            self.row_written_at = None if row.updated_at is None else timeline.from_wall(row.updated_at)
        phase = row_phase(row.status, statuses)
        if phase is not RowPhase.TERMINAL:
            self.row_terminal_since = None
        elif self.row_terminal_since is None:
            self.row_terminal_since = at
        if met_at is not None and (at < met_at or phase is not RowPhase.RESET):
            # The log already shows the run that such a row belongs to.
            rule = Rule.ROW_READ_BEFORE_RUN if at < met_at else Rule.ROW_OF_SAME_RUN
        else:
            change = row_change(before, row, self.row_written_at, self.run, statuses)
            rule = decide_row(change, log_evidence(row, self.row_written_at, self.run), knowledge)
        self._decide_row(rule, at, before)
        if rule not in NEW_RUN_RULES:
            return False
        began = self.run.started_at is not None
        self.first_read = None
        if began:
            self._note_log(LogNews.ROW_BEGAN_RUN, at)
            self.provisional_run = None
            self.run_sequence.start_run(keep_undecided=True)
            self._forget_run(at)
        self.run_counted = False
        return began

    def reclaim_log(self, statuses: StatusRules, at: float) -> None:
        """Give a log that was attributed to the previous run back to this one, where the row says it was completed.

        Call it when the source was polled after the row became terminal: nothing else has been written.

        Args:
            statuses: what the words in the row mean.
            at: now.
        """
        if self.provisional_run is not None and self.row.status in statuses.completed:
            self.invalidate()
            self._note_log(LogNews.ROW_COMPLETED, at)
            self.run_sequence.run, self.provisional_run = self.provisional_run, None

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
        """Decide whether to follow a log that was found for this beam.

        The log that is followed already stays so. Another takes over when it is clearly newer, and not a copy.

        Args:
            source, path, stat: the log.
            at: now.
            statuses: what the words in the row mean.
            modified_at: when the log was last written, by its time stamp.
            moved: by the row, the log is not where the one is that is followed.
            written: it appeared or grew since the last poll.
            clock_offset_seconds: how much later the source's files are dated than our clock says; ``None`` while that
                is not known.

        Returns:
            Whether it is the log to follow.
        """
        if self.source == source and self.path == path:
            if self.stat != stat:
                self.invalidate()
                self.stat, self.log_modified_at = stat, modified_at
            return True
        rule = Rule.FIRST_LOG
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
            rule = Rule.LOG_STILL_WRITTEN if outlived else Rule.LOG_AT_NEW_PATH if moved else Rule.NEWER_LOG
        self.invalidate()
        newer_by_seconds = None if self.log_modified_at is None else modified_at - self.log_modified_at
        self.decide(rule, at, size_bytes=stat.size_bytes, newer_by_seconds=newer_by_seconds)
        self.source, self.path, self.stat, self.recent, self.checkpoint = source, path, stat, b"", None
        self.clock_offset_seconds, self.log_modified_at = clock_offset_seconds, modified_at
        self._note_log(LogNews.CLAIMED, at)
        self.provisional_run = self.first_read = None
        if self.run.started_at is not None:
            self.run_sequence.start_run()
            self._forget_run(at)
            self._meet_run(at)
        return True

    def _silent_since_polls(self, at: float) -> bool:
        """The log that is followed has not been written for a while, whatever the clock that dates it says."""
        grown_at = self.run.last_growth_at
        return not (self.log_seen_growing and grown_at is not None and at - grown_at <= _NEWER_LOG_SECONDS)

    def _is_copy(self, path: str, stat: LogStat, statuses: StatusRules) -> bool:
        """Another log seems to be a copy made of ours when the run was over: it is as long, or does not grow.

        The communicator resets the row before it starts a new run; but that row may not have been read yet.
        """
        if not (self.log_seen_growing and self.run.ended and self.row.status in statuses.post_run | statuses.terminal):
            return False
        if self._copy_candidate is None or self._copy_candidate[0] != path:
            self._copy_candidate = path, stat
        first = self._copy_candidate[1]
        grows = stat.size_bytes != first.size_bytes and stat.modified_at > first.modified_at + _NEWER_LOG_SECONDS
        return not grows or (self.stat is not None and stat.size_bytes == self.stat.size_bytes)

    def _forget_run(self, at: float) -> None:
        self.waiting_since = at
        self.output = NO_CHECK
        self.run_counted = False
        self.anomalies = Counter()
        self.shown_ratio, self.shown_announcements = 0.0, 0

    def _meet_run(self, at: float) -> None:
        """The log has shown a run that the row, as it was read last, cannot know."""
        self.row_knowledge, self.run_met_at = RowKnowledge.OLDER_THAN_RUN, at

    def apply(
        self,
        events: list[Event],
        at: float,
        *,
        read_at: float,
        more: bool,
        statuses: StatusRules,
        timeline: Timeline = UNSET_CLOCK,
        polled_at: float | None = None,
    ) -> bool:
        """Apply what one read of the log has brought.

        Args:
            events: what the log says.
            at: when it was written.
            read_at: when it was read.
            more: there is more to read at once.
            statuses: what the words in the row mean.
            timeline: converts time stamps of files.
            polled_at: the poll before, which did not see what this read has brought; ``None`` where there was none.

        Returns:
            Whether a new run has begun.
        """
        self.invalidate()
        self.more_to_read = more
        if self.clock_steps != timeline.clock_steps:
            self.first_read = None
        if self.first_read is not None and events:
            sizes = {event.size_bytes if isinstance(event, LogRead) else None for event in events}
            if sizes == {self.first_read.size_bytes}:
                return self._restamped(self.first_read, read_at, statuses, timeline)
            self.first_read = None
        if self.log.of_previous_run:
            events = self._of_current_run(events, at, statuses)
            if not events:
                return False
            self._note_log(LogNews.NEW_RUN, at)
            self.provisional_run = None
        began, unmet = False, self.run.started_at is None
        live = any(isinstance(event, LogRead) and event.live for event in events)
        for event in events:
            began |= self._apply_event(event, at, read_at, live=live)
        if live and not self.run.ended:
            self.log_seen_growing = True
        if self.log is LogAttribution.UNREAD and not more:
            self._attribute_first_read(events, at, read_at, polled_at, statuses, timeline, live=live)
        if began or (unmet and self.run.started_at is not None):
            self.output = OutputCheck(run_after=polled_at)
        if self.run.succeeded and self.stat is not None:
            self.output = self.output.with_log_time(self.stat.modified_at, timeline.to_wall(at))
        return began

    def _apply_event(self, event: Event, at: float, read_at: float, *, live: bool) -> bool:
        """Apply one event; returns whether a new run has begun with it."""
        run, undecided = self.run, self.run_sequence.undecided
        began = self.run_sequence.apply(event, at, first_poll=self.log is LogAttribution.UNREAD and not live)
        if self.run is not run:
            self.shown_ratio, self.shown_announcements = 0.0, 0
        if began:
            self._forget_run(at)
            self._meet_run(read_at)
            self._note_log(LogNews.NEW_RUN, at)
        elif self.run_sequence.undecided and isinstance(event, LogReplaced):
            self._note_log(LogNews.REPLACED, at)
        elif undecided and not self.run_sequence.undecided:
            self._note_log(LogNews.SAME_RUN, at)
        return began

    def _attribute_first_read(
        self,
        events: list[Event],
        at: float,
        read_at: float,
        polled_at: float | None,
        statuses: StatusRules,
        timeline: Timeline,
        *,
        live: bool,
    ) -> None:
        """Attribute a log that has been read to its end for the first time."""
        clock_was_set, self.clock_steps = self.clock_steps != timeline.clock_steps, timeline.clock_steps
        if live or self.stat is None:
            # A log that appeared while we watched is of this run, whatever its time stamp says.
            self._note_log(LogNews.READ_LIVE, at)
            return
        size_bytes = sum(event.size_bytes for event in events if isinstance(event, LogRead))
        row_updated_at = None if clock_was_set else self._row_to_compare(statuses)
        first = FirstRead(self.stat.modified_at, at, read_at, polled_at, row_updated_at, size_bytes)
        # Nobody knows whether the log was written before the clock was set or after it: its date stays.
        self.first_read = None if clock_was_set else first
        older = self.run.ended and first.predates_row
        self._note_log(
            LogNews.READ_OLDER if older else LogNews.READ_NOT_OLDER,
            at,
            row_newer_by_seconds=first.row_newer_by_seconds,
            run_ended=self.run.ended,
        )
        if older:
            self.provisional_run, self.run_sequence.run = self.run, BeamRun()
            self._forget_run(at)

    def _of_current_run(self, events: list[Event], at: float, statuses: StatusRules) -> list[Event]:
        """What a log of the previous run says of the current one.

        Nothing, until it was replaced or goes on with a head. A log that only grows may still have been replaced, by
        one that begins with the same bytes: where the row says that the engine runs and the log goes on after that, it
        must be read again.
        """
        for number, event in enumerate(events):
            if isinstance(event, LogReplaced | RunHead):
                return events[number:]
        runs_since = self.row_written_at if self.row.status in statuses.simulating else None
        later = runs_since is not None and at > runs_since + ROW_TIME_TOLERANCE_SECONDS
        if later and any(not isinstance(event, LogRead) for event in events):
            self._note_log(LogNews.GREW_UNDER_RUNNING_ROW, at)
        return []

    def _row_to_compare(self, statuses: StatusRules) -> float | None:
        """When the row was written that the log is compared with; ``None`` where the two cannot be compared.

        A row dated after it was read shows that a clock was set while no exporter ran: the log may be from before.
        """
        written_at = self.row_written_at
        if written_at is None or not self._may_run(statuses):
            return None
        return None if written_at > self.row.read_at + ROW_TIME_TOLERANCE_SECONDS else written_at

    def _restamped(self, first: FirstRead, read_at: float, statuses: StatusRules, timeline: Timeline) -> bool:
        """The log holds what it held at its first read; its date may have changed. See :meth:`correct_dates`."""
        soon = read_at - first.read_at <= RESTAMPED_SECONDS
        if self.stat is None or self.stat.modified_at == first.modified_at or not soon:
            return False
        again = replace(first, modified_at=self.stat.modified_at)
        return self._attribute_again(first, again.dated(self.clock_offset_seconds or 0.0, timeline), statuses)

    def _may_run(self, statuses: StatusRules) -> bool:
        """The row does not say that the engine is done."""
        phase = row_phase(self.row.status, statuses)
        return phase not in (RowPhase.NONE, RowPhase.TERMINAL, RowPhase.POST_RUN)

    def correct_dates(
        self, clock_offset_seconds: float, statuses: StatusRules, timeline: Timeline = UNSET_CLOCK
    ) -> bool:
        """Apply a corrected clock offset of the log's source.

        A log that has not changed since its first read is dated again, and attributed again to this run or the one
        before.

        Args:
            clock_offset_seconds: how much later the source's files are dated than our clock says.
            statuses: what the words in the row mean.
            timeline: converts time stamps of files.

        Returns:
            Whether a new run has begun: the log was attributed to this run, and belongs to the one before.
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
        return self._attribute_again(self.first_read, self.first_read.dated(clock_offset_seconds, timeline), statuses)

    def _attribute_again(self, before: FirstRead, first: FirstRead, statuses: StatusRules) -> bool:
        """Date and attribute the log again; see :meth:`correct_dates`."""
        self.first_read = first
        for run in (self.run, self.provisional_run):
            if run is not None:
                run.correct_timestamps(before.dated_at, first.dated_at)
        facts = {"row_newer_by_seconds": first.row_newer_by_seconds}
        if self.provisional_run is not None and not first.predates_row:
            self._note_log(LogNews.DATE_NOT_OLDER, first.read_at, **facts)
            self.run_sequence.run, self.provisional_run = self.provisional_run, None
        elif self.provisional_run is None and self.run.ended and first.predates_row and self._may_run(statuses):
            self._note_log(LogNews.DATE_OLDER, first.read_at, **facts)
            run = self.run
            self.run_sequence.start_run()
            self.provisional_run = run
            self._forget_run(first.read_at)
            return True
        return False

    def _note_log(self, news: LogNews, at: float, **facts: object) -> None:
        """Attribute the log by :data:`~exporter.beams.attribution.LOG_DECISIONS`."""
        before = self.log
        self.log, self.log_rule = LOG_DECISIONS[before, news]
        self.decide(self.log_rule, at, log=self.log.value, log_before=before.value, news=news.value, **facts)

    def _decide_row(self, rule: Rule, at: float, before: BeamRow) -> None:
        if rule is self.row_rule and rule is Rule.ROW_OF_SAME_RUN:
            return
        self.row_rule = rule
        written_at, grown_at = self.row_written_at, self.run.last_growth_at
        self.decide(
            rule,
            at,
            status=self.row.status,
            progress=self.row.progress,
            progress_before=before.progress,
            row_knowledge=self.row_knowledge.value,
            row_newer_by_seconds=None if written_at is None or grown_at is None else written_at - grown_at,
        )

    def decide(self, rule: Rule, at: float, **facts: object) -> None:
        """Note a decision, until the store logs it.

        Args:
            rule: by which it was made.
            at: when.
            facts: the evidence; see :class:`~exporter.beams.decisions.Decision`.
        """
        self.decisions = (*self.decisions, Decision(rule, at, facts))

    def invalidate(self) -> None:
        """Something that a view shows, or a state depends on, may be different now."""
        self.view = None


def _same_content(row: BeamRow, before: BeamRow) -> bool:
    """Two reads of a row have found the same."""
    return (
        row.status == before.status
        and row.progress == before.progress
        and row.updated_at == before.updated_at
        and row.beam_path == before.beam_path
        and row.hpc_job_id == before.hpc_job_id
        and row.log_path == before.log_path
    )
