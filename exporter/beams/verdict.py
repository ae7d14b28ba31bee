"""In which state a beam is, whether its row and its log agree about the end, and how long both hold.

The log's verdict outranks the row's: the communicator writes ``completed`` on exit code 0 and fails siblings in bulk.
The row decides only where the log says nothing (killed without a word). Functions of a beam and a moment; nothing is
kept here.
"""

from __future__ import annotations

import math

from exporter.beams.beam import STALE_SECONDS, Beam
from exporter.beams.estimate import stall_threshold_seconds
from exporter.beams.rules import BoardRules, StatusRules
from exporter.beams.run import BeamRun
from exporter.beams.snapshot import ENDED_STATES, BeamState
from exporter.beams.sources import SourceState

_TERMINAL_GRACE_SECONDS = 5.0
"""A log that grew so long after its row became terminal is alive: the row was written in bulk."""

_MISMATCH_SECONDS = 60.0
_CLOSE_SECONDS = 0.001


def log_verdict(run: BeamRun) -> BeamState | None:
    """How a run ended, going by the log alone."""
    if run.failed:
        return BeamState.FAILED
    return BeamState.SUCCEEDED if run.succeeded else None


def _row_verdict(beam: Beam, statuses: StatusRules) -> BeamState | None:
    """How the run ended, going by the row alone."""
    if beam.row.status not in statuses.terminal:
        return None
    return BeamState.SUCCEEDED if beam.row.status in statuses.completed else BeamState.FAILED


def state_at(beam: Beam, at: float, rules: BoardRules, source: SourceState) -> tuple[BeamState, float]:
    """State at a moment, and since when the beam is in it.

    Args:
        beam: whose; the state it was in is taken for the one until now.
        at: the moment, epoch seconds.
        rules: limits of silence, and what statuses mean.
        source: where its log is; of all of them where none has been found.
    """
    run, stall, statuses = beam.run, rules.stall, rules.statuses
    verdict = log_verdict(run)
    if verdict is not None:
        return verdict, run.ended_at or at
    verdict = _row_verdict(beam, statuses)
    silent_since = run.last_growth_at or run.started_at or at
    progress_since = run.last_progress_at or silent_since
    threshold = stall_threshold_seconds(run, stall)
    if verdict is not None and row_may_speak(beam, verdict, at, source):
        # Nobody knows whether a log is silent whose host is down.
        silent = (at if source.down_since is None else source.down_since) - progress_since > threshold
        if not _outlives_row(beam) or silent:
            return verdict, _row_terminal_since(beam, at)
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


def mismatch(beam: Beam, at: float, statuses: StatusRules) -> bool:
    """Log and row have disagreed about the end for more than a minute."""
    since = _disagreeing_since(beam, statuses)
    return since is not None and at - since > _MISMATCH_SECONDS


def holds_until(beam: Beam, at: float, rules: BoardRules) -> float:
    """When state or mismatch may be others although nothing has happened: the next of all limits they know.

    Args:
        beam: whose; it must have been judged at that moment.
        at: the moment, epoch seconds.
        rules: by which it was judged.
    """
    run = beam.run
    silent_since = run.last_growth_at or run.started_at or at
    progress_since = run.last_progress_at or silent_since
    disagreeing_since = _disagreeing_since(beam, rules.statuses)
    limits = [progress_since + stall_threshold_seconds(run, rules.stall), silent_since + rules.stall.timeout_seconds]
    if beam.terminal_since is not None:
        limits.append(beam.terminal_since + STALE_SECONDS)
    if disagreeing_since is not None:
        limits.append(disagreeing_since + _MISMATCH_SECONDS)
    # Sums are rounded: close to a limit nothing is taken for steady.
    return min((limit for limit in limits if limit > at - _CLOSE_SECONDS), default=math.inf) - _CLOSE_SECONDS


def _outlives_row(beam: Beam) -> bool:
    """The log went on growing after its row was said to be over."""
    grown = beam.run.last_growth_at
    return (
        grown is not None and beam.terminal_since is not None and grown > beam.terminal_since + _TERMINAL_GRACE_SECONDS
    )


def _row_terminal_since(beam: Beam, at: float) -> float:
    """When the row became terminal: by its own time stamp, unless that is later than we have seen it."""
    seen = at if beam.terminal_since is None else beam.terminal_since
    return seen if beam.row.updated_at is None else min(beam.row.updated_at, seen)


def row_may_speak(beam: Beam, verdict: BeamState, at: float, source: SourceState) -> bool:
    """The log has been read to its end after the row became terminal, and had had time for its last words."""
    if beam.terminal_since is None or at < beam.terminal_since + STALE_SECONDS:
        return False
    if beam.unknown_to_row_since is not None:
        return False  # it was read before the run was met: it speaks of the one before
    if verdict is BeamState.FAILED and (beam.source is None or beam.stale):
        return True  # no log could make it better
    if beam.source is None and beam.state is BeamState.SUCCEEDED:
        return True  # once believed, whichever sources are added
    # Success is believed when its log has been looked for: it could tell that there is no dose.
    # Of a host that is down the last look must have come after the log's last words.
    since = beam.terminal_since + (0.0 if source.down_since is None else STALE_SECONDS)
    return source.looked_since(since) and not beam.backlog


def _disagreeing_since(beam: Beam, statuses: StatusRules) -> float | None:
    """Since when log and row disagree about the end."""
    if beam.row.status is None or beam.unknown_to_row_since is not None:
        return None
    by_log, by_row = log_verdict(beam.run), _row_verdict(beam, statuses)
    if by_log == by_row:
        return None
    if by_log is None:
        return beam.terminal_since if _outlives_row(beam) and beam.state not in ENDED_STATES else None
    if by_row is None:
        fine = by_log is BeamState.SUCCEEDED and beam.row.status in statuses.post_run
        return None if fine else beam.run.ended_at
    return max(beam.run.ended_at or 0.0, beam.terminal_since or 0.0)
