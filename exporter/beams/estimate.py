"""What a run's state means at a moment: how far it is, how long it will take, when its silence is a stall.

Functions of a run and a time; nothing is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter.beams.run import BeamRun

BATCH_SHARE_LIMIT = 0.99
"""However late a batch is, so much of it at most is taken as done."""

UNFINISHED_LIMIT = 0.999
"""Estimated progress of a run that has not succeeded never exceeds this."""


@dataclass(frozen=True, slots=True)
class StallRules:
    """Limits of silence, seconds (``progress_tracking.stall`` and ``monitoring.timeout_seconds``)."""

    factor: float = 3.0
    minimum_seconds: float = 120.0
    first_batch_seconds: float = 900.0
    buffered_seconds: float = 7200.0
    timeout_seconds: float = 3600.0


def stall_threshold_seconds(run: BeamRun, rules: StallRules) -> float:
    """Silence longer than this is a stall."""
    if run.buffered:
        return rules.buffered_seconds
    if not run.pace.count:
        return rules.first_batch_seconds
    return max(rules.minimum_seconds, rules.factor * run.pace.longest_seconds)


def _elapsed_batches(run: BeamRun, at: float, prior_rate: float | None) -> float:
    """Batches' worth of work done beyond the finished ones, as the clock says."""
    since = run.batch_since if run.batch_since is not None else run.last_growth_at
    rate = run.pace.seconds_per_work or prior_rate
    if not rate or since is None or run.batches.all_finished or not run.batches.announced:
        return 0.0
    elapsed = max(0.0, at - since)
    share = elapsed / (rate * run.batch_work)
    if not run.buffered or share <= 1.0:
        return min(share, BATCH_SHARE_LIMIT)
    # A block of the C library holds back as many batches as the last one brought.
    hidden = 1.0 + (elapsed - rate * run.batch_work) / (rate * run.full_work)
    return min(hidden, run.pace.chunk_batches)


def estimated_ratio(run: BeamRun, at: float, prior_rate: float | None = None) -> float:
    """Finished batches and the elapsed share of the running one, of all batches.

    Args:
        run: the run.
        at: now, epoch seconds.
        prior_rate: seconds per particle (or batch) of recent runs like this one, for its first batch.

    Returns:
        0..1; 1 only when the run has succeeded.
    """
    if run.succeeded:
        return 1.0
    total = run.batches.total
    if not total:
        return 0.0
    if run.ended_at is not None:
        at = min(at, run.ended_at)
    done = run.batches.finished + _elapsed_batches(run, at, prior_rate)
    return min(done / total, UNFINISHED_LIMIT)


def remaining_seconds(run: BeamRun, at: float, prior_rate: float | None = None) -> float | None:
    """Estimated time until the last announced batch is done.

    Returns:
        Seconds, 0 when only saving is left; ``None`` while nothing tells, and after the end.
    """
    batches = run.batches
    rate = run.pace.seconds_per_work or prior_rate
    if run.ended or not batches.announced:
        return None
    if batches.all_finished:
        return 0.0
    if not rate:
        return None
    since = run.batch_since if run.batch_since is not None else run.last_growth_at
    full = rate * run.full_work
    left = batches.announced - batches.finished_of_announced
    last = rate * run.last_batch_work
    if run.buffered:
        elapsed = max(0.0, at - since) if since is not None else 0.0
        return max(0.0, full * (left - 1) + last - elapsed)
    running = rate * run.batch_work
    elapsed = min(max(0.0, at - since), running) if since is not None else 0.0
    return running - elapsed + (full * (left - 2) + last if left > 1 else 0.0)
