"""One beam: its row, its log and its runs.

What changes it is in three modules: :mod:`~exporter.beams.beam_rows` applies rows, :mod:`~exporter.beams.beam_claims`
decides which log is followed, and :mod:`~exporter.beams.beam_reads` applies what the log says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from exporter.beams.attribution import (
    LOG_DECISIONS,
    FirstRead,
    LogAttribution,
    LogNews,
    RowKnowledge,
)
from exporter.beams.decisions import Decision, Rule
from exporter.beams.output import NO_CHECK, OutputCheck
from exporter.beams.rules import StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.runs import RunSequence
from exporter.beams.saved_fields import NotSaved
from exporter.beams.snapshot import BeamRow, BeamState
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import Evidence
from exporter.beams.view_cache import CachedView
from exporter.process.clock import UNSET_CLOCK, Timeline
from exporter.sources.checkpoint import Checkpoint
from exporter.sources.source import LogStat


@dataclass(slots=True)
class Beam:
    """What the store keeps of one beam; only the store uses it, under its lock.

    Code that changes what a view shows must call :meth:`invalidate`. Instants are
    on the steady timeline (:mod:`exporter.process.clock`), in seconds.

    Args:
        row: the row as discovery read it last.
        first_seen_at: when the beam was first seen.
        row_written_at: when the row was last written, by its own time stamp; ``None`` without one.
        clock_steps: how often the wall clock had been set when the beam was first seen, or when its log was first read
            to its end.
        run_sequence: its runs.
        source, path, stat: the log that is followed; ``log_modified_at``: when it was last written, by its time stamp.
        clock_offset_seconds: how much later the log is dated than our clock says; ``None`` while that is not known.
        first_read: time stamps that date the log; ``None`` once the log has changed after its first read.
        checkpoint: how far the log has been read.
        more_to_read: unread bytes are left.
        log: which run the log belongs to; ``log_rule`` says why.
        provisional_run: the run in a log that belongs to the previous run by its date; it may prove to be current.
        log_seen_growing: the log of a run that had not ended was seen to grow.
        row_knowledge: whether the row was read after the current run was first seen; if it was not, ``run_met_at`` is
            when the run was first seen.
        row_rule: the last decision about the row.
        row_terminal_since: when the row's status was first seen to be terminal.
        row_missing_since: when the row was first seen to be deleted.
        state, state_since: the last recorded state.
        waiting_since: when the beam, or its current run, was first seen.
        run_counted: the current run was counted as one that ended.
        anomalies: those of the current run that have been counted.
        recent: the log's last bytes.
        shown_ratio: the highest estimated progress shown since announcement number ``shown_announcements``.
        prior_rate: pace of earlier runs like the current one, in seconds per particle (or batch); ``None`` without any.
        output: the output check of the current run.
        copy_candidate: another log that may be a copy of this one, as it was first seen.
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
    copy_candidate: NotSaved[tuple[str, LogStat] | None] = None  # found again

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
        """The values that the column ``progress`` is computed from. They change with the log, not with time."""
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

    def forget_run(self, at: float) -> None:
        """Reset what belongs to the run before; the beam waits for a run since ``at``."""
        self.waiting_since = at
        self.output = NO_CHECK
        self.run_counted = False
        self.anomalies = Counter()
        self.shown_ratio, self.shown_announcements = 0.0, 0

    def meet_run(self, at: float) -> None:
        """Note that the log showed a new run at ``at``, after the row was last read."""
        self.row_knowledge, self.run_met_at = RowKnowledge.OLDER_THAN_RUN, at

    def note_log(self, news: LogNews, at: float, **facts: object) -> None:
        """Attribute the log by :data:`~exporter.beams.attribution.LOG_DECISIONS`.

        Args:
            news: what happened to the log.
            at: when.
            facts: the evidence; see :class:`~exporter.beams.decisions.Decision`.
        """
        before = self.log
        self.log, self.log_rule = LOG_DECISIONS[before, news]
        self.decide(self.log_rule, at, log=self.log.value, log_before=before.value, news=news.value, **facts)

    def decide(self, rule: Rule, at: float, **facts: object) -> None:
        """Note a decision, until the store logs it.

        Args:
            rule: by which it was made.
            at: when.
            facts: the evidence; see :class:`~exporter.beams.decisions.Decision`.
        """
        self.decisions = (*self.decisions, Decision(rule, at, facts))

    def invalidate(self) -> None:
        """Note that the state of the beam, or something that its view shows, may have changed."""
        self.view = None
