"""Makes the views of beams that readers get. Making a view changes nothing but the cache of it."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.beams.beam import Beam
from exporter.beams.estimate import UNFINISHED_LIMIT, Forecast, Work, stall_threshold_seconds
from exporter.beams.rules import StoreRules
from exporter.beams.snapshot import ENDED_STATES, UNKNOWN_SOURCE, BeamState, BeamView, OutputState
from exporter.beams.sources import SourceState
from exporter.beams.state_rules import Condition, failure_reason, judge
from exporter.beams.view_cache import CachedView
from exporter.process.clock import Timeline

_WITHOUT_END = ENDED_STATES | {BeamState.STALLED, BeamState.EXPIRED}
"""States of a beam for which no end can be expected."""


def condition_at(beam: Beam, at: float, rules: StoreRules, source: SourceState) -> CachedView:
    """Return the condition of a beam at an instant; it is judged again only if it may have changed.

    Args:
        beam: the beam.
        at: the instant.
        rules: limits of silence, and what statuses mean.
        source: health of the log's source; of all sources together without a log.
    """
    cached = beam.view
    if cached is None or not cached.valid(at, rules, source):
        condition = judge(beam.evidence(rules, source), at)
        beam.view = cached = CachedView(
            condition,
            at,
            condition.valid_until,
            rules,
            source.down_since,
            beam.row_terminal_since,
            source.polled_since(beam.row_terminal_since),
        )
    return cached


def view_at(beam: Beam, at: float, rules: StoreRules, source: SourceState, timeline: Timeline) -> BeamView:
    """The view of a beam at an instant.

    Args:
        beam: the beam.
        at: the instant.
        rules: limits of silence, and what statuses mean.
        source: health of the log's source; of all sources together without a log.
        timeline: converts instants to the wall-clock times that people read.

    Returns:
        The last view itself where nothing in it has changed.
    """
    cached = beam.view
    if cached is not None and cached.valid(at, rules, source):
        view = cached.view_at(at, beam.row, timeline)
        if view is not None:
            return view
    cached = condition_at(beam, at, rules, source)
    condition = cached.condition
    cached.forecast = forecast = Forecast.of(beam.run, beam.prior_rate)
    cached.endless, cached.least_ratio = _is_endless(beam, condition, rules), _shown_ratio(beam)
    cached.changes_with_time = (
        forecast.moves and condition.state is not BeamState.UNREACHABLE and condition.state not in ENDED_STATES
    )
    cached.view, cached.timeline = _view(beam, condition, at, rules, forecast, timeline), timeline
    return cached.view


def recorded_view(beam: Beam, at: float, rules: StoreRules, source: SourceState, timeline: Timeline) -> BeamView:
    """The view of a beam in the state that was recorded last, whatever the state is at that instant.

    Args:
        beam, at, rules, source, timeline: see :func:`view_at`.
    """
    judged = judge(beam.evidence(rules, source), at)
    condition = judged._replace(state=beam.state, since=beam.state_since)
    return make_view(beam, condition, at, rules, timeline)


def make_view(beam: Beam, condition: Condition, at: float, rules: StoreRules, timeline: Timeline) -> BeamView:
    """Make the view of a beam in a given condition, without the cache.

    Args:
        beam: the beam.
        condition: the condition to show.
        at: the instant.
        rules: limits of silence, and what statuses mean.
        timeline: converts instants to the wall-clock times that people read.
    """
    return _view(beam, condition, at, rules, Forecast.of(beam.run, beam.prior_rate), timeline)


def keep_shown_ratio(beam: Beam, at: float) -> None:
    """Keep the estimated progress that was shown until now: it never goes back within a run.

    Call it before a change from which another estimate may follow.

    Args:
        beam: the beam.
        at: now.
    """
    cached = beam.view
    if cached is not None and cached.forecast is not None:
        forecast, state, since = cached.forecast, cached.condition.state, cached.condition.since
    else:
        forecast = Forecast.of(beam.run, beam.prior_rate)
        state, since = beam.state, beam.state_since
    frozen = state is BeamState.UNREACHABLE or state in ENDED_STATES
    ratio = min(forecast.at(min(at, since) if frozen else at)[0], UNFINISHED_LIMIT)
    beam.shown_ratio = max(ratio, _shown_ratio(beam))
    beam.shown_announcements = beam.run.batches.announcements


def update_prior_rate(beam: Beam, at: float, rates: Mapping[Work, float]) -> None:
    """Take the pace of earlier runs like the beam's, which estimates use until the run has a pace of its own.

    Args:
        beam: the beam.
        at: now.
        rates: seconds per particle (or batch) of recent runs.
    """
    run = beam.run
    if run.started_at is None or run.pace.seconds_per_work:
        return
    rate = rates.get((beam.source or "", run.full_work))
    if rate != beam.prior_rate:
        keep_shown_ratio(beam, at)
        beam.prior_rate = rate
        beam.invalidate()


def _shown_ratio(beam: Beam) -> float:
    """The highest estimated progress shown since the last announcement."""
    return beam.shown_ratio if beam.shown_announcements == beam.run.batches.announcements else 0.0


def _is_endless(beam: Beam, condition: Condition, rules: StoreRules) -> bool:
    """Whether no end is shown. A beam whose host was lost keeps showing the end that it showed before."""
    run = beam.run
    if condition.state is not BeamState.UNREACHABLE:
        return condition.state in _WITHOUT_END
    progress_since = run.last_progress_at or run.last_growth_at or run.started_at
    return progress_since is not None and condition.since - progress_since > stall_threshold_seconds(run, rules.stall)


def _estimates(
    beam: Beam, condition: Condition, forecast: Forecast, at: float, ended_at: float | None
) -> tuple[float, float | None]:
    """Estimated progress and remaining seconds."""
    state = condition.state
    moment = condition.since if state is BeamState.UNREACHABLE else at
    ratio, remaining = forecast.at(moment if ended_at is None else min(moment, ended_at))
    if state is BeamState.SUCCEEDED:
        return 1.0, remaining
    # The log of a run may show success before its dose file has been found.
    return max(min(ratio, UNFINISHED_LIMIT), _shown_ratio(beam)), remaining


def _view(
    beam: Beam, condition: Condition, at: float, rules: StoreRules, forecast: Forecast, timeline: Timeline
) -> BeamView:
    def wall(instant: float | None) -> float | None:
        return None if instant is None else timeline.to_wall(instant)

    run, state = beam.run, condition.state
    of_previous_run = beam.log.of_previous_run
    stat = None if of_previous_run else beam.stat
    batches, pace, dose = run.batches, run.pace, run.dose
    output = beam.output.state_for(beam.source, rules.output_sources)
    reason = failure_reason(run, output) if state is BeamState.FAILED else None
    ended_at = run.ended_at if run.ended else condition.since if state in ENDED_STATES else None
    saving = run.succeeded and output.undecided
    ratio, remaining = _estimates(beam, condition, forecast, at, ended_at)
    if _is_endless(beam, condition, rules):
        remaining = None
    if saving:
        ended_at = None
        remaining = 0.0 if state is BeamState.RUNNING else None
    return BeamView(
        key=beam.row.key,
        source=beam.source or UNKNOWN_SOURCE,
        state=state,
        state_since=timeline.to_wall(condition.since),
        run_number=beam.run_sequence.number,
        dialect=run.dialect,
        phase="saving" if saving else run.phase,
        batches_total=batches.total,
        batch_current=batches.started,
        batches_completed=batches.finished,
        announcements=batches.announcements,
        progress_ratio=batches.ratio,
        estimated_ratio=ratio,
        remaining_seconds=remaining,
        started_at=wall(run.started_at),
        ended_at=wall(ended_at),
        last_progress_at=wall(run.last_progress_at),
        stall_threshold_seconds=stall_threshold_seconds(run, rules.stall),
        batch_duration_seconds=pace.mean_seconds,
        particles_per_batch=run.particles_per_batch,
        particles=run.particles,
        log_path=beam.path,
        log_size_bytes=None if stat is None else stat.size_bytes,
        log_modified_at=None if stat is None else wall(beam.log_modified_at),
        log_seen_growing=beam.log_seen_growing,
        log_buffered=run.buffered,
        log_unmatched=run.unmatched,
        reason=reason,
        failure_text=run.failures[run.reason] if run.reason else None,
        log_succeeded=run.succeeded and not output.undecided and output is not OutputState.MISSING,
        row=beam.row,
        start_seen=run.start_seen,
        dose_path=dose.path,
        dose_dimensions=dose.dimensions,
        dose_max_gy=dose.max_dose_gy,
        doses_written=dose.written,
        dose_written_before_failure=dose.written_before(reason),
        engine_times=run.engine_times,
        status_is_simulating=beam.row.status in rules.statuses.simulating,
        log_of_earlier_run=of_previous_run,
        attributed_by_date=beam.provisional_run is not None,
        status_mismatch=condition.status_mismatch,
        recent=b"" if stat is None else beam.recent,
        output=output,
        output_file=None if output is OutputState.NOT_CONFIGURED else beam.output.file,
        output_problem=None if output is OutputState.NOT_CONFIGURED else beam.output.problem,
    )
