"""In which state a beam is, whether its row and its log agree about the end, and how long both hold.

The log's verdict outranks the row's: the communicator writes ``completed`` on exit code 0 and fails siblings in bulk.
The row decides only where the log does not tell the end, as after a silent kill. Where the output check is configured,
a claim of success by either holds only when the dose file was found (:mod:`exporter.beams.output`). Functions of a beam
and a moment; nothing is kept here.
"""

from __future__ import annotations

import math

from exporter.beams.attribution import ROW_TIME_TOLERANCE_SECONDS
from exporter.beams.beam import Beam
from exporter.beams.estimate import stall_threshold_seconds
from exporter.beams.output import GRACE_SECONDS
from exporter.beams.rules import StatusRules, StoreRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import ENDED_STATES, BeamState, OutputState
from exporter.beams.sources import SourceState

_TERMINAL_GRACE_SECONDS = 5.0
"""A log that grew so long after its row became terminal is alive: the row was written in bulk."""

_MISMATCH_SECONDS = 60.0
_CLOSE_SECONDS = 0.001


def state_from_log(run: BeamRun) -> BeamState | None:
    """How a run ended, going by the log alone."""
    if run.failed:
        return BeamState.FAILED
    return BeamState.SUCCEEDED if run.succeeded else None


def _row_verdict(beam: Beam, statuses: StatusRules) -> BeamState | None:
    """How the run ended, going by the row alone."""
    if beam.row.status not in statuses.terminal:
        return None
    return BeamState.SUCCEEDED if beam.row.status in statuses.completed else BeamState.FAILED


def state_at(beam: Beam, at: float, rules: StoreRules, source: SourceState) -> tuple[BeamState, float]:
    """State at a moment, and since when the beam is in it.

    Args:
        beam: whose; the state it was in is taken for the one until now.
        at: the moment, epoch seconds.
        rules: limits of silence, and what statuses mean.
        source: where its log is; of all of them where none has been found.
    """
    run, stall, statuses = beam.run, rules.stall, rules.statuses
    claim = claimed_end(beam, at, rules, source)
    if claim is not None:
        return _checked(beam, claim, at, rules, source)
    verdict = _row_verdict(beam, statuses)
    silent_since = run.last_growth_at or run.started_at or at
    progress_since = run.last_progress_at or silent_since
    threshold = stall_threshold_seconds(run, stall)
    if source.down_since is not None and (beam.source is not None or verdict is BeamState.SUCCEEDED):
        return BeamState.UNREACHABLE, source.down_since
    if run.started_at is None:
        return BeamState.WAITING, beam.waiting_since
    active = beam.row.status is not None and beam.row.status not in statuses.terminal
    if at - silent_since > stall.timeout_seconds and not (run.buffered and active):
        return BeamState.EXPIRED, silent_since + stall.timeout_seconds
    if at - progress_since > threshold:
        return BeamState.STALLED, progress_since + threshold
    if run.running_since is None:
        return BeamState.STARTING, run.started_at
    if beam.state in (BeamState.STALLED, BeamState.EXPIRED, BeamState.UNREACHABLE):
        return BeamState.RUNNING, progress_since
    return BeamState.RUNNING, beam.state_since if beam.state is BeamState.RUNNING else run.running_since


def claimed_end(beam: Beam, at: float, rules: StoreRules, source: SourceState) -> tuple[BeamState, float] | None:
    """How the run ended by its log, or by its row where the log does not tell; before the output check.

    Args:
        beam: whose.
        at: the moment, epoch seconds.
        rules: limits of silence, and what statuses mean.
        source: where its log is; of all of them where none has been found.

    Returns:
        ``SUCCEEDED`` or ``FAILED``, and since when; ``None`` while nothing says that the run is over.
    """
    run = beam.run
    verdict = state_from_log(run)
    if verdict is not None:
        return verdict, run.ended_at or at
    verdict = _row_verdict(beam, rules.statuses)
    if verdict is None or not row_may_speak(beam, verdict, at, source):
        return None
    progress_since = run.last_progress_at or run.last_growth_at or run.started_at or at
    # Nobody knows whether a log is silent whose host is down.
    silent_for = (at if source.down_since is None else source.down_since) - progress_since
    if _outlives_row(beam) and silent_for <= stall_threshold_seconds(run, rules.stall):
        return None
    return verdict, _row_terminal_since(beam, at)


def output_state(beam: Beam, rules: StoreRules) -> OutputState:
    """What is known of the dose file of the beam's run."""
    return beam.output.state_for(beam.source, rules.output_sources)


def _checked(
    beam: Beam, claim: tuple[BeamState, float], at: float, rules: StoreRules, source: SourceState
) -> tuple[BeamState, float]:
    """The state of a beam whose run has ended, and since when; success holds only with the dose file."""
    claimed, since = claim
    if claimed is not BeamState.SUCCEEDED:
        return claim
    output = output_state(beam, rules)
    if output is OutputState.MISSING:
        return BeamState.FAILED, beam.output.missing_since
    if not output.undecided:
        return claimed, beam.output.found_late_at or since
    if source.down_since is not None:
        return BeamState.UNREACHABLE, source.down_since
    if beam.run.started_at is None:
        return BeamState.WAITING, beam.waiting_since
    if output is OutputState.BLOCKED:
        stalls_at, expires_at = _blocked_limits(beam, rules)
        if at > expires_at:
            return BeamState.EXPIRED, expires_at
        if at > stalls_at:
            return BeamState.STALLED, stalls_at
    if beam.state is BeamState.RUNNING:
        return BeamState.RUNNING, beam.state_since
    return BeamState.RUNNING, beam.run.running_since or since


def _blocked_limits(beam: Beam, rules: StoreRules) -> tuple[float, float]:
    """When a beam whose dose file cannot be looked for is stalled, and when it expires."""
    claimed_at = beam.output.claimed_at or 0.0
    stall = max(GRACE_SECONDS, stall_threshold_seconds(beam.run, rules.stall))
    return claimed_at + stall, claimed_at + max(stall, rules.stall.timeout_seconds)


def verdict_of(beam: Beam, rules: StoreRules) -> BeamState | None:
    """How the run ended by its log and the output check; ``None`` while they do not tell."""
    verdict = state_from_log(beam.run)
    if verdict is BeamState.SUCCEEDED:
        output = output_state(beam, rules)
        if output.undecided:
            return None
        return BeamState.FAILED if output is OutputState.MISSING else verdict
    return verdict


def failure_reason(beam: Beam, rules: StoreRules) -> str:
    """Why a beam that failed did: one of :data:`exporter.logs.events.FAILURE_REASONS`."""
    if beam.run.reason is not None:
        return beam.run.reason
    return "output_missing" if output_state(beam, rules) is OutputState.MISSING else "status"


def mismatch(beam: Beam, at: float, rules: StoreRules) -> bool:
    """Log (with the output check) and row have disagreed about the end for more than a minute."""
    since = _disagreeing_since(beam, rules)
    return since is not None and at - since > _MISMATCH_SECONDS


def holds_until(beam: Beam, at: float, rules: StoreRules) -> float:
    """When state or mismatch may be others although nothing has happened: the next of all limits they know.

    Args:
        beam: whose; it must have been judged at that moment.
        at: the moment, epoch seconds.
        rules: by which it was judged.
    """
    run = beam.run
    silent_since = run.last_growth_at or run.started_at or at
    progress_since = run.last_progress_at or silent_since
    disagreeing_since = _disagreeing_since(beam, rules)
    limits = [progress_since + stall_threshold_seconds(run, rules.stall), silent_since + rules.stall.timeout_seconds]
    if beam.row_terminal_since is not None:
        limits.append(beam.row_terminal_since + ROW_TIME_TOLERANCE_SECONDS)
    if beam.output.state is OutputState.BLOCKED:
        limits += _blocked_limits(beam, rules)
    if disagreeing_since is not None:
        limits.append(disagreeing_since + _MISMATCH_SECONDS)
    # Sums are rounded: close to a limit nothing is taken for steady.
    return min((limit for limit in limits if limit > at - _CLOSE_SECONDS), default=math.inf) - _CLOSE_SECONDS


def _outlives_row(beam: Beam) -> bool:
    """The log went on growing after its row was said to be over."""
    grown = beam.run.last_growth_at
    return (
        grown is not None
        and beam.row_terminal_since is not None
        and grown > beam.row_terminal_since + _TERMINAL_GRACE_SECONDS
    )


def _row_terminal_since(beam: Beam, at: float) -> float:
    """When the row became terminal: by its own time stamp, unless that is later than we have seen it."""
    seen = at if beam.row_terminal_since is None else beam.row_terminal_since
    return seen if beam.row_written_at is None else min(beam.row_written_at, seen)


def row_may_speak(beam: Beam, verdict: BeamState, at: float, source: SourceState) -> bool:
    """The log has been read to its end after the row became terminal, and had had time for its last words."""
    if beam.row_terminal_since is None or at < beam.row_terminal_since + ROW_TIME_TOLERANCE_SECONDS:
        return False
    if beam.unknown_to_row_since is not None:
        return False  # it was read before the run was met: it speaks of the one before
    if verdict is BeamState.FAILED and (beam.source is None or beam.stale):
        return True  # no log could make it better
    if beam.source is None and beam.state is BeamState.SUCCEEDED:
        return True  # once believed, whichever sources are added
    # Success is believed when its log has been looked for: it could tell that there is no dose.
    # Of a host that is down the last look must have come after the log's last words.
    since = beam.row_terminal_since + (0.0 if source.down_since is None else ROW_TIME_TOLERANCE_SECONDS)
    return source.polled_since(since) and not beam.more_to_read


def _disagreeing_since(beam: Beam, rules: StoreRules) -> float | None:
    """Since when log and row disagree about the end."""
    statuses = rules.statuses
    if beam.row.status is None or beam.unknown_to_row_since is not None:
        return None
    by_log, by_row = verdict_of(beam, rules), _row_verdict(beam, statuses)
    if by_log == by_row:
        return None
    if by_log is None and beam.run.succeeded:
        return beam.row_terminal_since  # nobody can look for the dose
    if by_log is None:
        return beam.row_terminal_since if _outlives_row(beam) and beam.state not in ENDED_STATES else None
    if by_row is None:
        fine = by_log is BeamState.SUCCEEDED and beam.row.status in statuses.post_run
        return None if fine else beam.run.ended_at
    return max(beam.run.ended_at or 0.0, beam.row_terminal_since or 0.0)
