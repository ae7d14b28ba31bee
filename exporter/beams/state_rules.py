"""Decides which state a beam is in: a pure function of the evidence and the time.

The log outranks the row: the communicator writes ``completed`` on exit code 0 and fails siblings in bulk. The row
decides only where the log does not show the end, as after a silent kill. Where the output check is configured, success
by either holds only when the dose file was found (:mod:`exporter.beams.output`).

Every comparison with the time goes through :class:`_Deadlines`. It collects the next instant at which one of them
turns out differently: until then, and while the evidence stays the same, the condition is the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from exporter.beams.attribution import ROW_TIME_TOLERANCE_SECONDS, LogAttribution, RowKnowledge
from exporter.beams.decisions import Rule
from exporter.beams.estimate import stall_threshold_seconds
from exporter.beams.output import GRACE_SECONDS, OutputCheck
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import ENDED_STATES, BeamRow, BeamState, OutputState
from exporter.beams.sources import SourceState

_TERMINAL_GRACE_SECONDS = 5.0
"""A log that grows this long after its row became terminal is alive: the row was written in bulk."""

_MISMATCH_SECONDS = 60.0


class Evidence(NamedTuple):
    """Everything that the state of a beam depends on, besides the time. Instants are on the steady timeline.

    A tuple, since one is made for every beam that is judged: a frozen dataclass takes five times as long.

    Args:
        run: the current run.
        row: the row as it was read last.
        row_written_at: when it was last written, by its own time stamp; ``None`` without one.
        row_knowledge: whether the row can know the current run.
        row_terminal_since: when its status became terminal; ``None`` while it is not.
        log: which run the log belongs to.
        log_source: where the log is; ``None`` without a log.
        more_to_read: the log has not been read to its end.
        waiting_since: when the beam, or its current run, was first seen.
        output: the output check of the run.
        source: health of the log's source; of all sources together without a log.
        state, state_since: the last recorded condition.
        rules: limits of silence, and what statuses mean.
    """

    run: BeamRun
    row: BeamRow
    row_written_at: float | None
    row_knowledge: RowKnowledge
    row_terminal_since: float | None
    log: LogAttribution
    log_source: str | None
    more_to_read: bool
    waiting_since: float
    output: OutputCheck
    source: SourceState
    state: BeamState
    state_since: float
    rules: StoreRules

    @property
    def output_state(self) -> OutputState:
        """What is known of the dose file of the run."""
        return self.output.state_for(self.log_source, self.rules.output_sources)


class Condition(NamedTuple):
    """The state of a beam, and why.

    Args:
        state: the public state.
        since: when it began.
        valid_until: with the same evidence the condition stays the same until this instant.
        rule: by which the state was found.
        status_mismatch: log and row have disagreed about the end for more than a minute.
    """

    state: BeamState
    since: float
    valid_until: float
    rule: Rule
    status_mismatch: bool


class _Deadlines:
    """Compares deadlines with one instant, and keeps the earliest one that is still ahead.

    Args:
        at: the instant.

    Attributes:
        next: the earliest deadline ahead; infinite without one.
    """

    __slots__ = ("at", "next")

    def __init__(self, at: float) -> None:
        self.at = at
        self.next = math.inf

    def over(self, deadline: float) -> bool:
        """Whether the instant is later than the deadline."""
        if self.at > deadline:
            return True
        if deadline < self.next:
            self.next = deadline
        return False

    def reached(self, deadline: float) -> bool:
        """Whether the instant is the deadline, or later."""
        return self.at == deadline or self.over(deadline)


_Found = tuple[BeamState, float, Rule]


def judge(evidence: Evidence, at: float) -> Condition:
    """Decide which state a beam is in.

    Args:
        evidence: what is known of the beam.
        at: the instant to judge.

    Returns:
        The condition; the same evidence gives the same one at any instant before its ``valid_until``.
    """
    deadlines = _Deadlines(at)
    claim = _claimed_end(evidence, deadlines)
    state, since, rule = _unfinished(evidence, deadlines) if claim is None else _checked(evidence, claim, deadlines)
    disagreeing_since = _disagreeing_since(evidence, state)
    mismatch = disagreeing_since is not None and deadlines.over(disagreeing_since + _MISMATCH_SECONDS)
    return Condition(state, since, deadlines.next, rule, mismatch)


def claimed_end(evidence: Evidence, at: float) -> tuple[BeamState, float] | None:
    """How the run ended by its log, or by its row where the log does not show the end; before the output check.

    Args:
        evidence: what is known of the beam.
        at: the instant to judge.

    Returns:
        ``SUCCEEDED`` or ``FAILED``, and since when; ``None`` while nothing says that the run is over.
    """
    claim = _claimed_end(evidence, _Deadlines(at))
    return None if claim is None else claim[:2]


def row_decides(evidence: Evidence, claimed: BeamState, at: float) -> bool:
    """Whether the row may decide how the run ended: the log has been read since, and had time for its last lines.

    Args:
        evidence: what is known of the beam.
        claimed: how the run ended by the row.
        at: the instant to judge.
    """
    return _row_decides(evidence, claimed, _Deadlines(at))


def state_from_log(run: BeamRun) -> BeamState | None:
    """How a run ended by its log alone; ``None`` while the log does not show the end."""
    if run.failed:
        return BeamState.FAILED
    return BeamState.SUCCEEDED if run.succeeded else None


def failure_reason(run: BeamRun, output: OutputState) -> str:
    """Why a failed run failed: one of :data:`exporter.logs.events.FAILURE_REASONS`.

    Args:
        run: the run.
        output: what is known of its dose file.
    """
    if run.reason is not None:
        return run.reason
    return "output_missing" if output is OutputState.MISSING else "status"


def _state_from_row(row: BeamRow, statuses: StatusRules) -> BeamState | None:
    """How the run ended by the row alone; ``None`` while its status is not terminal."""
    if row.status not in statuses.terminal:
        return None
    return BeamState.SUCCEEDED if row.status in statuses.completed else BeamState.FAILED


def _claimed_end(evidence: Evidence, deadlines: _Deadlines) -> _Found | None:
    run = evidence.run
    claimed = state_from_log(run)
    if claimed is not None:
        rule = Rule.LOG_SUCCEEDED if claimed is BeamState.SUCCEEDED else Rule.LOG_FAILED
        return claimed, deadlines.at if run.ended_at is None else run.ended_at, rule
    claimed = _state_from_row(evidence.row, evidence.rules.statuses)
    if claimed is None or not _row_decides(evidence, claimed, deadlines):
        return None
    if _log_outlives_row(evidence) and not _silent_after_row(evidence, deadlines):
        return None
    rule = Rule.ROW_SUCCEEDED if claimed is BeamState.SUCCEEDED else Rule.ROW_FAILED
    return claimed, _row_ended_at(evidence, deadlines.at), rule


def _row_decides(evidence: Evidence, claimed: BeamState, deadlines: _Deadlines) -> bool:
    terminal_since, source = evidence.row_terminal_since, evidence.source
    if terminal_since is None or not deadlines.reached(terminal_since + ROW_TIME_TOLERANCE_SECONDS):
        return False
    if not evidence.row_knowledge.knows_run:
        return False
    no_log = evidence.log_source is None
    if claimed is BeamState.FAILED and (no_log or evidence.log.of_previous_run):
        return True  # no log could show that it succeeded
    if no_log and evidence.state is BeamState.SUCCEEDED:
        return True  # a beam that was shown as done stays so, whichever sources are added
    # Success is believed when its log has been looked for: it could show that there is no dose.
    # A host that is down must have been polled after the log's last lines.
    since = terminal_since + (0.0 if source.down_since is None else ROW_TIME_TOLERANCE_SECONDS)
    return source.polled_since(since) and not evidence.more_to_read


def _log_outlives_row(evidence: Evidence) -> bool:
    """The log went on growing after its row had become terminal."""
    grown_at, terminal_since = evidence.run.last_growth_at, evidence.row_terminal_since
    return grown_at is not None and terminal_since is not None and grown_at > terminal_since + _TERMINAL_GRACE_SECONDS


def _silent_after_row(evidence: Evidence, deadlines: _Deadlines) -> bool:
    """A log that outlived its row has made no progress for longer than the stall threshold."""
    run = evidence.run
    silent_at = _progress_since(run, deadlines.at) + stall_threshold_seconds(run, evidence.rules.stall)
    down_since = evidence.source.down_since
    # Nobody knows whether a log is silent while its host is down.
    return deadlines.over(silent_at) if down_since is None else down_since > silent_at


def _row_ended_at(evidence: Evidence, at: float) -> float:
    """When the row became terminal: its own time stamp, unless that is later than we have seen it."""
    seen_at = at if evidence.row_terminal_since is None else evidence.row_terminal_since
    return seen_at if evidence.row_written_at is None else min(evidence.row_written_at, seen_at)


def _progress_since(run: BeamRun, at: float) -> float:
    return run.last_progress_at or run.last_growth_at or run.started_at or at


def _unfinished(evidence: Evidence, deadlines: _Deadlines) -> _Found:
    """The state of a beam whose run has not ended."""
    run, stall, statuses = evidence.run, evidence.rules.stall, evidence.rules.statuses
    row_state = _state_from_row(evidence.row, statuses)
    down_since = evidence.source.down_since
    if down_since is not None and (evidence.log_source is not None or row_state is BeamState.SUCCEEDED):
        return BeamState.UNREACHABLE, down_since, Rule.SOURCE_DOWN
    if run.started_at is None:
        return BeamState.WAITING, evidence.waiting_since, Rule.NO_RUN
    row_is_active = evidence.row.status is not None and row_state is None
    expires_at = (run.last_growth_at or run.started_at) + stall.timeout_seconds
    if not (run.buffered and row_is_active) and deadlines.over(expires_at):
        return BeamState.EXPIRED, expires_at, Rule.LOG_SILENT
    progress_since = _progress_since(run, deadlines.at)
    stalls_at = progress_since + stall_threshold_seconds(run, stall)
    if deadlines.over(stalls_at):
        return BeamState.STALLED, stalls_at, Rule.NO_PROGRESS
    if run.running_since is None:
        return BeamState.STARTING, run.started_at, Rule.NO_BATCH_YET
    if evidence.state in (BeamState.STALLED, BeamState.EXPIRED, BeamState.UNREACHABLE):
        return BeamState.RUNNING, progress_since, Rule.PROGRESS
    since = evidence.state_since if evidence.state is BeamState.RUNNING else run.running_since
    return BeamState.RUNNING, since, Rule.PROGRESS


def _checked(evidence: Evidence, claim: _Found, deadlines: _Deadlines) -> _Found:
    """The state of a beam whose run has ended; success holds only with the dose file."""
    claimed, since, _ = claim
    if claimed is not BeamState.SUCCEEDED:
        return claim
    run, output, state = evidence.run, evidence.output, evidence.output_state
    if state is OutputState.MISSING:
        return BeamState.FAILED, output.missing_since, Rule.OUTPUT_MISSING
    if not state.undecided:
        return claimed, output.found_late_at or since, claim[2]
    if evidence.source.down_since is not None:
        return BeamState.UNREACHABLE, evidence.source.down_since, Rule.SOURCE_DOWN
    rule = Rule.OUTPUT_BLOCKED if state is OutputState.BLOCKED else Rule.OUTPUT_PENDING
    if run.started_at is None:
        return BeamState.WAITING, evidence.waiting_since, rule
    if state is OutputState.BLOCKED:
        claimed_at = output.claimed_at or 0.0
        stall_seconds = max(GRACE_SECONDS, stall_threshold_seconds(run, evidence.rules.stall))
        stalls_at = claimed_at + stall_seconds
        expires_at = claimed_at + max(stall_seconds, evidence.rules.stall.timeout_seconds)
        if deadlines.over(expires_at):
            return BeamState.EXPIRED, expires_at, rule
        if deadlines.over(stalls_at):
            return BeamState.STALLED, stalls_at, rule
    if evidence.state is BeamState.RUNNING:
        return BeamState.RUNNING, evidence.state_since, rule
    return BeamState.RUNNING, run.running_since or since, rule


def _end_by_log_and_output(evidence: Evidence) -> BeamState | None:
    """How the run ended by its log and the output check; ``None`` while they do not show it."""
    ended = state_from_log(evidence.run)
    if ended is BeamState.SUCCEEDED:
        output = evidence.output_state
        if output.undecided:
            return None
        return BeamState.FAILED if output is OutputState.MISSING else ended
    return ended


def _disagreeing_since(evidence: Evidence, state: BeamState) -> float | None:
    """Since when log (with the output check) and row disagree about the end; ``None`` while they agree."""
    run, statuses, terminal_since = evidence.run, evidence.rules.statuses, evidence.row_terminal_since
    if evidence.row.status is None or not evidence.row_knowledge.knows_run:
        return None
    by_log, by_row = _end_by_log_and_output(evidence), _state_from_row(evidence.row, statuses)
    if by_log == by_row:
        return None
    if by_log is None and run.succeeded:
        return terminal_since  # the dose file cannot be looked for
    if by_log is None:
        return terminal_since if _log_outlives_row(evidence) and state not in ENDED_STATES else None
    if by_row is None:
        fine = by_log is BeamState.SUCCEEDED and evidence.row.status in statuses.post_run
        return None if fine else run.ended_at
    return max(run.ended_at or 0.0, terminal_since or 0.0)
